"""What every kind of feature does, from cells to batches and the data report.

The kinds that ship have a file each beside this one, which ends in its object. What is merely true
of a kind, and asked by rooms that read no cells, stands in `kinds.py` at the root.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ...kinds import KINDS, Facts
from ...recipe import Data, Feature
from ...schema import FeatureSchema, Schema
from ...settings import Home
from ..cells import is_empty
from ..pack import Pack, PackColumn, PackFeature
from ..splits import TRAIN, UNUSED
from ..verdicts import Verdicts
from .vocabularies import Classes

# What the cells of a feature are read as.
Cells = TypeVar("Cells")
# Of int64 positions in a data set, shape (B,), the values of these rows.
Gather = Callable[[np.ndarray], Tensor]
Progress = Callable[[int, int], None]


class Reading(NamedTuple):
    """What a kind reads the cells of a feature from.

    Attributes:
        data: the recipe's part.
        name: of the feature.
        columns: that it reads.
        frame: text cells.
        verdicts: gets what is wrong with a row.
        find_root: gives the folder that relative paths start at; raises DataError where it is not
            there.
    """

    data: Data
    name: str
    columns: list[str]
    frame: pd.DataFrame
    verdicts: Verdicts
    find_root: Callable[[], Path]

    @property
    def asked(self) -> Feature:
        """What the recipe says of the feature."""
        return {**self.data.inputs, **self.data.target}[self.name]


class Packing(NamedTuple):
    """What a kind makes a column of a pack with.

    Attributes:
        data, verdicts, find_root: see `Reading`.
        home: where the store is.
        on_progress: called with the numbers of files done and of all files.
        recheck: read all files, also those that are known.
    """

    data: Data
    home: Home
    verdicts: Verdicts
    find_root: Callable[[], Path]
    on_progress: Progress | None
    recheck: bool


class Packed(NamedTuple):
    """A column of all rows of a table.

    Attributes:
        column: as a pack takes it.
        keys: uint64, shape (rows,), equal where the values are.
        notes: uint8, shape (rows,): of pictures, what is odd about each.
        num_decoded: files decoded for it.
    """

    column: PackColumn
    keys: np.ndarray
    notes: np.ndarray | None = None
    num_decoded: int = 0


class Fitting(NamedTuple):
    """What a kind fits the schema of a feature on.

    Attributes:
        pack: raw values.
        data: the recipe's part.
        name: of the feature.
        split: int8, shape (rows of the pack,): 0 marks the training rows.
        shared: the vocabularies that features share, by name.
    """

    pack: Pack
    data: Data
    name: str
    split: np.ndarray
    shared: Mapping[str, Classes]

    @property
    def entry(self) -> PackFeature:
        """The feature in the pack's manifest."""
        return self.pack.features[self.name]

    @property
    def asked(self) -> Feature:
        """What the recipe says of the feature."""
        return {**self.data.inputs, **self.data.target}[self.name]

    @property
    def is_target(self) -> bool:
        """Whether it is learned."""
        return self.name in self.data.target

    @property
    def train(self) -> np.ndarray:
        """Positions of the training rows in the pack, int64."""
        return np.flatnonzero(self.split == TRAIN)


class Reporting(NamedTuple):
    """What a kind describes a feature from, for the data report.

    Attributes:
        data: the recipe's part.
        name: of the feature.
        columns: the features by name, arrays of all rows of the table.
        side: int8, shape (rows,); -1 for rows that are not used.
        fitted: the feature in the schema; None of a target.
        notes: see `Packed`.
        is_entity: whether its classes are ranked, of which there may be as many as rows.
    """

    data: Data
    name: str
    columns: Mapping[str, PackColumn]
    side: np.ndarray
    fitted: FeatureSchema | None
    notes: np.ndarray | None
    is_entity: bool

    @property
    def column(self) -> PackColumn:
        """Of the feature."""
        return self.columns[self.name]

    @property
    def used(self) -> np.ndarray:
        """Which rows train, validate or test, bool."""
        return self.side != UNUSED


class Strange(NamedTuple):
    """What a model does not know in one column.

    Attributes:
        name: of the column.
        kind: unknown, tokens (most of a text's are unknown), outside (of the training range),
            changed (a column that was constant in training) or missing.
        what: what is strange about its cells, after their number.
        counted: bool, shape (rows,): rows whose cell leaves what training rows had.
        unknown: bool, shape (rows,): those of them about which training says nothing.
        cells: what each row has, ids of `texts` or numbers, shape (rows,); none of a text.
        texts: of the ids.
        known: what the model knows in their place, as the end of a sentence.
    """

    name: str
    kind: Literal["unknown", "tokens", "outside", "changed", "missing"]
    what: str
    counted: np.ndarray
    unknown: np.ndarray
    cells: np.ndarray | None = None
    texts: Sequence[str] = ()
    known: str = ""

    def say_cell(self, row: int) -> str:
        """A row's cell for a message."""
        if self.cells is None or self.kind == "missing":
            return ""
        return repr(self.texts[self.cells[row]]) if self.texts else f"{self.cells[row]:g}"


class Kind(ABC, Generic[Cells]):
    """Everything that is done with the features of one kind.

    Attributes:
        facts: what is true of it.
    """

    facts: Facts

    def is_of_one_column(self, *, is_target: bool) -> bool:
        """Whether such a feature reads one column alone."""
        return False

    def check(self, data: Data, name: str) -> None:
        """Refuse settings that contradict others, before a table is opened.

        Raises:
            RecipeError: names the setting.
        """

    def check_columns(self, data: Data, name: str, columns: Sequence[str]) -> None:
        """Refuse columns that do not suit a feature.

        Raises:
            RecipeError: names the columns.
        """

    @abstractmethod
    def read(self, reading: Reading) -> Cells:
        """Read the cells of all rows, without opening an image."""

    @abstractmethod
    def pack(self, packing: Packing, entry: PackFeature, cells: Cells) -> Packed:
        """Bring the cells of all rows into the form of a pack.

        Args:
            packing: what to do it with.
            entry: the feature in the manifest, as far as it is known.
            cells: what `read` gave.
        """

    @abstractmethod
    def fit(self, fitting: Fitting) -> FeatureSchema:
        """Fit what a model needs to know, on the training rows alone.

        Raises:
            DataError: it cannot be fitted; says why.
        """

    def told_by(self, asked: Feature) -> dict[str, object]:
        """What a recipe's words alone say of a fitted input, by its fields."""
        return {}

    @abstractmethod
    def gatherer(
        self, pack: Pack, feature: FeatureSchema, rows: np.ndarray, schema: Schema
    ) -> Gather:
        """What gathers an input.

        Args:
            pack: raw values.
            feature: that is gathered.
            rows: int64, positions in the pack.
            schema: that the feature is part of.
        """

    def target_gatherer(self, pack: Pack, schema: Schema, rows: np.ndarray) -> Gather:
        """What gathers all targets, which are of this kind.

        Shape (B, D), all columns side by side.
        """
        each = [self.gatherer(pack, target, rows, schema) for target in schema.targets]
        if len(each) == 1:
            return lambda index: each[0](index).flatten(1)
        return lambda index: torch.cat([gather(index).flatten(1) for gather in each], 1)

    def zeros(self, schema: Schema) -> Gather:
        """What stands for the targets of rows that have none."""
        return lambda index: torch.zeros((len(index), schema.num_outputs), dtype=torch.float64)

    @abstractmethod
    def describe(self, reporting: Reporting) -> dict[str, Any]:
        """What the data report says beside kind, columns and missing cells."""

    def count_missing(self, column: PackColumn, frame: pd.DataFrame, data: Data) -> dict[str, int]:
        """Missing cells of each column."""
        return {name: int(is_empty(frame[name]).sum()) for name in column.feature.columns}

    def warn(self, name: str, described: Mapping[str, Any]) -> list[str]:
        """What is to be said of what `describe` gave, a sentence each."""
        return []

    def find_strange(self, feature: FeatureSchema, column: PackColumn) -> Iterable[Strange]:
        """Look for cells of an input that a model does not know."""
        return ()


_KINDS: dict[str, Kind[Any]] = {}


def register(kind: Kind[Any]) -> None:
    """Let recipes name a kind."""
    KINDS[kind.facts.name] = kind.facts
    _KINDS[kind.facts.name] = kind


def kind_of(name: str) -> Kind[Any]:
    """The object of a kind.

    That of one that ships is `KIND` in the file of its name.
    """
    if name not in _KINDS:
        _KINDS[name] = importlib.import_module(f".{name}", __package__).KIND
    return _KINDS[name]

"""What the layers share about data.

The fitted schema of a table, and the shape of a batch. Imports no torch.

The schema is fitted on training rows alone, is saved as `schema.json` with the run, and travels
with the model.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from .disk import read_json, write_atomic
from .errors import SourceError, check_format
from .kinds import KINDS, Facts, KindName

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 2
# One of a million classes has 40 MB; it may be from anybody, and its lists take 20 times as much
# once they are read.
MOST_BYTES = 128_000_000
SPLITS = ("train", "valid", "test")


class FeatureSchema(BaseModel):
    """One feature as a model sees it.

    Attributes:
        shape: of one row's tensor: [C, H, W] for an image, [D + F] for D columns of numbers of
            which F are flagged, [N] for N category columns as input, [] for the one category column
            of a target, [P, 2] for points (x, y), [0] for a text, whose rows have as many tokens as
            they have, [K] for labels of K tags.
        dtype: of the raw values in a batch, before standardising: uint8, uint16 or float32 for
            pixels, float64 for numbers and points, int64 for ids of categories and tokens, float32
            for labels.
        classes: category: labels in the order of their ids. As a target id i is class i. As an
            input id 0 means "unseen in training" and id i + 1 is class i. labels: tags in the order
            of the target's columns. text:
            tokens in the order of their ids: id 0 is padding, id 1 a token that the vocabulary
                lacks, id i + 2 is
            token i.
        mean, std: of the training rows, per channel (image, in raw pixel units) or per column
            (number, in the table's units; points, in pixels of the stored image); empty for
            categories. No std is 0.
        fill: number: what stands for a missing number of each column, in the table's units; empty
            where none may be missing. Raw values are NaN there.
        flagged: number: columns, by position, that lacked numbers in training rows. Each is
            followed, behind all columns, by an input that is 1 where the number is missing, else 0.
        low, high: number: the smallest and the largest value of each column in the training rows;
            empty in schemas of an older torchrelay.
        counts: category and labels: training rows of each class; text: training occurrences of each
            token.
        image: points: the image input that they lie on.
        swap: points: pairs of points, counted from 0, that change places when their image is
            mirrored.
        normalise_by: points: the two points whose distance is the unit of `nme`; empty means the
            diagonal of the points' box.
        unit: number: what the values are counted in; empty where the recipe does not say.
        vocabulary: category: name of the vocabulary that features with the same name here share;
            their classes are the same ones in the same order.
        tokens, ngrams, lowercase: text: how a cell becomes tokens, see the recipe's `Feature`.
        separator: labels: what stands between the tags of a cell.
        embedding: category as input, text: numbers that a class or token is embedded into, where
            the model that this one begins from decides; 0 means by how many there are, see
            `embedding_size`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: KindName
    columns: list[str]
    shape: list[int]
    dtype: str
    classes: list[str] = []
    mean: list[float] = []
    std: list[float] = []
    fill: list[float] = []
    flagged: list[int] = []
    low: list[float] = []
    high: list[float] = []
    counts: list[int] = []
    image: str = ""
    swap: list[tuple[int, int]] = []
    normalise_by: list[int] = []
    unit: str = ""
    vocabulary: str = ""
    tokens: Literal["words", "characters", ""] = ""
    ngrams: list[int] = []
    lowercase: bool = False
    separator: str = ""
    embedding: int = 0

    @property
    def facts(self) -> Facts:
        """What is true of its kind."""
        return KINDS[self.kind]

    @property
    def embedding_size(self) -> int:
        """Numbers that a class of a category input, or a token of a text, is
        embedded into.

        A vocabulary that grows keeps the size that it began with, else no row of its embeddings
        could be kept.
        """
        return self.embedding or min(50, (len(self.classes) + 1) // 2)

    @property
    def num_outputs(self) -> int:
        """Values that a model gives for one row of this target.

        One a class or tag, or one a column.
        """
        return len(self.classes) if self.facts.has_classes else math.prod(self.shape)


class Triple(NamedTuple):
    """Where the parts of a (head, relation, tail) row stand.

    The tail is the target.

    Attributes:
        head: position among the inputs of the category that shares the target's vocabulary: the
            entities.
        relation: position among the inputs of the other category.
    """

    head: int
    relation: int


class TargetPart(NamedTuple):
    """One target's share of a model's outputs and of a batch's target.

    Attributes:
        feature: the target.
        outputs: scores (B, K) of a category or of labels; standardised values (B, D) of numbers or
            points.
        target: class ids (B,) of a category; standardised values (B, D) of numbers or points; 0 or
            1 for each tag of labels, float (B, K).
    """

    feature: FeatureSchema
    outputs: Tensor
    target: Tensor


class AxisLabels(NamedTuple):
    """What stands at each position along one dimension of a parameter.

    A class, a token, a column of numbers.

    Attributes:
        own: in the model; empty where it cannot be said.
        source: in the model that it begins from; empty where that does not say.
    """

    own: Sequence[Hashable]
    source: Sequence[Hashable]


class Schema(BaseModel):
    """What the columns of a table are, fitted on its training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = FORMAT_VERSION
    inputs: list[FeatureSchema]
    targets: list[FeatureSchema]

    @property
    def target_kind(self) -> str:
        """Kind of all targets."""
        return self.targets[0].kind

    @property
    def target_facts(self) -> Facts:
        """What is true of the kind of all targets."""
        return self.targets[0].facts

    @property
    def num_outputs(self) -> int:
        """Values that a model gives for one row, all targets' side by side."""
        return sum(target.num_outputs for target in self.targets)

    def parts(self, outputs: Tensor, target: Tensor) -> list[TargetPart]:
        """Each target's share, in order.

        Args:
            outputs: of a model, shape (B, num_outputs).
            target: of a batch, see `Batch`.
        """
        parts, column = [], 0
        for number, feature in enumerate(self.targets):
            share = outputs[:, column : column + feature.num_outputs]
            if feature.facts.is_one_class:
                true = target if len(self.targets) == 1 else target[:, number]
            else:
                true = target[:, column : column + feature.num_outputs]
            parts.append(TargetPart(feature, share, true))
            column += feature.num_outputs
        return parts

    @property
    def triple(self) -> Triple | None:
        """Where head and relation stand, where the target is an entity to be
        ranked.

        A category whose vocabulary an input shares; else None.

        Such rows are learned and asked in both directions: see `PackDataset`.
        """
        target = self.targets[0]
        if len(self.targets) != 1 or not target.vocabulary:
            return None
        heads = [at for at, one in enumerate(self.inputs) if one.vocabulary == target.vocabulary]
        others = [
            at for at, one in enumerate(self.inputs) if one.facts.is_one_class and at not in heads
        ]
        return Triple(heads[0], others[0]) if len(self.inputs) == 2 and heads and others else None

    @property
    def has_images(self) -> bool:
        """Whether an input is an image."""
        return any(feature.facts.is_image for feature in self.inputs)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomic(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read what `save` wrote.

        Raises:
            SourceError: it is missing, of another format version, or no schema.
        """
        try:
            values = read_json(path, MOST_BYTES)
            version = values.get("format_version") if isinstance(values, dict) else None
            again = "train the run again; a split of the data is made again by `torchrelay ingest`"
            check_format(f"schema {path}", version, FORMAT_VERSION, again, SourceError)
            return cls.model_validate(values)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} is not a schema: {error}") from error


class Batch(NamedTuple):
    """Rows of one step, as they come from a pack (raw) and as they go to a
    model (standardised, augmented).

    Attributes:
        rows: int64, shape (B,): positions in the pack.
        inputs: one tensor an input feature, in the recipe's order, first dimension B. A text is
            int64 (B, L), padded with 0 to the longest row of the batch, L at least 1.
        target: int64 of shape (B,) for one category, (B, T) for T categories; of shape (B, D) for
            numbers or points,
            the columns of all targets side by side: float64 in the table's units (points: pixels of
                the stored
            image) when raw, float32 (or float64) and standardised when prepared; float32 (B, K) for
            labels, 0 or 1 for each tag, all targets side by side.
        repeats: int64, shape (B,): how often the epoch drew the row before, where it draws rows
            more than once.
        mixed_target: like `target`: classes of the rows that these are mixed with; None where
            classes are not mixed.
        mix: float32, shape (B,), where there is a `mixed_target`: share of `target` in a row; the
            loss of a row is mix * loss(target) + (1 - mix) * loss(mixed_target).
    """

    rows: Tensor
    inputs: tuple[Tensor, ...]
    target: Tensor
    repeats: Tensor | None = None
    mixed_target: Tensor | None = None
    mix: Tensor | None = None

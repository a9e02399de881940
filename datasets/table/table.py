"""Opens the user's table as text cells, finds the columns of each feature, and
checks both before ingest.

`datasets/cells/columns.py` and `datasets/files/paths.py` find out which rows are bad, and what the
cells mean.
"""

from __future__ import annotations

import fnmatch
import itertools
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ...disk import why_no_path
from ...errors import DataError, RecipeError, shown
from ...kinds import KINDS
from ...recipe import Data, Feature, nearest
from ..cells import read_labels, spell, strip_unseen
from ..fetch import PLACED
from ..files import check_table_file, stamp_of
from ..kinds import check_vocabularies, find_triple, kind_of
from ..readers import advise, read_csv, read_parquet
from ..verdicts import Reason

# Data sets that `torchrelay fetch` can write.
FETCHABLE = ("digits", "cifar10")

# The table that was checked last, for whoever reads it next: a wide one takes long to read. It is
# held once, if the file has no more bytes than these, and was not touched for so long, as then its
# stamp tells whether it changed.
_checked: dict[str, Table] = {}
MOST_HELD, SETTLED_SECONDS = 1 << 25, 2.0
_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


class Table(NamedTuple):
    """A table as it stands in the file.

    Attributes:
        frame: text cells, indexed from 0; row 0 is the first row of data.
        bad: rows that cannot be what was meant, by their position.
        notes: sentences for the user.
        index_columns: columns that pandas wrote as the index of its rows; no pattern of a recipe
            fits them.
        numbers: columns of Parquet that are numbers by their type.
        is_torn: the file ends within its last line, whose last cell may be cut short.
        state: what it was read from and by which settings; empty where the file may change without
            its stamp.
    """

    frame: pd.DataFrame
    bad: dict[int, Reason]
    notes: list[str]
    index_columns: Sequence[str] = ()
    numbers: Collection[str] = ()
    is_torn: bool = False
    state: str = ""


def open_table(data: Data, named_by: str = "data.table") -> Table:
    """Read a local CSV, TSV or Parquet file as text.

    Of Parquet without columns of lists that no feature reads.

    Args:
        data: the recipe's part.
        named_by: what the user named the table with, for messages.
    Raises:
        RecipeError: the recipe names no table.
        DataError: it is not there, not a table, or has no row; says what to do.
    """
    path = locate_table(data, named_by)
    check_table_file(path)
    state = _state_of(path, data)
    if (held := _checked.pop(state, None)) is not None:
        return held
    if path.suffix.lower() == ".parquet":
        columns = read_parquet(path, data.decimal, lambda name: _reads(data, name))
        table = Table(
            columns.frame,
            {},
            [],
            index_columns=columns.index_columns,
            numbers=columns.numbers,
            state=state,
        )
    else:
        read = read_csv(path, data)
        table = Table(read.frame, read.bad, read.notes, is_torn=read.is_torn, state=state)
    if table.frame.empty:
        raise DataError(
            f"{path} has a header and no rows; add rows, or name another table with {named_by}"
        )
    return table


def _state_of(path: Path, data: Data) -> str:
    """The file by its stamp, and the recipe's part.

    Empty where the file is large or was touched a moment ago.
    """
    status = path.stat()
    if (
        status.st_size > MOST_HELD
        or time.time() - max(status.st_ctime, status.st_mtime) < SETTLED_SECONDS
    ):
        return ""
    return f"{path} {stamp_of(status)} {data.model_dump_json()}"


def read_table(data: Data) -> pd.DataFrame:
    """The cells of the table, every column text.

    "007", "NA" and "None" stay as written, a Parquet null is "".

    Raises:
        RecipeError, DataError: see `open_table`.
    """
    return open_table(data).frame


def locate_table(data: Data, named_by: str = "data.table") -> Path:
    """The table's path, absolute.

    For `named_by` see `open_table`.

    Raises:
        RecipeError: the recipe names none.
        DataError: it is a URL, not a file, compressed, or of a format that cannot be read.
    """
    if not data.table:
        raise RecipeError(f"{named_by} is missing; name a CSV, TSV or Parquet file")
    if "://" in data.table:
        raise DataError(f"{named_by} is a URL, {data.table}; download it and name the local file")
    path = Path(data.table).absolute()
    if reason := why_no_path(path):
        raise DataError(f"{named_by}: {shown(repr(str(path)))} is no path: {reason}; correct it")
    if not path.is_file():
        what = "is not a file" if path.exists() else "is not there"
        raise DataError(f"{path} {what}; {_fetch_hint(path) or f'correct {named_by}'}")
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        remedy = (
            "unpack it first"
            if suffix in (".gz", ".zip", ".bz2", ".xz", ".zst")
            else "save it as CSV or Parquet"
        )
        what = suffix or "a file without a suffix"
        raise DataError(f"{path}: cannot read {what}, expected {', '.join(_SUFFIXES)}; {remedy}")
    return path


def locate_files(data: Data) -> Path:
    """The folder that relative file paths in the table start at, absolute.

    Raises:
        DataError: it is not a folder.
    """
    table = Path(data.table).absolute()
    root = Path(data.files).absolute() if data.files else table.parent
    if not root.is_dir():
        remedy = _fetch_hint(table) or _fetch_hint(root) or "correct data.files"
        raise DataError(f"data.files: the folder {root} is not there; {remedy}")
    return root


def resolve_columns(
    feature_name: str, feature: Feature, columns: Collection[str], index: Collection[str] = ()
) -> list[str]:
    """The table's columns that a feature reads.

    Args:
        feature_name: the column, where the feature names none.
        feature: its `columns` are names, or patterns such as `x*`, whose matches come in the
            table's order.
        columns: all of the table's; of many features as the keys of a dictionary, which is quick to
            ask.
        index: those that no pattern fits.
    Raises:
        DataError: a name or a pattern fits no column; names the nearest.
    """
    found: dict[str, None] = {}
    for wanted in feature.columns or [feature_name]:
        if wanted in columns:
            found[wanted] = None
            continue
        matches = [
            column
            for column in columns
            if column not in index and fnmatch.fnmatchcase(column, wanted)
        ]
        if not matches:
            what = "pattern" if _is_pattern(wanted) else "column"
            raise DataError(
                f"feature {feature_name!r} reads {what} {wanted!r}, which the table does not have; "
                f"{nearest(wanted, columns)}"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def split_columns(data: Data) -> list[str]:
    """The table's columns that `data.split.column` names, in the table's order.

    One, several for a pattern, or none.

    Raises:
        DataError: it names none of the table's; names the nearest.
    """
    wanted = data.split.column
    return _split_columns(data, list(read_table(data).columns) if _is_pattern(wanted) else [])


def _split_columns(data: Data, columns: Sequence[str]) -> list[str]:
    wanted = data.split.column
    if not _is_pattern(wanted):
        return [wanted] if wanted else []
    found = (
        [wanted]
        if wanted in columns
        else [one for one in columns if fnmatch.fnmatchcase(one, wanted)]
    )
    if not found:
        raise DataError(
            f"{data.table}: data.split.column is the pattern {wanted!r}, which no column fits; "
            f"{nearest(wanted, columns)}"
        )
    return found


def with_split_column(data: Data, column: str) -> Data:
    """The same data, split by one of the columns that `data.split.column`
    names.
    """
    return data.model_copy(update={"split": data.split.model_copy(update={"column": column})})


def resolve_features(
    data: Data, columns: Sequence[str], index: Collection[str] = ()
) -> dict[str, list[str]]:
    """The columns of each feature, inputs in the recipe's order and then the
    targets.

    Args:
        data: the recipe's part.
        columns: all of the table's.
        index: those that no pattern fits.
    Raises:
        RecipeError: inputs or targets are missing, or contradict each other.
        DataError: a column that the recipe names is not in the table; names table, key and the
            nearest.
    """
    _check_features(data)
    known = dict.fromkeys(columns)
    try:
        found = {
            name: resolve_columns(name, feature, known, index)
            for name, feature in features_of(data).items()
        }
        for key, column in _named_columns(data).items():
            if column and column not in columns:
                raise DataError(
                    f"{key} names column {column!r}, which the table does not have; "
                    f"{nearest(column, columns)}"
                )
    except DataError as error:
        raise DataError(f"{data.table}: {error}{advise_dialect(data)}") from error
    _check_columns(data, found)
    return found


def advise_dialect(data: Data) -> str:
    """The end of a message about columns that are not there.

    Settings that read the table's header better, if any.
    """
    path = Path(data.table)
    if path.suffix.lower() == ".parquet":
        return ""
    advice = advise(path, data)
    return f"; the table reads better with {advice}" if advice else ""


def features_of(data: Data) -> dict[str, Feature]:
    """All features by name, inputs in the recipe's order and then the
    targets.
    """
    return {**data.inputs, **data.target}


def unused_feature_settings(data: Data) -> list[str]:
    """Warnings about settings that a feature of its kind does not have."""
    found = []
    for name, feature in features_of(data).items():
        every_kind_has = ("kind", "columns")
        keys = [
            key
            for key, field in Feature.model_fields.items()
            if getattr(feature, key) != field.default
            and key not in (*every_kind_has, *feature.facts.settings)
        ]
        if keys:
            found.append(
                f"feature {name!r}: {', '.join(keys)} without effect, because its kind is "
                f"{feature.kind}"
            )
    return found


def check_table(data: Data) -> None:
    """What can be said about the data before anything expensive starts.

    Reads the table, opens no other file.

    Raises:
        RecipeError: the recipe's data part is incomplete or contradicts itself.
        DataError: table or folder of files are not there or cannot be read, a column is missing, or
            a target has one class only.
    """
    _check_features(data)
    table = open_table(data)
    frame = table.frame
    split = (_split_columns(data, list(frame.columns)) or [""])[0]
    columns = resolve_features(
        with_split_column(data, split), list(frame.columns), table.index_columns
    )
    if any(feature.facts.is_image for feature in data.inputs.values()):
        locate_files(data)
    triple = find_triple(data)
    for name, feature in data.target.items():
        if feature.facts.has_tags:
            tags = read_labels(
                frame[columns[name][0]], feature.separator, feature.labels
            ).vocabulary
            check_tags(data.table, columns[name][0], tags, "")
        if feature.facts.is_one_class:
            # What is ranked are entities, which stand among the heads too.
            cells = [frame[columns[one][0]] for one in (name, *([triple.head] if triple else []))]
            classes = dict.fromkeys(
                spell(str(label), feature.labels) for label in pd.concat(cells).unique()
            )
            check_num_classes(
                data.table,
                columns[name][0],
                [label for label in classes if strip_unseen(label)],
                "",
            )
    _checked.clear()
    if table.state:
        _checked[table.state] = table


def check_num_classes(table: str, column: str, classes: Sequence[str], where: str) -> None:
    """Refuse a target that has nothing to tell apart.

    Raises:
        DataError: fewer than two classes.
    """
    if len(classes) < 2:
        has = f"the one class {classes[0]!r}" if len(classes) else "no class"
        raise DataError(f"{table}: target column {column!r} has {has}{where}; expected two or more")


def check_tags(table: str, column: str, tags: Sequence[str], where: str) -> None:
    """Refuse a target of labels without any.

    Raises:
        DataError: there is no tag.
    """
    if not tags:
        raise DataError(
            f"{table}: target column {column!r} has no tag{where}; expected one or more"
        )


def _is_pattern(wanted: str) -> bool:
    return any(sign in wanted for sign in "*?[")


def _check_features(data: Data) -> None:
    if not data.inputs:
        raise RecipeError(
            "data.inputs is missing; name at least one feature, for example image: {kind: image}"
        )
    if not data.target:
        raise RecipeError(
            "data.target is missing; name one feature, for example label: {kind: category}"
        )
    for name, feature in data.target.items():
        if name in data.inputs:
            raise RecipeError(
                f"data.target.{name}: an input has this name too; rename one and name its columns"
            )
        if feature.missing != "reject":
            raise RecipeError(
                f"data.target.{name}.missing: {feature.missing}; what is learned cannot be filled, "
                "leave it out: a row "
                f"without a target is left out of the training"
            )
        if not feature.facts.learned_as:
            legal = ", ".join(sorted(one.name for one in KINDS.values() if one.learned_as))
            raise RecipeError(
                f"data.target.{name}.kind: {feature.kind!r} cannot be a target; legal are {legal}"
            )
    for name, feature in data.inputs.items():
        if remedy := feature.facts.no_input:
            raise RecipeError(
                f"data.inputs.{name}.kind: {feature.kind!r} cannot be an input; {remedy}"
            )
    if len({feature.kind for feature in data.target.values()}) > 1:
        kinds = ", ".join(f"{name} ({feature.kind})" for name, feature in data.target.items())
        raise RecipeError(
            f"data.target: several targets must be of one kind, got {kinds}; train a model for "
            "each kind"
        )
    for name, feature in features_of(data).items():
        kind_of(feature.kind).check(data, name)


def _check_columns(data: Data, found: dict[str, list[str]]) -> None:
    for name, feature in features_of(data).items():
        kind = kind_of(feature.kind)
        one = kind.is_of_one_column(is_target=name in data.target)
        if one and len(found[name]) != 1:
            raise RecipeError(
                f"feature {name!r} is "
                f"{feature.kind}{' and a target' if name in data.target else ''} and reads "
                f"{len(found[name])} columns ({', '.join(found[name][:5])}); expected one: make "
                "one feature of each"
            )
        kind.check_columns(data, name, found[name])
    check_vocabularies(data, found)
    for name, target in itertools.product(data.inputs, data.target):
        both = sorted(set(found[name]) & set(found[target]))
        if both:
            raise RecipeError(
                f"data.inputs.{name}.columns holds {both[0]!r}, which is the target {target!r}; "
                "take it out"
            )


def _named_columns(data: Data) -> dict[str, str]:
    split = data.split
    return {
        "data.split.column": split.column,
        "data.split.group": split.group,
        "data.split.stratify": split.stratify,
        "data.key": data.key,
    }


def _reads(data: Data, column: str) -> bool:
    """Whether a recipe names a column, or a pattern that it fits."""
    wanted = [
        one for name, feature in features_of(data).items() for one in feature.columns or [name]
    ]
    return any(
        column == one or fnmatch.fnmatchcase(column, one)
        for one in [*wanted, *_named_columns(data).values()]
    )


def _fetch_hint(path: Path) -> str:
    """`torchrelay fetch NAME` for a path in or below `data/NAME/`, where
    NAME can be had so; else nothing.
    """
    folders = (path, *path.parents)
    names = [folder.name for folder in folders if folder.parent.name == "data"]
    for name in names:
        if name in FETCHABLE:
            return f"`torchrelay fetch {name}` writes it"
        if name in PLACED:
            return f"`torchrelay fetch {name} --from DIR` places it"
    return ""

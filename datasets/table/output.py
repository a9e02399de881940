"""Writes a table again, with columns of ours beside its own.

What stands in them is found out elsewhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ...disk import describe_failure, require_place, write_atomic
from ...errors import DataError, shown
from ...recipe import Data
from .table import locate_table, open_table

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".parquet")


def locate_output(path: str, table: str) -> Path:
    """Where a table is to be written, absolute.

    Args:
        path: of the file, whose suffix says the format.
        table: the table that it is made from.
    Raises:
        DataError: the suffix is none of ours, its folder is not there, or it is no file, or the
            table itself.
    """
    out = Path(path).absolute()
    if out.suffix.lower() not in SUFFIXES:
        has = f"ends in {out.suffix}" if out.suffix else "has no suffix"
        raise DataError(
            f"{out} {has}; end its name in one of {', '.join(SUFFIXES)}, which says the format"
        )
    try:
        if not out.parent.is_dir():
            raise DataError(
                f"the folder {shown(str(out.parent))} is not there; make it, or write to another"
            )
        if out.is_dir():
            raise DataError(f"{out} is a folder; name a file")
        if out.exists() and out.samefile(table):
            raise DataError(f"{out} is the table that is read; write to another file")
        require_place(out)
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # the latter two for a NUL and for links in a circle
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(
            f"{shown(str(out))} cannot be written: {reason}; name another file with --out"
        ) from error
    return out


def check_new_columns(data: Data, names: Sequence[str], remedy: str) -> None:
    """Refuse names that the table has already.

    Raises:
        DataError: names them all.
    """
    taken = sorted(set(names) & set(open_table(data).frame.columns))
    if taken:
        shown = ", ".join(repr(name) for name in taken[:5]) + (", …" if len(taken) > 5 else "")
        raise DataError(
            f"{data.table} has columns of its own with the names that are to be added ({shown}); "
            f"{remedy}"
        )


def write_output(data: Data, columns: Mapping[str, pa.Array], path: Path) -> None:
    """Write all rows of a table, in their order, with all its columns and then
    ours; an existing file is replaced.

    Args:
        data: the table. The cells of a text table stay as they are written, the columns of Parquet
            keep their types.
        columns: one value a row each.
        path: see `locate_output`.
    Raises:
        DataError: it cannot be written, as on a full disk; what stood there before is as it was.
    """
    try:
        _write(data, columns, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {describe_failure(error)}") from error


def _write(data: Data, columns: Mapping[str, pa.Array], path: Path) -> None:
    table = _read(data)
    for name, values in columns.items():
        table = table.append_column(name, values)
    if path.suffix.lower() == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        write_atomic(path, sink.getvalue().to_pybytes())
        return
    text = io.StringIO()
    # Arrow's own types: whole numbers with a gap would else become floats.
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    frame.to_csv(text, index=False, sep=DELIMITERS[path.suffix.lower()], lineterminator="\n")
    write_atomic(path, text.getvalue())


def _read(data: Data) -> pa.Table:
    if locate_table(data).suffix.lower() == ".parquet":
        return pq.read_table(data.table).replace_schema_metadata(None)
    return pa.Table.from_pandas(
        open_table(data).frame, preserve_index=False
    ).replace_schema_metadata(None)

"""Tables of many columns and few rows: read at once, said in few words, and the same as column
by column.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchrelay.datasets.cells import Notation, read_numbers
from torchrelay.datasets.cells import columns as columns_module
from torchrelay.datasets.ingest.outliers import find_wild, may_be_wild
from torchrelay.datasets.ingest.prepare import prepare_data
from torchrelay.datasets.pack import fingerprint_table, open_view
from torchrelay.datasets.table import check_table, resolve_features
from torchrelay.datasets.table import table as table_module
from torchrelay.datasets.verdicts import MOST_KINDS, Verdicts
from torchrelay.disk import digest
from torchrelay.recipe import Data
from torchrelay.settings import Home

MakeData = Callable[..., Data]
CELLS = ["1", "2.5", " 3 ", "-999", "x", "", "nan", "1e39", "4 €", "5%", "6%"]


def wide_table(path: Path, num_columns: int, num_rows: int, wild_row: int = -1) -> str:
    values = np.random.default_rng(0).integers(0, 10, (num_rows, num_columns)).astype(np.int64)
    if wild_row >= 0:
        values[wild_row] = -99_999_999
    header = ",".join([*(f"x{number}" for number in range(num_columns)), "y"])
    lines = [f"{','.join(map(str, line))},{'ab'[row % 2]}" for row, line in enumerate(values)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


@pytest.mark.parametrize("cells_at_once", [1, 33, 1 << 18])
@pytest.mark.parametrize("may_be_missing", [True, False])
def test_columns_read_together_give_what_each_gives_alone(
    monkeypatch: pytest.MonkeyPatch, cells_at_once: int, may_be_missing: bool
) -> None:
    frame = pd.DataFrame({f"x{number}": np.roll(CELLS, number) for number in range(9)}, dtype=str)
    notation = Notation(".", "", ("€", "%"))
    names = [str(name) for name in frame.columns]
    alone, together = Verdicts(len(frame)), Verdicts(len(frame))
    expected = [
        read_numbers(frame, [name], alone, notation, ["-999"], may_be_missing)[:, 0]
        for name in names
    ]
    monkeypatch.setattr(columns_module, "CELLS_AT_ONCE", cells_at_once)
    values = read_numbers(frame, names, together, notation, ["-999"], may_be_missing)
    np.testing.assert_array_equal(values, np.stack(expected, axis=1))
    assert together.reasons == alone.reasons
    assert len(alone.reasons) == len(frame)


def test_the_fingerprint_of_a_wide_table_is_that_of_its_columns_one_by_one() -> None:
    frame = pd.DataFrame({f"x{number}": ["é" * number, "", "z"] for number in range(50)}, dtype=str)
    total = hashlib.sha256(digest(list(frame.columns), 3, 0).encode())
    for name in frame.columns:
        cells = [str(cell).encode() for cell in frame[name]]
        total.update(np.array([len(cell) for cell in cells], dtype=np.int64).tobytes())
        total.update(b"".join(cells))
    assert fingerprint_table(frame, []) == total.hexdigest()[:32]


def test_columns_that_cannot_be_wild_are_left_out_and_no_other() -> None:
    values = np.random.default_rng(1).normal(size=(200, 60))
    values[3, ::7] = 1e9
    values[5, ::11] = np.nan
    values[:, 4] = 2.0
    wild = [at for at in range(60) if find_wild(values[:, at])]
    assert len(wild) == 9
    assert set(wild) <= set(np.flatnonzero(may_be_wild(values)).tolist())
    assert not may_be_wild(values)[[1, 4]].any()


def test_a_wide_table_is_fitted_as_its_columns_alone_are(tmp_path: Path, home: Home) -> None:
    table = wide_table(tmp_path / "t.csv", 40, 200)
    inputs = {"x": {"kind": "number", "columns": ["x*"]}}
    prepared = prepare_data(
        Data.model_validate({"table": table, "inputs": inputs, "target": TARGET}), home
    )
    view = open_view(prepared.pack_dir, prepared.split_dir)
    values = np.asarray(view.pack.column("x"))[view.rows["train"]]
    [fitted] = view.schema.inputs
    for at in range(40):
        column = np.ascontiguousarray(values[:, at])
        assert fitted.mean[at] == column.mean()
        assert fitted.std[at] == column.std()
        assert (fitted.low[at], fitted.high[at]) == (column.min(), column.max())


def test_the_columns_of_many_features_are_not_gone_through_for_each() -> None:
    num_passes = 0

    class Names(list[str]):
        def __iter__(self) -> Iterator[str]:
            nonlocal num_passes
            num_passes += 1
            return super().__iter__()

    names = Names([*(f"x{number}" for number in range(200)), "y"])
    inputs = {f"x{number}": {"kind": "category"} for number in range(200)}
    data = Data.model_validate(
        {"table": "t.csv", "inputs": inputs, "target": {"y": {"kind": "category"}}}
    )
    assert resolve_features(data, names) == {name: [name] for name in list(names)}
    assert num_passes < 10


def test_four_thousand_columns_bring_few_warnings(tmp_path: Path, home: Home) -> None:
    table = wide_table(tmp_path / "t.csv", 4_000, 40, wild_row=7)
    inputs = {"x": {"kind": "number", "columns": ["x*"]}}
    prepared = prepare_data(
        Data.model_validate({"table": table, "inputs": inputs, "target": TARGET}), home
    )
    assert (
        sum(
            "at least" in text and "times as far from the median" in text
            for text in prepared.warnings
        )
        == MOST_KINDS
    )
    assert f"{4_000 - MOST_KINDS:,} more columns have numbers that are as odd" in prepared.warnings


def test_a_table_that_was_checked_is_not_read_again_unless_it_changed(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    data = Data.model_validate(
        {"table": str(path), "inputs": {"x": {"kind": "number", "columns": "x*"}}, "target": TARGET}
    )
    reads: list[Path] = []
    read = table_module.read_csv
    monkeypatch.setattr(
        table_module, "read_csv", lambda path, dialect: reads.append(path) or read(path, dialect)
    )
    monkeypatch.setattr(table_module, "SETTLED_SECONDS", 0.0)
    for num_rows, is_replaced in ((40, False), (40, True), (50, True)):
        wide_table(path, 3, num_rows)
        time.sleep(0.01)
        check_table(data)
        if is_replaced:
            wide_table(path, 3, num_rows, wild_row=1)
        prepared = prepare_data(data, home)
        assert sum(prepared.rows.values()) == num_rows
        assert len(reads) == 1 + is_replaced
        reads.clear()


TARGET = {"y": {"kind": "category"}}

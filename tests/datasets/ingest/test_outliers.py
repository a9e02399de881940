from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from torchrelay.datasets.ingest.outliers import find_wild
from torchrelay.datasets.ingest.prepare import prepare_data
from torchrelay.recipe import Data
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]

RNG = np.random.default_rng(3)
NORMAL = RNG.normal(20, 3, 400)


@pytest.mark.parametrize("wild", [-99999999.0, 9.96921e36, 1e9, 1e5, -1e30])
def test_one_number_that_flattens_a_column_is_found(wild: float) -> None:
    found = find_wild(np.where(np.arange(400) == 33, wild, NORMAL))
    assert found is not None
    assert found.rows.tolist() == [33]
    assert len(found.times_text) < 12


def test_several_sentinels_are_found_together_and_so_are_two_of_different_size() -> None:
    values = np.where(np.arange(400) % 20 == 0, -999.0, NORMAL)
    found = find_wild(values)
    assert found is not None
    assert sorted(found.rows) == list(range(0, 400, 20))
    found = find_wild(
        np.where(np.arange(400) == 5, 1e12, np.where(np.arange(400) == 9, -1e6, NORMAL))
    )
    assert found is not None
    assert found.rows.tolist() == [5, 9]


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=5000),
        RNG.lognormal(0, 1, 5000),
        RNG.lognormal(10, 2, 5000),
        RNG.poisson(0.05, 5000).astype(float),
        RNG.negative_binomial(0.3, 0.01, 5000).astype(float),
        RNG.standard_t(3, 5000),
        RNG.exponential(1, 5000),
        RNG.pareto(1.2, 2000),
        np.r_[
            np.zeros(920), RNG.integers(100, 41_000, 75), np.full(5, 99_999)
        ],  # gains of capital, mostly none
        np.r_[np.ones(199), 2],
        np.r_[
            np.zeros(99), 1e9
        ],  # of a column that is constant but for one there is nothing to flatten
        np.full(50, 7.0),
        1.7e18 + RNG.normal(0, 1e9, 400),
        np.r_[RNG.normal(size=10), 1e9],
    ],
)
def test_heavy_tails_counts_and_columns_of_few_values_are_no_alarm(values: np.ndarray) -> None:
    assert find_wild(np.asarray(values, np.float64)) is None


def test_a_wild_input_and_a_wild_target_are_warned_of_with_row_value_and_remedy(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    rows = [
        f"{'-99999999' if row == 33 else f'{x:.2f}'},{'1e9' if row == 7 else f'{3 * x:.2f}'}"
        for row, x in enumerate(NORMAL)
    ]
    target = {"y": {"kind": "number"}}
    warnings = "\n".join(
        prepare_data(number_data(write_table(["x0,y", *rows]), target=target), home).warnings
    )
    assert "'x0': 1 of 400 numbers is at least" in warnings
    assert "-99999999 in row 34; beside it all others look alike" in warnings
    assert "data.missing_values: [-99999999] with data.inputs.x.missing: median" in warnings
    assert "'y': 1 of 400 numbers is at least" in warnings
    assert "1e9 in row 8" in warnings


def test_whole_numbers_that_float64_cannot_tell_apart_are_named(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    rows = [f"{2**53 + row},{'ab'[row % 2]}" for row in range(30)]
    warnings = "\n".join(prepare_data(number_data(write_table(["x0,label", *rows])), home).warnings)
    assert "'x0': numbers beyond 2**53 lose digits" in warnings
    stamps = [f"{1_700_000_000_000_000_000 + row * 1_000_000},{'ab'[row % 2]}" for row in range(30)]
    warnings = "\n".join(
        prepare_data(number_data(write_table(["x0,label", *stamps])), home).warnings
    )
    assert "2**53" not in warnings

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from torchrelay.datasets.splits.splits import (
    assign_by_column,
    assign_by_hash,
    combine,
    hash_contents,
    hash_ids,
    hash_numbers,
    hash_texts,
    unused_settings,
)
from torchrelay.recipe import Data, Split

NAMES = pd.Series([f"patient {number}" for number in range(20_000)], dtype=str)


def test_a_column_says_the_sides_in_any_case() -> None:
    words = [
        "train",
        "valid",
        "validation",
        "val",
        "test",
        "Train",
        " TEST ",
        "training",
        "dev",
        "testing",
    ]
    assert assign_by_column(pd.Series(words, dtype=str)).side.tolist() == [
        0,
        1,
        1,
        1,
        2,
        0,
        2,
        0,
        1,
        2,
    ]


def test_another_word_is_quarantined_with_its_value() -> None:
    side, reasons = assign_by_column(pd.Series(["train", "later", ""], name="split", dtype=str))
    assert side.tolist() == [0, -1, -1]
    assert str(reasons[1]) == "split column 'split' is not train, valid or test: 'later'"
    assert sorted(reasons) == [1, 2]


def test_the_fractions_are_met() -> None:
    side = assign_by_hash(Split(valid=0.1, test=0.2), hash_texts(NAMES))
    # Four standard deviations of a binomial with n = 20,000 are 0.011 and 0.0085.
    assert (side == 2).mean() == pytest.approx(0.2, abs=0.012)
    assert (side == 1).mean() == pytest.approx(0.1, abs=0.009)


@pytest.mark.parametrize(
    ("valid", "test", "sides"), [(0, 0, {0}), (0, 0.5, {0, 2}), (0.5, 0, {0, 1})]
)
def test_a_fraction_of_nothing_takes_no_row(valid: float, test: float, sides: set[int]) -> None:
    assert set(assign_by_hash(Split(valid=valid, test=test), hash_texts(NAMES)).tolist()) == sides


def test_no_row_changes_side_when_rows_are_added_removed_or_shuffled() -> None:
    split = Split(seed=3)
    whole = dict(zip(NAMES, assign_by_hash(split, hash_texts(NAMES)), strict=True))
    part = NAMES.sample(5_000, random_state=0)
    assert all(
        whole[name] == side
        for name, side in zip(part, assign_by_hash(split, hash_texts(part)), strict=True)
    )


def test_another_seed_gives_another_and_independent_split() -> None:
    keys = hash_texts(NAMES)
    first, second = (assign_by_hash(Split(seed=seed), keys) == 2 for seed in (0, 1))
    # Independent: one row in 25 is in both test sets (0.2 x 0.2), within four deviations (0.0055).
    assert (first & second).mean() == pytest.approx(0.04, abs=0.0056)


@pytest.mark.parametrize("seed", [-1, 2**63 - 1])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert len(assign_by_hash(Split(seed=seed), hash_texts(NAMES[:10]))) == 10


def test_a_larger_test_fraction_keeps_the_old_test_rows() -> None:
    keys = hash_texts(NAMES)
    small, large = (assign_by_hash(Split(valid=0, test=test), keys) == 2 for test in (0.1, 0.3))
    assert not (small & ~large).any()


def test_the_hash_is_splitmix64_of_blake2b_in_every_process() -> None:
    # First output of SplitMix64 for the state 1234567, from Rosetta Code, "Pseudo-random
    # numbers/Splitmix64".
    assert combine([np.array([1_234_567], dtype=np.uint64)]).tolist() == [6_457_827_717_110_365_317]
    state = int.from_bytes(hashlib.blake2b(b"007", digest_size=8).digest(), "little")
    expected = combine([np.array([state], dtype=np.uint64)])
    assert hash_texts(pd.Series(["7", "007"], dtype=str)).tolist()[1:] == expected.tolist()


def test_numbers_have_one_hash_however_they_are_written() -> None:
    one, other = np.array([[5.0, -0.0]]), np.array([[float("5e0"), 0.0]])
    assert hash_numbers(one).tolist() == hash_numbers(other).tolist()
    assert hash_numbers(one).tolist() != hash_numbers(one[:, ::-1]).tolist()


def test_ids_are_hashed_by_their_texts() -> None:
    assert (
        hash_ids(np.array([[0, 1]]), ["a", "b"]).tolist()
        == hash_ids(np.array([[1, 0]]), ["b", "a"]).tolist()
    )


def test_contents_are_hashed_by_their_first_64_bits() -> None:
    content = np.array([b"00000000000000ff" + b"1" * 16, b""], dtype="S32")
    assert hash_contents(content).tolist() == [255, 0]


def test_settings_beside_a_column_have_no_effect_or_less_and_say_so() -> None:
    data = Data(split=Split(column="part", test=0.5, group="patient"))
    assert unused_settings(data) == [
        "data.split.test: without effect, because the column 'part' says which rows train",
        "data.split.group: moves no row, because the column 'part' says which rows train; the "
        "intervals of test "
        "metrics draw its groups",
    ]
    assert unused_settings(Data(split=Split(column="part"))) == []
    assert unused_settings(Data(split=Split(test=0.5))) == []

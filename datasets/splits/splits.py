"""Decides which rows train, validate and test.

By a column, or by a hash that no other row has a part in.

By hash a row's side is a pure function of (seed, its group or key), so that no row changes side
when the table grows. Therefore `stratify` decides nothing: its values get the fractions in
expectation only, and `datasets/ingest/report.py` counts what they got.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import pandas as pd

from ...recipe import Data, Split
from ..cells import compose, strip_unseen
from ..verdicts import Reason

TRAIN, VALID, TEST = 0, 1, 2
UNUSED = -1

# What a cell of a split column may say, in any case.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("valid", "validation", "val", "dev"), VALID),
    **dict.fromkeys(("test", "testing"), TEST),
}
_TWO_TO_64 = 2.0**64


class Sides(NamedTuple):
    """The side of each row.

    Attributes:
        side: int8, shape (rows,): 0 train, 1 valid, 2 test, -1 none.
        reasons: why a row has none, by its position.
    """

    side: np.ndarray
    reasons: dict[int, Reason]


def assign_by_column(cells: pd.Series) -> Sides:
    """Read the sides from a column.

    Train (training), valid (validation, val, dev) or test (testing), in any case.
    """
    ids, values = pd.factorize(cells)
    words = [strip_unseen(str(value)).lower() for value in values]
    side = np.array([SPLIT_WORDS.get(word, UNUSED) for word in words], dtype=np.int8)[ids]
    kind = f"split column {cells.name!r} is not train, valid or test"
    return Sides(
        side,
        {int(row): Reason(kind, repr(cells.iloc[row])) for row in np.flatnonzero(side == UNUSED)},
    )


def assign_by_hash(split: Split, keys: np.ndarray) -> np.ndarray:
    """Decide the sides from the fractions.

    Args:
        split: fractions and seed.
        keys: uint64, shape (rows,), from `hash_texts`, `hash_numbers` and `combine`; equal ones
            stay together.
    Returns:
        int8, shape (rows,): 0 train, 1 valid, 2 test.
    """
    seed = np.uint64(split.seed & 0xFFFF_FFFF_FFFF_FFFF)
    fraction = _mix(keys ^ _mix(np.array([seed], dtype=np.uint64))) / _TWO_TO_64
    side = np.full(len(keys), TRAIN, dtype=np.int8)
    side[fraction < split.test + split.valid] = VALID
    side[fraction < split.test] = TEST
    return side


def hash_texts(cells: pd.Series) -> np.ndarray:
    """64 bits of each text's BLAKE2b, as uint64 of shape (rows,).

    The same in every process, version, Unicode form.
    """
    ids, values = pd.factorize(cells)
    return hash_ids(ids[:, None], [compose(str(value)) for value in values])


def hash_ids(ids: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """64 bits of each row of ids of shape (rows, columns), by the texts that
    they stand for.
    """
    digests = b"".join(
        hashlib.blake2b(text.encode(), digest_size=8).digest() for text in vocabulary
    )
    keys = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    return combine([keys[ids[:, column]] for column in range(ids.shape[1])])


def hash_tags(ids: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """64 bits of each row of ids of tags, -1 where there is none, by the texts.

    Their order does not count.
    """
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in vocabulary]
    keys = np.frombuffer(b"".join([*digests, bytes(8)]), dtype="<u8").astype(
        np.uint64
    )  # of -1, the last, nothing
    return _mix(keys[ids].sum(axis=1, dtype=np.uint64))


def hash_numbers(numbers: np.ndarray) -> np.ndarray:
    """64 bits of each row of float64 numbers of shape (rows, columns).

    5, 5.0 and 5e0 are one number.
    """
    numbers = np.where(np.isnan(numbers), np.nan, numbers)  # all that are missing are alike
    bits = np.ascontiguousarray(numbers + 0.0).view(np.uint64)  # + 0.0 turns -0.0 into 0.0
    return combine([bits[:, column] for column in range(bits.shape[1])])


def hash_contents(content: np.ndarray) -> np.ndarray:
    """The first 64 bits of hex digests, 'S32' of shape (rows,).

    0 where there is none.
    """
    digits = content.astype("S16").tolist()
    return np.array([int(digit or b"0", 16) for digit in digits], dtype=np.uint64)


def combine(keys: list[np.ndarray]) -> np.ndarray:
    """One uint64 of shape (rows,) from several.

    Their order counts.
    """
    total = np.zeros(len(keys[0]), dtype=np.uint64)
    for key in keys:
        total = _mix(total ^ key)
    return total


def unused_settings(data: Data) -> list[str]:
    """Warnings about settings of the split that have no effect, or less,
    beside a column.
    """
    split, default = data.split, Split()
    if not split.column:
        return []
    why = f"because the column {split.column!r} says which rows train"
    # The group is drawn for intervals, the values of the other are counted.
    names = [name for name in Split.model_fields if name not in ("column", "group", "stratify")]
    changed = [
        f"data.split.{name}" for name in names if getattr(split, name) != getattr(default, name)
    ]
    found = [f"{', '.join(changed)}: without effect, {why}"] if changed else []
    if split.group:
        found.append(
            f"data.split.group: moves no row, {why}; the intervals of test metrics draw its groups"
        )
    return found


def _mix(bits: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014).

    A bijection that spreads every bit.
    """
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))

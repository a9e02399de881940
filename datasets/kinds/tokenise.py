r"""Cuts texts into n-grams of words or characters, as ids in compressed rows.

It fits and drops nothing. Every text is put into Unicode's composed form (NFC),
so that "é" is one letter however it was typed, and into small letters where
capitals do not count.

- words: runs of letters, digits, combining marks and underscores, of any
  script. Words of one letter count ("y" and "a" are words); punctuation and
  symbols separate words and are dropped, apostrophes among them: "don't" is
  "don", "t". Words of an n-gram are joined by a space.
- characters: all of them, spaces and punctuation too; any run of white space is
  one space. Nothing is added at the ends of a text, and an n-gram may reach
  over the end of a word.

A text shorter than n has no n-gram of that length. The n-grams are those of
scikit-learn's CountVectorizer with the analysers `word`, of the pattern `\w+`,
and `char`; but there a combining mark ends a word, letters typed in two parts
stay two, and a white space that is not doubled stays as it is.
"""

# The functions of pyarrow.compute are made when it is imported.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ...recipe import Feature
from ..pack import Ragged, spread

# Rows are cut in chunks of about so many bytes of text, so that a large table needs no large arrays
# in between.
CHUNK_BYTES = 8_000_000
_NO_WORD = r"[^\p{L}\p{M}\p{N}_]+"
_WHITE = r"[\s\x0b\x1c-\x1f\x85\p{Z}]+"


class Tokens(NamedTuple):
    """All rows' tokens.

    Attributes:
        rows: int32 ids; of a row all n-grams of the shortest length first, each length in the order
            of the text.
        vocabulary: text of each id, in the order in which they came up.
    """

    rows: Ragged
    vocabulary: list[str]


class _Units(NamedTuple):
    """Words or characters of some texts, one after the other.

    Attributes:
        ids: int64, of each unit.
        lengths: int64, units of each text.
        names: word, or character, of each unit.
        joint: what stands between the units of an n-gram.
    """

    ids: np.ndarray
    lengths: np.ndarray
    names: Sequence[str]
    joint: str


def tokenise(cells: pd.Series, feature: Feature) -> Tokens:
    """Cut each cell into the tokens that a feature asks for.

    Args:
        cells: text.
        feature: its `tokens`, `ngrams` and `lowercase`.
    """
    id_of: dict[str, int] = {}
    values, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for texts in _chunks(pa.array(cells, type=pa.large_string())):
        units = (
            _cut_words(texts, feature)
            if feature.tokens == "words"
            else _cut_characters(texts, feature)
        )
        ids, num_grams, names = _name_grams(units, *feature.ngrams)
        of_all = np.array([id_of.setdefault(name, len(id_of)) for name in names], np.int32)
        values.append(of_all[ids])
        lengths.append(num_grams)
    return Tokens(Ragged.of_lengths(np.concatenate(values), np.concatenate(lengths)), list(id_of))


def _chunks(texts: pa.LargeStringArray | pa.ChunkedArray) -> Iterator[pa.LargeStringArray]:
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.combine_chunks()
    ends = np.cumsum(pc.binary_length(texts).to_numpy(zero_copy_only=False))
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK_BYTES, side="right")))
        yield texts.slice(start, stop - start)
        start = stop


def _normalise(texts: pa.LargeStringArray, feature: Feature) -> pa.LargeStringArray:
    # Not Arrow's utf8_normalize: of version 25 it takes letters apart under "NFC" and does not
    # compose them.
    cells = texts.to_pylist()
    lower = (cell.lower() for cell in cells) if feature.lowercase else cells
    return pa.array([unicodedata.normalize("NFC", cell) for cell in lower], pa.large_string())


def _cut_words(texts: pa.LargeStringArray, feature: Feature) -> _Units:
    pieces = pc.split_pattern_regex(_normalise(texts, feature), pattern=_NO_WORD)
    ends = pieces.offsets.to_numpy().astype(np.int64)
    words = pieces.values.slice(ends[0], ends[-1] - ends[0])
    is_word = pc.not_equal(words, "").to_numpy(
        zero_copy_only=False
    )  # a text that begins or ends with no word
    rows = np.repeat(np.arange(len(texts)), np.diff(ends))[is_word]
    found = words.filter(pa.array(is_word)).dictionary_encode()
    names = found.dictionary.to_pylist()
    ids = found.indices.to_numpy().astype(np.int64)
    return _Units(ids, np.bincount(rows, minlength=len(texts)), _Gathered(names, ids), " ")


def _cut_characters(texts: pa.LargeStringArray, feature: Feature) -> _Units:
    texts = pc.replace_substring_regex(_normalise(texts, feature), pattern=_WHITE, replacement=" ")
    joined = "".join(texts.to_pylist())
    ids = pd.factorize(np.frombuffer(joined.encode("utf-32-le"), np.uint32))[0].astype(np.int64)
    return _Units(
        ids, pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64), joined, ""
    )


class _Gathered(Sequence[str]):
    """The name of each of many units, without a list of them all."""

    def __init__(self, names: list[str], ids: np.ndarray) -> None:
        self._names, self._ids = names, ids

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, at: int | slice) -> str | list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(at, slice):
            return [self._names[number] for number in self._ids[at].tolist()]
        return self._names[self._ids[at]]


def _name_grams(
    units: _Units, shortest: int, longest: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All n-grams of some texts.

    An n-gram is told from others by its first n - 1 units, which have an id already, and its last
    one: whole numbers that are compared exactly, and no string is made of one that came before
    (Karp, Miller and Rosenberg 1972).

    Returns:
        Ids of the n-grams, text after text, int64; how many each text has, int64; the text of each
        id.
    """
    room = spread(
        units.lengths, down=True
    )  # units from here to the end of the text, this one among them
    num_units = int(units.ids.max(initial=0)) + 1
    num_grams = sum(
        np.maximum(units.lengths - length + 1, 0) for length in range(shortest, longest + 1)
    )
    assert isinstance(num_grams, np.ndarray)
    all_ids, place = np.empty(num_grams.sum(), np.int64), np.cumsum(num_grams) - num_grams
    at, ids, names = np.arange(len(units.ids)), units.ids, []
    for length in range(1, longest + 1):
        if length > 1:
            keeps = room[at] >= length
            at = at[keeps]
            ids = pd.factorize(ids[keeps] * num_units + units.ids[at + length - 1])[0]
        if length < shortest:
            continue
        first = np.flatnonzero(np.diff(np.maximum.accumulate(ids), prepend=-1)) if len(ids) else ids
        counts = np.maximum(units.lengths - length + 1, 0)
        all_ids[np.repeat(place, counts) + spread(counts)] = ids + len(names)
        names += [units.joint.join(units.names[one : one + length]) for one in at[first].tolist()]
        place = place + counts
    return all_ids, num_grams, names

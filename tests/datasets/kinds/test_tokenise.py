from __future__ import annotations

import itertools
import unicodedata
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from torchrelay.datasets.kinds import tokenise as module
from torchrelay.datasets.kinds.tokenise import tokenise
from torchrelay.datasets.pack import Ragged
from torchrelay.recipe import Feature


def tokens_of(texts: list[str], **settings: object) -> list[list[str]]:
    """Tokens of each text, in their order."""
    found = tokenise(
        pd.Series(texts, dtype="str"), Feature.model_validate({"kind": "text", **settings})
    )
    ends = found.rows.offsets.tolist()
    ids = found.rows.values.tolist()
    return [
        [found.vocabulary[at] for at in ids[start:end]] for start, end in itertools.pairwise(ends)
    ]


def test_words_are_runs_of_letters_digits_and_underscores_in_small_letters() -> None:
    assert tokens_of(["I don't know: X_1, y 3.5%!", " ¿Qué?  A-b "]) == [
        ["i", "don", "t", "know", "x_1", "y", "3", "5"],
        ["qué", "a", "b"],
    ]


def test_capitals_stay_where_they_count() -> None:
    assert tokens_of(["The US and us"], lowercase=False) == [["The", "US", "and", "us"]]


def test_texts_without_a_word_have_no_token() -> None:
    assert tokens_of(["***", "", "ok", "..."]) == [[], [], ["ok"], []]


def test_words_of_every_script_keep_their_marks_and_letters_typed_in_two_parts_are_one() -> None:
    in_two_parts = unicodedata.normalize("NFD", "Él comió")
    assert len(in_two_parts) > len("Él comió")
    assert tokens_of([in_two_parts, "हिन्दी में लिखा", "Привет, мир"]) == [
        ["él", "comió"],
        ["हिन्दी", "में", "लिखा"],
        ["привет", "мир"],
    ]
    assert tokens_of([in_two_parts], tokens="characters") == [list("él comió")]


def test_ngrams_of_words_stay_within_a_text_and_the_shortest_come_first() -> None:
    assert tokens_of(["a b c", "d", "c d"], ngrams=[1, 2]) == [
        ["a", "b", "c", "a b", "b c"],
        ["d"],
        ["c", "d", "c d"],
    ]
    assert tokens_of(["a b c d", "a b"], ngrams=[3, 3]) == [["a b c", "b c d"], []]


def test_characters_count_spaces_and_punctuation_once_and_nothing_at_the_ends() -> None:
    assert tokens_of(["Ab\t\n c!", "x"], tokens="characters", ngrams=[2, 3]) == [
        ["ab", "b ", " c", "c!", "ab ", "b c", " c!"],
        [],
    ]


def test_a_table_in_many_chunks_gives_the_same_tokens_as_in_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["one two", "two three", "", "three one two one", "ñandú"]
    whole = {kind: tokens_of(texts, tokens=kind, ngrams=[1, 3]) for kind in ("words", "characters")}
    monkeypatch.setattr(module, "CHUNK_BYTES", 9)
    assert {kind: tokens_of(texts, tokens=kind, ngrams=[1, 3]) for kind in whole} == whole


@pytest.mark.parametrize(
    ("settings", "counter"),
    [
        ({"ngrams": [1, 2]}, {"token_pattern": r"\w+", "ngram_range": (1, 2)}),
        ({"tokens": "characters", "ngrams": [1, 4]}, {"analyzer": "char", "ngram_range": (1, 4)}),
        ({"tokens": "characters", "ngrams": [2, 3], "lowercase": False},
         {"analyzer": "char", "ngram_range": (2, 3), "lowercase": False}),
    ],
)  # fmt: skip
def test_counts_are_those_of_scikit_learn(
    settings: dict[str, Any], counter: dict[str, Any]
) -> None:
    generator = np.random.default_rng(0)
    letters = np.array(list("aábBcÇ é1_.,!  "))
    texts = ["".join(generator.choice(letters, generator.integers(1, 40))) for _ in range(200)]
    vectorizer = CountVectorizer(**counter)
    expected: np.ndarray = vectorizer.fit_transform(texts).toarray()  # pyright: ignore[reportAttributeAccessIssue]
    counted = np.zeros_like(expected)
    for row, tokens in enumerate(tokens_of(texts, **settings)):
        for token in tokens:
            counted[row, vectorizer.vocabulary_[token]] += 1
    np.testing.assert_array_equal(counted, expected)


def test_rows_of_different_lengths_are_taken_in_any_order() -> None:
    rows = Ragged.of_lengths(np.array([5, 6, 7, 8]), np.array([2, 0, 1, 1]))
    taken = rows.take(np.array([3, 0, 1, 0]))
    assert (taken.values.tolist(), taken.offsets.tolist()) == ([8, 5, 6, 5, 6], [0, 1, 3, 3, 5])

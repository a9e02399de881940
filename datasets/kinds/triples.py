"""Triples (head, relation, tail) of a pack as ids, each asked in both
directions; which rows are triples is judged in `vocabularies.py`.

A row is asked twice: (head, relation) for the tail, and (tail, reciprocal relation) for the head. A
reciprocal relation is one of its own (Lacroix, Usunier and Obozinski 2018,
https://arxiv.org/abs/1806.07297; Kazemi and Poole 2018, https://arxiv.org/abs/1802.04868): with R
relations, ids 1 to R ask forwards and R + 1 to 2R backwards.
"""

# Shapes: N rows, M questions: 2N where the tails are known, the backward ones after the forward
# ones, else N.

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...schema import FeatureSchema, Schema
from ..pack import Pack


class Questions(NamedTuple):
    """What is asked about the rows, int64, shape (M,) each.

    Attributes:
        row: which of the N rows it is about.
        head: input id of the entity that is given: 0 unknown, else class + 1.
        relation: input id, see above.
        answer: class id of the entity that is asked for; 0 where the pack has no tails.
    """

    row: np.ndarray
    head: np.ndarray
    relation: np.ndarray
    answer: np.ndarray


def ask_questions(
    pack: Pack, schema: Schema, rows: np.ndarray, tails_N: np.ndarray | None
) -> Questions:
    """Ask each row for its tail, then, where the tails are known, each row for
    its head.

    Args:
        pack: raw values.
        schema: with a `triple`.
        rows: int64, positions in the pack, shape (N,); their entities and relations are known, as a
            verdict on other rows has seen to (see `vocabularies.py`).
        tails_N: class ids of the rows' tails, int64; None where the pack has none.
    """
    triple = schema.triple
    assert triple is not None
    heads_N = _class_of_rows(pack, schema.inputs[triple.head], rows)
    relation = schema.inputs[triple.relation]
    relations_N = _class_of_rows(pack, relation, rows)
    numbers_N = np.arange(len(rows))
    if tails_N is None:
        return Questions(numbers_N, heads_N + 1, relations_N + 1, np.zeros_like(heads_N))
    return Questions(
        np.concatenate([numbers_N, numbers_N]),
        np.concatenate([heads_N, tails_N]) + 1,
        np.concatenate([relations_N, relations_N + len(relation.classes)]) + 1,
        np.concatenate([tails_N, heads_N]),
    )


def _class_of_rows(pack: Pack, feature: FeatureSchema, rows: np.ndarray) -> np.ndarray:
    """Class id of each row, int64, shape (N,).

    -1 where the schema does not know the class.
    """
    position = {name: at for at, name in enumerate(feature.classes)}
    ids = np.array([position.get(name, -1) for name in pack.vocabulary(feature.name)], np.int64)
    return ids[np.asarray(pack.column(feature.name))[rows, 0]]

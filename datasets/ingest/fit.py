"""Fits the schema on the training rows of a pack.

Each feature as its kind does; looks at no other row.
"""

from __future__ import annotations

import numpy as np

from ...recipe import Data
from ...schema import Schema
from ..kinds import Fitting, fit_vocabularies, kind_of
from ..pack import Pack
from ..table import features_of


def fit_schema(pack: Pack, data: Data, split: np.ndarray) -> Schema:
    """Fit what a model needs to know about the columns.

    Args:
        pack: raw values.
        data: which features are inputs and which are targets, in their order.
        split: int8, shape (rows of the pack,): 0 marks the training rows.
    """
    shared = fit_vocabularies(pack, data, split)
    fitted = {
        name: kind_of(feature.kind).fit(Fitting(pack, data, name, split, shared))
        for name, feature in features_of(data).items()
    }
    return Schema(
        inputs=[fitted[name] for name in data.inputs],
        targets=[fitted[name] for name in data.target],
    )

"""A multilayer perceptron over any mixture of inputs."""

# Shapes: B rows in a batch, D number columns, N category columns, L tokens, P points, C x H x W an
# image, F units, K outputs.

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import ShapeError
from ...schema import FeatureSchema
from ..inputs import build_encoder

Norm = Literal["none", "batch", "layer"]


class MLP(nn.Module):
    """Affine layers with ReLU, dropout and an optional norm over all inputs.

    Numbers enter as they are, images and points flattened, each category column through an
    embedding of its own, a text as the mean of its tokens' embeddings.

    Args:
        features: schemas of the inputs, in the order of the arguments of `forward`.
        num_outputs: values for each row.
        hidden: units of each hidden layer; none gives a linear model.
        dropout: probability with which a hidden unit is dropped in training.
        norm: of each hidden layer before its ReLU: none, batch (Ioffe and Szegedy 2015) or layer
            (Ba et al. 2016).
    """

    def __init__(
        self,
        features: Sequence[FeatureSchema],
        num_outputs: int,
        hidden: Sequence[int],
        dropout: float,
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.shapes = [
            ("tokens",) if feature.facts.is_sequence else tuple(feature.shape)
            for feature in features
        ]
        self.encoders = nn.ModuleList()
        num_inputs = 0
        for feature in features:
            encoder, num_units = build_encoder(feature)
            num_inputs += num_units
            self.encoders.append(encoder)
        layers: list[nn.Module] = []
        for num_units in hidden:
            layers += [
                nn.Linear(num_inputs, num_units),
                *_norms(norm, num_units),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
            num_inputs = num_units
        self.layers = nn.Sequential(*layers, nn.Linear(num_inputs, num_outputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Score each row.

        Args:
            inputs: one tensor a feature: floating and standardised, shape (B, D), (B, P, 2) or (B,
                C, H, W),
                or ids, int64: of categories shape (B, N), where 0 stands for a value that no
                    training row had; of
                a text's tokens shape (B, L), padded with 0.
        Returns:
            Unnormalised scores or standardised values, shape (B, K).
        Raises:
            ShapeError: inputs of another number or shape than the model was built for.
        """
        shapes = [
            ("tokens",) if x.ndim == 2 and wanted == ("tokens",) else tuple(x.shape[1:])
            for x, wanted in itertools.zip_longest(inputs, self.shapes[: len(inputs)])
        ]
        if shapes != self.shapes:
            raise ShapeError(
                f"mlp: expected rows of shapes {self.shapes}, one an input; got {shapes}"
            )
        parts_BF = [encode(x) for encode, x in zip(self.encoders, inputs, strict=True)]
        return self.layers(torch.cat(parts_BF, dim=1))


def _norms(norm: Norm, num_units: int) -> list[nn.Module]:
    if norm == "none":
        return []
    return [nn.BatchNorm1d(num_units) if norm == "batch" else nn.LayerNorm(num_units)]

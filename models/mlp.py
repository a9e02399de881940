"""A multilayer perceptron over any mixture of number, category and image inputs."""

# Shapes: B rows in a batch, D number columns, N category columns, C x H x W an image, F units, K outputs.

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import ShapeError
from ..schema import FeatureSchema


class MLP(nn.Module):
    """Affine layers with ReLU and dropout between them, over all inputs side by side.

    Numbers enter as they are, images flattened, each category column through an embedding of its own.

    Args:
        features: schemas of the inputs, in the order of the arguments of `forward`.
        num_outputs: values for each row.
        hidden: units of each hidden layer; none gives a linear model.
        dropout: probability with which a hidden unit is dropped in training.
    """

    def __init__(
        self, features: Sequence[FeatureSchema], num_outputs: int, hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.shapes = [tuple(feature.shape) for feature in features]
        self.encoders = nn.ModuleList()
        num_inputs = 0
        for feature in features:
            if feature.kind == "category":
                encoder = ColumnEmbeddings(len(feature.columns), len(feature.classes))
                num_inputs += encoder.num_units
            else:
                encoder = nn.Flatten()
                num_inputs += math.prod(feature.shape)
            self.encoders.append(encoder)
        layers: list[nn.Module] = []
        for num_units in hidden:
            layers += [nn.Linear(num_inputs, num_units), nn.ReLU(), nn.Dropout(dropout)]
            num_inputs = num_units
        self.layers = nn.Sequential(*layers, nn.Linear(num_inputs, num_outputs))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Score each row.

        Args:
            inputs: one tensor a feature: floating and standardised, shape (B, D) or (B, C, H, W), or ids, int64 of
                shape (B, N), where 0 stands for a value that no training row had.
        Returns:
            Unnormalised scores or standardised values, shape (B, K).
        Raises:
            ShapeError: inputs of another number or shape than the model was built for.
        """
        shapes = [tuple(x.shape[1:]) for x in inputs]
        if shapes != self.shapes:
            raise ShapeError(f"mlp: expected rows of shapes {self.shapes}, one an input; got {shapes}")
        parts_BF = [encode(x) for encode, x in zip(self.encoders, inputs, strict=True)]
        return self.layers(torch.cat(parts_BF, dim=1))


class ColumnEmbeddings(nn.Module):
    """An embedding for each of several category columns that share their classes.

    Args:
        num_columns: category columns.
        num_classes: classes seen in training; ids go from 0 (unseen) to num_classes.
    """

    def __init__(self, num_columns: int, num_classes: int) -> None:
        super().__init__()
        size = min(50, (num_classes + 1) // 2)
        # Id 0 is "unseen in training": as padding it is zero, which says nothing, and stays so.
        columns = [nn.Embedding(num_classes + 1, size, padding_idx=0) for _ in range(num_columns)]
        self.columns = nn.ModuleList(columns)
        self.num_units = num_columns * size

    def forward(self, ids_BN: Tensor) -> Tensor:
        """Look up each column's ids; returns shape (B, num_units)."""
        return torch.cat([column(ids_B) for column, ids_B in zip(self.columns, ids_BN.unbind(1), strict=True)], dim=1)

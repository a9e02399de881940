"""A model that takes raw values and gives them back in the table's units."""

from __future__ import annotations

from torch import Tensor, nn

from ...datasets.batches import Standardise, Unstandardise
from ...schema import Schema


class Servable(nn.Module):
    """A model that takes pixels or numbers as they stand in the table, and
    gives numbers as they stand there.

    Args:
        schema: of the model: how its inputs and targets were standardised.
        model: takes and gives standardised values.
    """

    def __init__(self, schema: Schema, model: nn.Module) -> None:
        super().__init__()
        self.standardise = Standardise(schema)
        self.model = model
        self.unstandardise = Unstandardise(schema)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Predict from raw inputs, one tensor an input feature.

        Returns:
            Of categories and labels the unnormalised scores, shape (B, K); of numbers and points
            the values, float64, shape (B, D), points in pixels of the stored image.
        """
        return self.unstandardise(self.model(*self.standardise(*inputs)))

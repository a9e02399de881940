"""What the layers share about data: the fitted schema of a table, and the shape of a batch. Imports no torch.

The schema is fitted on training rows alone, is saved as `schema.json` with the run, and travels with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from .errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
SPLITS = ("train", "valid", "test")


class FeatureSchema(BaseModel):
    """One feature as a model sees it.

    Attributes:
        shape: of one row's tensor: [C, H, W] for an image, [D] for numbers, [N] for N category columns as input,
            [] for the one category column of a target.
        dtype: of the raw values in a batch, before standardising: uint8, uint16 or float32 for pixels, float64 for
            numbers, int64 for category ids.
        classes: category: labels in the order of their ids. As a target id i is class i. As an input id 0 means
            "unseen in training" and id i + 1 is class i.
        mean, std: of the training rows, per channel (image, in raw pixel units) or per column (number, in the
            table's units); empty for categories. No std is 0.
        counts: category: training rows of each class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["image", "category", "number"]
    columns: list[str]
    shape: list[int]
    dtype: str
    classes: list[str] = []
    mean: list[float] = []
    std: list[float] = []
    counts: list[int] = []


class Schema(BaseModel):
    """What the columns of a table are, fitted on its training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    inputs: list[FeatureSchema]
    target: FeatureSchema

    @property
    def num_outputs(self) -> int:
        """Values that a model gives for one row: classes of a category, columns of numbers."""
        return len(self.target.classes) if self.target.kind == "category" else self.target.shape[0]

    @property
    def has_images(self) -> bool:
        """Whether an input is an image."""
        return any(feature.kind == "image" for feature in self.inputs)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(self.model_dump_json(indent=2) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Schema:
        """Read what `save` wrote.

        Raises:
            SourceError: it is missing or of another format version.
        """
        try:
            return cls.model_validate_json(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SourceError(f"{path} is not a schema of format version {FORMAT_VERSION}: {error}") from error


class Batch(NamedTuple):
    """Rows of one step, as they come from a pack (raw) and as they go to a model (standardised, augmented).

    Attributes:
        rows: int64, shape (B,): positions in the pack.
        inputs: one tensor an input feature, in the recipe's order, first dimension B.
        target: int64 of shape (B,) for a category, of shape (B, D) for numbers: float64 in the table's units
            when raw, float32 (or float64) and standardised when prepared.
    """

    rows: Tensor
    inputs: tuple[Tensor, ...]
    target: Tensor

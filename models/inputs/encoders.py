"""Turns each kind of input into units.

Numbers stay as they are, pictures and points are flattened, ids are embedded.
"""

# Shapes: B rows in a batch, N category columns, L tokens in the longest row of a batch, F units.

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...schema import FeatureSchema


def build_encoder(feature: FeatureSchema) -> tuple[nn.Module, int]:
    """Build the module that turns a feature's tensor into units (B, F).

    Gives F too.
    """
    if feature.facts.has_ids and not feature.facts.is_sequence:
        embeddings = ColumnEmbeddings(
            len(feature.columns), len(feature.classes), feature.embedding_size
        )
        return embeddings, embeddings.num_units
    if feature.facts.has_ids:
        embeddings = TokenEmbeddings(len(feature.classes), feature.embedding_size)
        return embeddings, embeddings.num_units
    return nn.Flatten(), math.prod(feature.shape)


class ColumnEmbeddings(nn.Module):
    """Embeddings for several category columns that share their classes.

    Each column has an embedding of its own.

    Args:
        num_columns: category columns.
        num_classes: classes seen in training; ids go from 0 (unseen) to num_classes.
        size: units of each embedding.
    """

    def __init__(self, num_columns: int, num_classes: int, size: int) -> None:
        super().__init__()
        # Id 0 is "unseen in training": as padding it is zero, which says nothing, and stays so.
        columns = [nn.Embedding(num_classes + 1, size, padding_idx=0) for _ in range(num_columns)]
        self.columns = nn.ModuleList(columns)
        self.num_units = num_columns * size

    def forward(self, ids_BN: Tensor) -> Tensor:
        """Look up each column's ids.

        Returns shape (B, num_units).
        """
        return torch.cat(
            [column(ids_B) for column, ids_B in zip(self.columns, ids_BN.unbind(1), strict=True)],
            dim=1,
        )


class TokenEmbeddings(nn.Module):
    """The mean of the embeddings of a text's tokens.

    As in fastText (Joulin et al. 2016). A text without tokens gives zeros.

    Args:
        num_tokens: tokens of the vocabulary; ids go from 0 (padding) and 1 (unknown) to num_tokens
            + 1.
        size: units of each embedding.
    """

    def __init__(self, num_tokens: int, size: int) -> None:
        super().__init__()
        self.num_units = size
        self.bag = nn.EmbeddingBag(num_tokens + 2, size, mode="mean", padding_idx=0)
        with torch.no_grad():
            self.bag.weight[1] = 0.0  # says nothing until training rows have unknown tokens, too

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Average each row's embeddings.

        Returns shape (B, num_units).
        """
        return self.bag(ids_BL)

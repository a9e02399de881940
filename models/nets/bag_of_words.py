"""Logistic regression over a text's token counts, for any kind of target."""

# Shapes: B rows in a batch, L tokens in the longest of them, V tokens of the vocabulary, K outputs.

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...schema import Schema
from ..inputs import check_text_alone

Scale = Literal["none", "sqrt", "mean"]


class BagOfWords(nn.Module):
    """A linear layer over how often each token stands in a text.

    Order and distance of tokens do not count.

    The layer never makes the counts: it looks up a row of weights for each token and adds those of
    a text. What nn.Linear would have as the column of a token is a row here, so that the weights
    have the shape (V + 2, K). They begin as those of nn.Linear with V columns would. The weights of
    unknown tokens begin at zero, and those of padding stay zero.

    Args:
        num_tokens: V.
        outputs: how many outputs each target has, K together; a share of a category's is given as
            log-probabilities.
        is_category: of each target.
        binary: whether a token counts once however often it stands in a text.
        scale: what a text's sum is divided by: none, sqrt (root of the number of tokens that count;
            with `binary` the vector of a text then has the length 1), or mean (that number).
    """

    def __init__(
        self,
        num_tokens: int,
        outputs: list[int],
        is_category: list[bool],
        *,
        binary: bool = False,
        scale: Scale = "none",
    ) -> None:
        super().__init__()
        self.binary, self.scale = binary, scale
        self.outputs, self.is_category = outputs, is_category
        bound = num_tokens**-0.5
        self.bag = nn.EmbeddingBag(num_tokens + 2, sum(outputs), mode="sum", padding_idx=0)
        self.bias = nn.Parameter(torch.empty(sum(outputs)).uniform_(-bound, bound))
        with torch.no_grad():
            self.bag.weight.uniform_(-bound, bound)
            self.bag.weight[:2] = 0.0

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Score each text.

        Args:
            ids_BL: int64: 0 padding, 1 an unknown token, i + 2 token i of the vocabulary.
        Returns:
            Shape (B, K): of a category the log-probabilities of its classes, of labels scores, of
            numbers and points standardised values.
        """
        if self.binary:
            ids_BL = _drop_repeats(ids_BL)
        scores_BK = self.bag(ids_BL)
        if self.scale != "none":
            count_B1 = (ids_BL != 0).sum(dim=1, keepdim=True).clamp(min=1).to(scores_BK.dtype)
            scores_BK = scores_BK / (count_B1.sqrt() if self.scale == "sqrt" else count_B1)
        scores_BK = scores_BK + self.bias
        parts = [
            F.log_softmax(share, dim=1) if is_category else share
            for share, is_category in zip(
                scores_BK.split(self.outputs, dim=1), self.is_category, strict=True
            )
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def token_weights(self) -> Tensor:
        """A copy of the vocabulary's weights, float32 on the CPU.

        Its shape is (V, K).
        """
        return self.bag.weight.detach()[2:].to("cpu", torch.float32, copy=True)


def _drop_repeats(ids_BL: Tensor) -> Tensor:
    """Keep each id of a row once, in another order.

    Padding takes the place of the repeats.
    """
    ids_BL = ids_BL.sort(dim=1).values
    repeats_BL = F.pad(ids_BL[:, 1:] == ids_BL[:, :-1], (1, 0))
    return ids_BL.masked_fill(repeats_BL, 0)


def build_bag_of_words(schema: Schema, binary: bool = False, scale: Scale = "none") -> nn.Module:
    """Logistic or linear regression over the counts of one text's n-grams."""
    check_text_alone("bag_of_words", {feature.name: feature for feature in schema.inputs})
    [text] = schema.inputs
    outputs = [target.num_outputs for target in schema.targets]
    is_category = [target.facts.is_one_class for target in schema.targets]
    return BagOfWords(len(text.classes), outputs, is_category, binary=binary, scale=scale)

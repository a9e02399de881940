"""Adds other inputs to a net that takes one image.

Numbers, categories, texts and points join the image's units before the head.
"""

# Shapes: B rows in a batch, C x H x W an image, F units, K outputs.

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ShapeError
from ...schema import FeatureSchema, Schema
from .encoders import build_encoder
from .kinds import check_one_image


def find_image(name: str, schema: Schema, wanted: str = "one image") -> FeatureSchema:
    """The one image among a table's inputs.

    Args:
        name: of the model, for the message.
        schema: of the table.
        wanted: what the model takes, for the message.
    Raises:
        ShapeError: there is none, or more than one.
    """
    check_one_image(name, {feature.name: feature for feature in schema.inputs}, wanted)
    return next(feature for feature in schema.inputs if feature.facts.is_image)


def add_side_inputs(name: str, net: nn.Module, schema: Schema) -> nn.Module:
    """Add a table's other inputs to a net.

    Gives the net itself if there are none.

    Raises:
        ShapeError: the net does not end in an affine layer, which could take more units.
    """
    if len(schema.inputs) == 1:
        return net
    affine = [(path, part) for path, part in net.named_modules() if isinstance(part, nn.Linear)]
    path, head = affine[-1] if affine else ("", None)
    if head is None or head.out_features != schema.num_outputs:
        raise ShapeError(
            f"model.name: {name} does not end in an affine layer, so that it takes one image "
            "alone; data.inputs has "
            f"{', '.join(feature.name for feature in schema.inputs)} too; take another net"
        )
    return SideInputs(net, path, head, schema)


class SideInputs(nn.Module):
    """A net whose head also sees other inputs.

    Categories and texts are embedded, numbers and points enter as they are.

    Args:
        net: takes the image; its head is taken off it.
        path: of the head in the net.
        head: the last affine layer; a wider one takes its place.
        schema: the inputs, in the order of the arguments of `forward`.
    """

    def __init__(self, net: nn.Module, path: str, head: nn.Linear, schema: Schema) -> None:
        super().__init__()
        net.set_submodule(path, nn.Identity())
        self.net = net
        self.encoders = nn.ModuleList()
        num_units = head.in_features
        for feature in schema.inputs:
            if not feature.facts.is_image:
                encoder, num_more = build_encoder(feature)
                self.encoders.append(encoder)
                num_units += num_more
        self.image_at = [feature.facts.is_image for feature in schema.inputs].index(True)
        self.head = nn.Linear(num_units, head.out_features, bias=head.bias is not None)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Score each row.

        Args:
            inputs: one tensor a feature: the image, floating and standardised, shape (B, C, H, W);
                numbers and points too; categories and tokens of texts as ids, int64.
        Returns:
            Unnormalised scores or standardised values, shape (B, K).
        """
        others = [*inputs[: self.image_at], *inputs[self.image_at + 1 :]]
        units = [encode(x) for encode, x in zip(self.encoders, others, strict=True)]
        return self.head(torch.cat([self.net(inputs[self.image_at]), *units], dim=1))

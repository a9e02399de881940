"""A network whose depth is drawn in each forward pass of training.

It uses one middle layer again and again.
"""

# Shapes: B rows in a batch, D input columns, H hidden units, K outputs.

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import ShapeError

MOST_REPEATS = 3


class DynamicNet(nn.Module):
    """Affine, ReLU, the same middle layer with ReLU 0 to 3 times, affine.

    In training each forward pass draws how often, all depths equally likely, from a generator of
    the model's own. The generator's state is part of the state_dict, so that a run that goes on
    draws what it would have drawn. Evaluation draws nothing: it gives the mean of the outputs at
    all four depths, which is what training expects, as dropout's evaluation does.

    Args:
        num_inputs: columns of all inputs together.
        num_outputs: values for each row.
        hidden: units of each hidden layer.
    """

    def __init__(self, num_inputs: int, num_outputs: int, hidden: int) -> None:
        super().__init__()
        self.num_inputs = num_inputs
        self.input_linear = nn.Linear(num_inputs, hidden)
        self.middle_linear = nn.Linear(hidden, hidden)
        self.output_linear = nn.Linear(hidden, num_outputs)
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
        self._generator = torch.Generator().manual_seed(seed)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Give each row its outputs.

        Args:
            inputs: one tensor a feature: floating and standardised, first dimension B.
        Returns:
            Standardised values or unnormalised scores, shape (B, K).
        Raises:
            ShapeError: the inputs have another number of columns than the net was built for.
        """
        x_BD = torch.cat([one.flatten(1) for one in inputs], dim=1)
        if x_BD.shape[1] != self.num_inputs:
            raise ShapeError(
                f"dynamic_net: expected rows of {self.num_inputs} numbers, got {x_BD.shape[1]}"
            )
        hidden_BH = self.input_linear(x_BD).relu()
        if self.training:
            for _ in range(self._draw_repeats()):
                hidden_BH = self.middle_linear(hidden_BH).relu()
            return self.output_linear(hidden_BH)
        depths = [hidden_BH]
        for _ in range(MOST_REPEATS):
            depths.append(self.middle_linear(depths[-1]).relu())
        # The last layer is affine: of the mean it gives the mean.
        return self.output_linear(torch.stack(depths).mean(dim=0))

    def get_extra_state(self) -> Tensor:
        """The generator's state as uint8.

        The state_dict has it as `_extra_state`.
        """
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue to draw from a state that `get_extra_state` gave."""
        self._generator.set_state(state.cpu())

    def _draw_repeats(self) -> int:
        return int(torch.randint(MOST_REPEATS + 1, (), generator=self._generator, device="cpu"))

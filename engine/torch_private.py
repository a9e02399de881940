"""Private parts of torch that the engine uses, checked on torch 2.15.0.

Each has its reason, and tests/engine/test_torch_private.py fails where torch changes or drops one.
The gains were measured on one core of an AVX-512 machine, with the ten parameters of LeNet.
"""

from __future__ import annotations

import torch
from torch import nn

# `copy_` and `add_` of many small tensors by one call: torch documents no name for that. Copying
# LeNet's weights takes 31 us, one after the other 38 us.
copy_each = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
add_to_each = torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]

# The kernels behind `fused=True`. A step of SGD takes 25 us by its kernel, 33 us by the public
# `torch.optim.sgd.sgd` and 87 us by `SGD.step`; one of AdamW 76 us, 95 us and 143 us.
fused_sgd = torch._fused_sgd_  # pyright: ignore[reportPrivateImportUsage]
fused_adam = torch._fused_adam_  # pyright: ignore[reportPrivateImportUsage]
fused_adamw = torch._fused_adamw_  # pyright: ignore[reportPrivateImportUsage]


def parameter_slots(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The dictionary in which a module finds its own parameters by name.

    Exchanging LeNet's weights in it and back takes 3 us, by `setattr` 68 us.
    """
    return module._parameters

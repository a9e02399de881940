"""Parameters that are not trained, or not until some epochs are done.

Whether they are is a function of the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from ...errors import RecipeError
from ...weights import check_patterns, fits

# Layers of torch that may keep running statistics.
NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)


class Frozen:
    """The frozen part of a model.

    While it is frozen, its parameters have no gradient, so that the optimizer neither moves nor
    decays them and keeps no momentum for them; and its norms with running statistics, those whose
    parameters are all frozen, use these and leave them as they are. Everything else, dropout for
    one, stays as it is in training.

    Args:
        model: on its device.
        patterns: of its keys; see `keys.fits`.
        thaw_after: epochs after which the frozen part is trained too; 0 means never.
    Raises:
        RecipeError: a pattern fits no key, or nothing is left to train.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str], thaw_after: int) -> None:
        check_patterns("warm_start.freeze", patterns, list(model.state_dict()))
        named = model.named_parameters(remove_duplicate=False)  # of tied ones, each name counts
        trained = {key: value for key, value in named if value.requires_grad}
        frozen = {key: value for key, value in trained.items() if fits(key, patterns)}
        if set(frozen.values()) == set(trained.values()):
            raise RecipeError(
                f"warm_start.freeze: {', '.join(patterns)} leaves none of the model's "
                f"{len(trained)} parameters to "
                f"train; leave out at least its last layer, for example {list(trained)[-1]}"
            )
        self._parameters = list(dict.fromkeys(frozen.values()))
        self._norms = [
            part for path, part in model.named_modules() if _is_frozen_norm(path, part, patterns)
        ]
        self._thaw_after = thaw_after

    def hold(self, epoch: int) -> None:
        """Freeze or thaw, as an epoch wants it.

        Call it before its first step, after `model.train()`.

        Args:
            epoch: epochs that are done.
        """
        is_frozen = not self._thaw_after or epoch < self._thaw_after
        for parameter in self._parameters:
            parameter.requires_grad_(not is_frozen)
        if is_frozen:
            for norm in self._norms:
                norm.eval()


def learning_rate_factors(
    model: nn.Module, factors: Mapping[str, float]
) -> dict[nn.Parameter, float]:
    """What the learning rate of each parameter that a pattern fits is
    multiplied by; the first that fits counts.

    Raises:
        RecipeError: a pattern fits no parameter, or all learning rates would be 0.
    """
    named = dict(model.named_parameters())
    check_patterns("warm_start.lr_factors", factors, named)
    found = {
        key: next(
            (factor for pattern, factor in factors.items() if fnmatchcase(key, pattern)), None
        )
        for key in named
    }
    if found and all(factor == 0 for factor in found.values()):
        raise RecipeError(
            f"warm_start.lr_factors: {', '.join(factors)} give all of the model's {len(named)} "
            "parameters a learning "
            "rate of 0, so that nothing is trained; leave out at least its last layer, for "
            f"example {[*named][-1]}"
        )
    return {named[key]: factor for key, factor in found.items() if factor is not None}


def _is_frozen_norm(path: str, part: nn.Module, patterns: Sequence[str]) -> bool:
    """Whether a module is a norm that keeps running statistics and is frozen
    as a whole.
    """
    if not isinstance(part, NORMS) or not part.track_running_stats:
        return False
    names = [name for name, _ in part.named_parameters(recurse=False)] or [
        "running_mean",
        "running_var",
    ]
    return all(fits(f"{path}.{name}" if path else name, patterns) for name in names)

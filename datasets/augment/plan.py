"""The augmentations by name, and whether those of a recipe exist, fit its
features and do something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from ...errors import RecipeError
from ...kinds import Facts
from ...recipe import Named, check_arguments, check_values, nearest
from .geometry import Chain, Crop, Flip, Resample, Rotate, Scale
from .mixing import Cutmix, Mixer, Mixup
from .pixels import Augmentation, Brightness, Contrast, Erase, Noise

AUGMENTATIONS: dict[str, Callable[..., Augmentation | Mixer]] = {
    "flip": Flip,
    "crop": Crop,
    "rotate": Rotate,
    "scale": Scale,
    "erase": Erase,
    "brightness": Brightness,
    "contrast": Contrast,
    "noise": Noise,
    "mixup": Mixup,
    "cutmix": Cutmix,
}


class Step(NamedTuple):
    """An augmentation and the first of its streams of random numbers."""

    stream: int
    change: Augmentation


class Plan(NamedTuple):
    """The augmentations of a recipe, in the order in which they are done.

    Attributes:
        copying: those at the beginning that only copy pixels.
        computing: the first one that computes, and all after it.
        mixers: come last, wherever the recipe has them; a batch draws one of them.
    """

    copying: list[Step]
    computing: list[Step]
    mixers: list[Mixer]


class _HasFacts(Protocol):
    """A feature, of a recipe or of a schema."""

    @property
    def facts(self) -> Facts: ...
    @property
    def swap(self) -> Sequence[Sequence[int]]: ...


def plan_augmentations(augment: Sequence[Named]) -> Plan:
    """Build augmentations.

    Rotations and changes of size that stand beside each other become one.

    Args:
        augment: names and arguments that `check_augment` has found good.
    """
    built = [AUGMENTATIONS[step.name](**step.args) for step in augment]
    steps: list[Step] = []
    for number, change in enumerate(built):
        last = steps[-1].change if steps else None
        if isinstance(change, Mixer):
            continue
        if (
            isinstance(change, Resample)
            and isinstance(last, Resample)
            and last.mode == change.mode
            and isinstance(built[number - 1], Resample)
        ):
            parts = last.parts if isinstance(last, Chain) else [last]
            steps[-1] = Step(steps[-1].stream, Chain([*parts, change]))
        else:
            steps.append(Step(number * 16, change))
    begin = next(
        (number for number, step in enumerate(steps) if not step.change.copies), len(steps)
    )
    return Plan(
        steps[:begin], steps[begin:], [change for change in built if isinstance(change, Mixer)]
    )


def check_augment(augment: Sequence[Named]) -> None:
    """Check names and arguments.

    Raises:
        RecipeError: names the nearest legal ones.
    """
    for step in augment:
        if step.name not in AUGMENTATIONS:
            raise RecipeError(
                f"train.augment: {step.name!r} does not exist; {nearest(step.name, AUGMENTATIONS)}"
            )
        key, augmentation = f"train.augment.{step.name}", AUGMENTATIONS[step.name]
        check_arguments(key, step.name, step.args, augmentation)
        check_values(
            key,
            step.name,
            step.args,
            lambda args, augmentation=augmentation: _refusal(augmentation, args),
        )


def check_augment_fits(
    augment: Sequence[Named], inputs: Iterable[_HasFacts], targets: Iterable[_HasFacts]
) -> None:
    """Check that there is a sense in doing this to these features.

    Args:
        augment: good in itself.
        inputs, targets: of the recipe or the schema.

    Raises:
        RecipeError: rows cannot be mixed.
    """
    names = {step.name for step in augment}
    ours = [one.facts for one in inputs]
    for name in sorted(names & {"mixup", "cutmix"}):
        for kind in sorted(facts.name for facts in ours if facts.has_ids):
            raise RecipeError(
                f"train.augment: {name} cannot mix an input of kind {kind}; leave {name} out"
            )
    if "cutmix" in names and any(
        facts.lies_on_image for facts in [*ours, *(one.facts for one in targets)]
    ):
        raise RecipeError(
            "train.augment: cutmix does not fit points, which lie on one picture; leave it out, or "
            "use mixup"
        )


def doubts_about_augment(
    augment: Sequence[Named], inputs: Iterable[_HasFacts], targets: Iterable[_HasFacts]
) -> list[str]:
    """What is legal and yet hardly meant, a sentence each.

    No effect, or points that a mirror leaves misnamed.

    Args:
        augment: good in itself, and fitting.
        inputs, targets: of the recipe or the schema.
    """
    inputs, doubts = list(inputs), []
    names = list(dict.fromkeys(step.name for step in augment))
    idle = [name for name in names if name != "mixup"]
    if idle and not any(one.facts.is_image for one in inputs):
        doubts.append(f"train.augment: {', '.join(idle)} without effect, as no input is an image")
    elif "flip" in names and any(
        one.facts.lies_on_image and not one.swap for one in [*inputs, *targets]
    ):
        doubts.append(
            "train.augment: flip mirrors pictures whose points have no swap; where points come in "
            "pairs, as left and "
            "right eye, name the pairs in swap, or leave flip out"
        )
    return doubts


def _refusal(augmentation: Callable[..., object], args: dict[str, Any]) -> str:
    try:
        augmentation(**args)
    except (TypeError, ValueError, OverflowError) as error:
        return str(error)
    return ""

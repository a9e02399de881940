from __future__ import annotations

from typing import Any

import pytest

from torchrelay.datasets.augment.geometry import Chain, Flip, Rotate
from torchrelay.datasets.augment.plan import (
    AUGMENTATIONS,
    check_augment,
    check_augment_fits,
    doubts_about_augment,
    plan_augmentations,
)
from torchrelay.errors import RecipeError
from torchrelay.recipe import Feature, Named

IMAGE, NUMBERS = Feature(kind="image"), Feature(kind="number")
CATEGORY, POINTS = Feature(kind="category"), Feature(kind="points")


def steps(*names: str) -> list[Named]:
    return [Named(name=name) for name in names]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("flop", {}, "train.augment: 'flop' does not exist; did you mean flip"),
        ("crop", {"paddin": 3}, "paddin.*did you mean padding"),
        ("crop", {"padding": -1}, "padding: got -1"),
        ("crop", {"padding": 1.5}, "padding: got 1.5"),
        ("crop", {"mode": "wrap"}, "mode: got 'wrap'"),
        ("flip", {"p": 1.5}, "p: got 1.5"),
        (
            "rotate",
            {"degrees": -3},
            "degrees: got -3; rotate refuses it: expected degrees from 0 to 180",
        ),
        ("rotate", {"degree": 3}, "degree.*did you mean degrees"),
        (
            "scale",
            {"factor": [0.0, 1.0]},
            r"factor: got \[0.0, 1.0\]; scale refuses it: expected two factors above 0",
        ),
        ("scale", {"factor": [1.2, 0.8]}, "the smaller one first"),
        ("scale", {"factor": 0.8}, "factor: got 0.8"),
        ("scale", {"factor": [0.8, 1.0, 1.2]}, "factor: got"),
        ("erase", {"area": [0.1, 1.1]}, r"area: got \[0.1, 1.1\]"),
        ("erase", {"ratio": [0, 1]}, r"ratio: got \[0, 1\]"),
        ("erase", {"fill": "red"}, "fill: got 'red'"),
        ("brightness", {"factor": [-0.1, 1]}, r"factor: got \[-0.1, 1\]"),
        ("contrast", {"factor": [2, 1]}, "the smaller one first"),
        (
            "noise",
            {"std": 25},
            "std: got 25; noise refuses it: expected a part of the dtype's range",
        ),
        ("mixup", {"alpha": 0}, "alpha: got 0"),
        ("cutmix", {"alpha": 1, "p": 2}, "p: got 2"),
    ],
)
def test_an_augmentation_that_does_not_exist_names_the_nearest(
    name: str, args: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        check_augment([Named(name=name, args=args)])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_every_augmentation_has_defaults(name: str) -> None:
    check_augment(steps(name))


def test_turns_beside_each_other_become_one_and_keep_their_streams() -> None:
    plan = plan_augmentations(
        steps("flip", "crop", "rotate", "scale", "rotate", "erase", "mixup", "scale", "cutmix")
    )
    assert [(step.stream, step.change.copies) for step in plan.copying] == [(0, True), (16, True)]
    chain, _, last = plan.computing
    assert isinstance(chain.change, Chain)
    assert len(chain.change.parts) == 3
    assert (chain.stream, last.stream) == (32, 112)
    assert [type(mixer).__name__ for mixer in plan.mixers] == ["Mixup", "Cutmix"]
    apart = plan_augmentations(
        [Named(name="rotate"), Named(name="scale", args={"mode": "reflect"})]
    )
    assert len(apart.computing) == 2
    between = plan_augmentations(steps("rotate", "mixup", "scale"))
    assert [step.stream for step in between.computing] == [0, 32]
    assert isinstance(plan.copying[0].change, Flip)
    assert isinstance(between.computing[0].change, Rotate)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_ids_cannot_be_mixed(name: str) -> None:
    with pytest.raises(RecipeError, match=f"{name} cannot mix an input of kind category"):
        check_augment_fits(steps("flip", name), [IMAGE, CATEGORY], [NUMBERS])
    check_augment_fits(steps(name), [IMAGE, NUMBERS], [CATEGORY])


def test_a_patch_of_another_picture_does_not_fit_points() -> None:
    for inputs, target in (([IMAGE], POINTS), ([IMAGE, POINTS], NUMBERS)):
        with pytest.raises(RecipeError, match="cutmix does not fit points"):
            check_augment_fits(steps("cutmix"), inputs, [target])
        check_augment_fits(steps("mixup", "flip"), inputs, [target])


def test_what_has_no_effect_is_said() -> None:
    [doubt] = doubts_about_augment(steps("flip", "crop", "mixup"), [NUMBERS], [CATEGORY])
    assert doubt == "train.augment: flip, crop without effect, as no input is an image"
    assert doubts_about_augment(steps("mixup"), [NUMBERS], [CATEGORY]) == []
    assert doubts_about_augment(steps(*AUGMENTATIONS), [IMAGE, NUMBERS], [CATEGORY]) == []
    assert doubts_about_augment([], [NUMBERS], [CATEGORY]) == []


def test_a_mirror_without_pairs_to_swap_is_doubted() -> None:
    paired = Feature(kind="points", swap=[[0, 1]])
    assert "no swap" in doubts_about_augment(steps("flip"), [IMAGE], [POINTS])[0]
    assert "no swap" in doubts_about_augment(steps("flip"), [IMAGE, POINTS], [paired])[0]
    assert doubts_about_augment(steps("flip"), [IMAGE], [paired]) == []
    assert doubts_about_augment(steps("crop", "rotate"), [IMAGE], [POINTS]) == []

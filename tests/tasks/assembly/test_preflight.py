from __future__ import annotations

from typing import Any

import pytest

from torchrelay.datasets.images import check_preprocess
from torchrelay.errors import RecipeError, ShapeError
from torchrelay.recipe import Feature, Recipe
from torchrelay.tasks.assembly.preflight import check_names, check_validation


def recipe(kind: str = "category", **train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"inputs": {"x": {"kind": "number"}}, "target": {"y": {"kind": kind}}},
            "model": {"name": "mlp"},
            "train": {"device": "cpu", **train},
        }
    )


@pytest.mark.parametrize(
    ("train", "words"),
    [
        (
            {"optimizer": {"name": "LBFGS"}, "clip_norm": 1},
            r"train\.clip_norm: 1\.0: lbfgs .* clipping does not reach",
        ),
        (
            {"class_weights": "balanced", "sampling": "balanced"},
            r"train\.class_weights and train\.sampling: balanced",
        ),
        ({"precision": "fp16"}, r"train\.precision: fp16 needs CUDA"),
        (
            {"loss": "nll"},
            r"train\.loss: nll .* mlp gives unnormalised scores; use cross_entropy.*: bag_of_words "
            r"or",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(train: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        check_names(recipe(**train))


@pytest.mark.parametrize(
    ("key", "value"), [("label_smoothing", 0.1), ("class_weights", "balanced")]
)
@pytest.mark.parametrize("kind", ["number", "points", "labels"])
def test_what_only_classes_have_is_refused_for_other_targets(
    key: str, value: Any, kind: str
) -> None:
    with pytest.raises(
        RecipeError, match=rf"train\.{key}: {value} is for a category target; the target is {kind}"
    ):
        check_names(recipe(kind, **{key: value}))


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"early_stop_epochs": 3}, r"train\.early_stop_epochs: 3 needs validation rows"),
        ({"schedule": {"name": "plateau"}}, r"train\.schedule: plateau needs validation rows"),
    ],
)
def test_what_looks_at_validation_rows_is_refused_where_there_are_none(
    train: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_validation(recipe(**train), num_rows=0)
    check_validation(recipe(**train), num_rows=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model": {"name": "mlp", "args": {"hidden": [10**9]}}},
            r"model\.args\.hidden\.0: got \[1000000000\]; .*10000000",
        ),
        (
            {"model": {"name": "mlp", "args": {"hidden": [1e9]}}},
            r"model\.args\.hidden\.0: got \[1000000000\.0\]; ",
        ),
        (
            {"model": {"name": "mlp", "args": {"hidden": [8] * 2_000}}},
            r"model\.args\.hidden: got \[8, .*at most 1000",
        ),
        (
            {"model": {"name": "mlp", "args": {"dropout": float("nan")}}},
            r"model\.args\.dropout: got nan; .*finite",
        ),
        (
            {"model": {"name": "dynamic_net", "args": {"hidden": 10**18}}},
            r"model\.args\.hidden: got 10{18}; ",
        ),
        (
            {"train": {"optimizer": {"name": "sgd", "args": {"lr": float("inf")}}}},
            r"optimizer\.args\.lr: got inf; .*finite",
        ),
        (
            {"train": {"optimizer": {"name": "sgd", "args": {"lr": 10**400}}}},
            r"optimizer\.args\.lr: got 1000.*; input should be a finite number",
        ),
        (
            {"train": {"optimizer": {"name": "adam", "args": {"betas": [0.9, float("nan")]}}}},
            r"optimizer\.args\.betas\.1: got nan; expected a finite number",
        ),
        (
            {"train": {"schedule": {"name": "plateau", "args": {"patience": 10**20}}}},
            r"schedule\.args\.patience: got 10{20}; ",
        ),
        (
            {"train": {"augment": [{"name": "crop", "args": {"padding": 10**12}}]}},
            r"args\.padding: got 10{12}; .*to 65,536",
        ),
        (
            {"train": {"augment": [{"name": "crop", "args": {"padding": 1e12}}]}},
            r"args\.padding: got 10{12}\.0; ",
        ),
        (
            {"train": {"augment": [{"name": "mixup", "args": {"alpha": float("inf")}}]}},
            r"args\.alpha: got inf; ",
        ),
    ],
)
def test_numbers_beyond_what_a_machine_can_take_are_refused_with_the_limit(
    changes: dict[str, Any], words: str
) -> None:
    values = recipe().model_dump(by_alias=True)
    with pytest.raises(RecipeError, match=words):
        check_names(Recipe.model_validate({**values, **changes}))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"name": "transform.resize", "args": {"output_shape": [10**9, 10**9]}},
            r"resize\.args\.output_shape: got .*at most",
        ),
        (
            {"name": "transform.rescale", "args": {"scale": 1e9}},
            r"rescale\.args\.scale: got 1000000000\.0; .*at most 1,000",
        ),
        ({"name": "io.imread"}, r"io\.imread is not a function of scikit-image"),
        ({"name": "skimage.io.imread"}, r"skimage\.io\.imread is not a function of scikit-image"),
        (
            {"name": "util.apply_parallel", "args": {"function": "os.system"}},
            r"function: 'os\.system' is not the recipe's",
        ),
        (
            {"name": "transform.__class__"},
            r"transform\.__class__ is not a function of scikit-image",
        ),
    ],
)
def test_preprocessing_that_reads_files_or_fills_the_memory_is_refused(
    step: dict[str, Any], words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        check_preprocess(Feature.model_validate({"kind": "image", "preprocess": [step]}))


def test_an_optimizer_with_a_closure_may_average_and_accumulate() -> None:
    check_names(recipe(optimizer={"name": "lbfgs"}, ema=0.9, accumulate=4))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "lenet",
            r"lenet takes one image; data\.inputs has x \(number\), t \(text\); use mlp for these",
        ),
        (
            "torchvision:resnet18",
            r"torchvision:resnet18 takes one image; data\.inputs has x \(number\), t \(text\)",
        ),
        ("two_layer", r"two_layer takes numbers; data\.inputs has t \(text\)"),
        ("dynamic_net", r"dynamic_net takes numbers; data\.inputs has t \(text\)"),
        (
            "bag_of_words",
            r"bag_of_words takes one text alone; data\.inputs has x \(number\), t \(text\)",
        ),
    ],
)
def test_a_model_for_other_kinds_of_inputs_is_refused_before_the_table_is_read(
    model: str, words: str
) -> None:
    data = {
        "inputs": {"x": {"kind": "number"}, "t": {"kind": "text"}},
        "target": {"y": {"kind": "number"}},
    }
    mixed = {"name": "tiny", "data": data, "train": {"device": "cpu"}}
    with pytest.raises(ShapeError, match=rf"model\.name: {words}"):
        check_names(Recipe.model_validate({**mixed, "model": {"name": model}}))
    check_names(Recipe.model_validate({**mixed, "model": {"name": "mlp"}}))


@pytest.mark.parametrize(
    ("model", "image", "words"),
    [
        (
            "lenet",
            {"size": [32, 32]},
            r"lenet takes one image of 1 x 32 x 32; data\.inputs\.i gives 3 x 32 x 32; set .*gray",
        ),
        (
            "cifar_net",
            {"size": [32, 48]},
            r".* gives 3 x 32 x 48; set its size: \[32, 32\] and channels: rgb",
        ),
        ("cifar_net", {"channels": 1}, r".* gives 1 x \? x \?; set its size"),
        (
            "lenet",
            {"channels": 2},
            r".* gives 2 x \? x \?; torchvision:resnet18 is fitted to any channels",
        ),
    ],
)
def test_an_image_that_the_model_does_not_take_is_refused_before_the_files_are_read(
    model: str, image: dict[str, Any], words: str
) -> None:
    data = {"inputs": {"i": {"kind": "image", **image}}, "target": {"c": {"kind": "category"}}}
    tiny = {"name": "tiny", "data": data, "train": {"device": "cpu"}}
    with pytest.raises(ShapeError, match=rf"model\.name: {words}"):
        check_names(Recipe.model_validate({**tiny, "model": {"name": model}}))
    check_names(Recipe.model_validate({**tiny, "model": {"name": "torchvision:resnet18"}}))


def test_targets_of_two_kinds_are_not_taken_for_one_that_smoothing_does_not_fit() -> None:
    targets = {"c": {"kind": "category"}, "n": {"kind": "number"}}
    data = {"inputs": {"x": {"kind": "number"}}, "target": targets}
    train = {"device": "cpu", "label_smoothing": 0.1, "loss": "cross_entropy"}
    mixed = Recipe.model_validate(
        {"name": "tiny", "data": data, "train": train, "model": {"name": "mlp"}}
    )
    with pytest.raises(RecipeError, match="cross_entropy does not fit a number target"):
        check_names(mixed)

"""Builds the model that a recipe names and checks that it fits the schema.

The caller seeds its weights.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import RecipeError, ShapeError
from ..recipe import Named, check_arguments, nearest
from ..schema import FeatureSchema, Schema
from .inputs import (
    IMAGES,
    TORCHVISION,
    add_side_inputs,
    check_image_shape,
    check_numbers,
    find_image,
)
from .nets import (
    MLP,
    ComplEx,
    DistMult,
    DynamicNet,
    Form,
    LeNet,
    Norm,
    Power,
    TransE,
    build_bag_of_words,
    build_net,
    build_torchvision,
    check_torchvision,
    find_sizes,
    list_torchvision,
)
from .size import check_room, count_bytes
from .user_classes import build_class, check_class

_OTHER_FORMS = (f"{TORCHVISION}<name>", "package.module:Class")

# What a model's outputs are one of each.
_OUTPUTS = {"category": "classes", "labels": "tags"}

Units = Annotated[int, Field(gt=0, le=10_000_000)]
Layers = Annotated[Sequence[Units], Field(max_length=1_000)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Weight = Annotated[float, Field(ge=0)]
Scale = Annotated[float, Field(gt=0)]

# Adagrad's first step moves every number by the learning rate, whatever the gradient. From initial
# numbers far below it (0.001 at a rate of 0.1) all entities go the same way and lose what told them
# apart, in bf16 for good: over the symmetric relations of WN18RR, every eighth entity, complex then
# answers half of the questions with the entity that is given, and stays at a validation MRR of .65;
# from 0.3 it comes to .91 within nine epochs.
INIT_SCALE = 0.3


class TrainsItself(Protocol):
    """A model that computes its own training loss.

    It may draw other answers, or add a penalty on its parts. If a model has this method, training
    calls it instead of `loss(model(*inputs), target)`, under autocast. Evaluation never does.
    """

    def training_losses(
        self,
        inputs: tuple[Tensor, ...],
        target: Tensor,
        loss: Callable[[Tensor, Tensor], Tensor],
        /,
    ) -> Tensor:
        """The loss of each row, shape (B,).

        `loss` is the recipe's loss of outputs and target.
        """
        ...


class ModelInfo(NamedTuple):
    """What `describe_models` says about one model.

    Attributes:
        name: what to write under model.name; with <name> or Class for what others define.
        inputs: shapes that it takes.
        num_parameters: for a target of 10 classes; None where it depends on what stands for <name>
            or Class.
        args: its arguments with their defaults.
        doc: one line.
    """

    name: str
    inputs: str
    num_parameters: int | None
    args: dict[str, Any]
    doc: str


class _Entry(NamedTuple):
    """A registered model, with the inputs that its parameters are counted for."""

    build: Callable[..., nn.Module]
    inputs: str
    example: list[FeatureSchema]


def build_lenet(schema: Schema) -> nn.Module:
    """LeNet-5 with ReLU and max pooling, for gray images.

    Other inputs join before the last layer.
    """
    _require_image("lenet", schema)
    return add_side_inputs("lenet", LeNet(1, schema.num_outputs), schema)


def build_cifar_net(schema: Schema) -> nn.Module:
    """The same two convolutions and three affine layers for colour images.

    Other inputs join before the last layer.
    """
    _require_image("cifar_net", schema)
    return add_side_inputs("cifar_net", LeNet(3, schema.num_outputs), schema)


def build_mlp(
    schema: Schema,
    hidden: Layers = (64, 64),
    dropout: Probability = 0.0,
    norm: Norm = "none",
) -> nn.Module:
    """A perceptron over numbers, points, embedded categories and texts, images.

    Images and points are flattened.
    """
    if schema.triple is not None:
        raise ShapeError(
            f"model.name: mlp learns no relation backwards, and {schema.targets[0].name} shares a "
            "vocabulary with an "
            "input, which makes it an entity that is ranked; use transe, distmult or complex, or "
            "leave vocabulary out"
        )
    return MLP(schema.inputs, schema.num_outputs, hidden, dropout, norm)


def build_two_layer(schema: Schema, hidden: Units = 100, form: Form = "module") -> nn.Module:
    """Two layers without biases over numbers, written in one of six forms.

    The forms are tensors, autograd, function, sequential, optim and module.
    """
    return build_net(_count_numbers("two_layer", schema), schema.num_outputs, hidden, form)


def build_dynamic_net(schema: Schema, hidden: Units = 100) -> nn.Module:
    """Numbers through a middle layer that training passes use 0 to 3 times."""
    return DynamicNet(_count_numbers("dynamic_net", schema), schema.num_outputs, hidden)


def build_transe(
    schema: Schema,
    dim: Units = 64,
    norm: Power = 2,
    margin: Weight = 0.0,
    negatives: Count = 0,
    init_scale: Scale = INIT_SCALE,
) -> nn.Module:
    """Entities and relations as vectors, where head + relation meets the tail.

    A margin needs negatives.
    """
    if margin and not negatives:
        raise RecipeError(
            f"model.args.margin: {margin} is held between the true entity and drawn ones, and "
            "negatives is 0; set "
            f"model.args.negatives, for example 64, or leave margin out"
        )
    return TransE(find_sizes("transe", schema), dim, init_scale, negatives, norm, margin)


def build_distmult(
    schema: Schema,
    dim: Units = 64,
    n3: Weight = 0.0,
    negatives: Count = 0,
    init_scale: Scale = INIT_SCALE,
) -> nn.Module:
    """Entities and relations as vectors, compared by a product of three."""
    return DistMult(find_sizes("distmult", schema), dim, init_scale, negatives, n3)


def build_complex(
    schema: Schema,
    dim: Units = 64,
    n3: Weight = 0.0,
    negatives: Count = 0,
    init_scale: Scale = INIT_SCALE,
) -> nn.Module:
    """Entities and relations as dim complex numbers, compared by a product."""
    return ComplEx(find_sizes("complex", schema), 2 * dim, init_scale, negatives, n3)


def _image(channels: int) -> list[FeatureSchema]:
    return [
        FeatureSchema(
            name="image", kind="image", columns=["image"], shape=[channels, 32, 32], dtype="uint8"
        )
    ]


_NUMBERS = [
    FeatureSchema(
        name="x", kind="number", columns=[f"x{i}" for i in range(8)], shape=[8], dtype="float32"
    )
]
_TEXT = [
    FeatureSchema(
        name="text",
        kind="text",
        columns=["text"],
        shape=[0],
        dtype="int64",
        classes=list("abcdefgh"),
    )
]


def _category(name: str, shape: list[int], classes: str, vocabulary: str = "") -> FeatureSchema:
    return FeatureSchema(
        name=name,
        kind="category",
        columns=[name],
        shape=shape,
        dtype="int64",
        classes=list(classes),
        vocabulary=vocabulary,
    )


_TRIPLES = [_category("head", [1], "0123456789", "entities"), _category("relation", [1], "abcd")]
_TRIPLE_SHAPES = "triples (counted for 4 relations)"

MODELS: dict[str, _Entry] = {
    "lenet": _Entry(build_lenet, "1 x 32 x 32", _image(1)),
    "cifar_net": _Entry(build_cifar_net, "3 x 32 x 32", _image(3)),
    "mlp": _Entry(build_mlp, "any (counted for 8 numbers)", _NUMBERS),
    "bag_of_words": _Entry(build_bag_of_words, "one text (counted for 8 tokens)", _TEXT),
    "transe": _Entry(build_transe, _TRIPLE_SHAPES, _TRIPLES),
    "distmult": _Entry(build_distmult, _TRIPLE_SHAPES, _TRIPLES),
    "complex": _Entry(build_complex, _TRIPLE_SHAPES, _TRIPLES),
    "two_layer": _Entry(build_two_layer, "numbers (counted for 8)", _NUMBERS),
    "dynamic_net": _Entry(build_dynamic_net, "numbers (counted for 8)", _NUMBERS),
}

# Those whose outputs for a category are log-probabilities; all others here give unnormalised
# scores.
LOG_PROBABILITY_MODELS = ("bag_of_words",)
# Those that rank entities.
TRIPLE_MODELS = tuple(name for name, entry in MODELS.items() if entry.example is _TRIPLES)


def check_model(model: Named) -> None:
    """Refuse a model that does not exist, or arguments it does not take.

    Needs no table.

    Raises:
        RecipeError: names model.name or model.args.…, the value, and the nearest legal ones.
    """
    name = model.name
    if name in MODELS:
        check_arguments("model", name, model.args, MODELS[name].build, filled=("schema",))
    elif name.startswith(TORCHVISION):
        check_torchvision(name.removeprefix(TORCHVISION), model.args)
    elif all(name.partition(":")):
        check_class(name, model.args)
    else:
        raise RecipeError(f"model.name: {_unknown(name)}")


def check_log_softmax(name: str) -> None:
    """Refuse the loss nll for a model that gives unnormalised scores.

    Needs no table. A model of the user's own is checked once it is built.

    Raises:
        RecipeError: names those that end in a log-softmax.
    """
    if name not in LOG_PROBABILITY_MODELS and (name in MODELS or name.startswith(TORCHVISION)):
        raise RecipeError(
            f"train.loss: nll takes log-probabilities, and {name} gives unnormalised scores; use "
            "cross_entropy, which "
            "takes these, or a model that ends in a log-softmax: "
            f"{', '.join(LOG_PROBABILITY_MODELS)} or your own"
        )


def build_model(model: Named, schema: Schema) -> nn.Module:
    """Build a model for a table and try it on two rows of zeros.

    Its weights come from torch's global random state.

    Args:
        model: name and arguments.
        schema: of the table.
    Returns:
        The model on the CPU, in float32. `forward` takes one tensor an input feature, in the
        recipe's order.
    Raises:
        RecipeError: see `check_model`; or the model refuses its arguments, or its weights find no
            room in memory.
        ShapeError: the model does not fit the table's inputs, or does not give (2,
            schema.num_outputs) for 2 rows.
    """
    check_model(model)
    name = model.name

    def build() -> nn.Module:
        if name in MODELS:
            return MODELS[name].build(schema, **model.args)
        if name.startswith(TORCHVISION):
            return build_torchvision(name.removeprefix(TORCHVISION), model.args, schema)
        return build_class(name, model.args, schema)

    if ":" not in name or name.startswith(
        TORCHVISION
    ):  # a class of the user's own is built once: it may do anything
        check_room(name, "weights", count_bytes(build))
    built = build()
    _check_output_shape(name, built, schema)
    return built


def describe_models() -> list[ModelInfo]:
    """List the registered models, then the two forms that name others."""
    infos = []
    for name, entry in MODELS.items():
        target = _category("y", [], "0123456789", "entities")
        with (
            torch.device("meta"),
            torch.random.fork_rng(devices=[]),
        ):  # shapes alone, no random numbers
            built = entry.build(Schema(inputs=entry.example, targets=[target]))
        parameters = list(inspect.signature(entry.build).parameters.values())[1:]
        args = {
            p.name: list(p.default) if isinstance(p.default, tuple) else p.default
            for p in parameters
        }
        count = sum(parameter.numel() for parameter in built.parameters())
        infos.append(ModelInfo(name, entry.inputs, count, args, inspect.getdoc(entry.build) or ""))
    nets = ", ".join(list_torchvision())
    return [
        *infos,
        ModelInfo(
            _OTHER_FORMS[0],
            "C x H x W",
            None,
            {},
            "A net of torchvision, weights random or pretrained, head and first layer fitted: "
            f"{nets}",
        ),
        ModelInfo(
            _OTHER_FORMS[1],
            "one tensor an input",
            None,
            {},
            "Your own torch.nn.Module; may take schema, num_outputs or num_classes, and "
            "in_channels",
        ),
    ]


def _unknown(name: str) -> str:
    legal = [*MODELS, *_OTHER_FORMS]
    if not name:
        return f"is missing; legal are {', '.join(legal)}"
    is_net = name.lower() in list_torchvision()
    return (
        f"{name!r} is no model; "
        f"{f'did you mean {TORCHVISION}{name.lower()}?' if is_net else nearest(name, legal)}"
    )


def _require_image(name: str, schema: Schema) -> None:
    """Refuse a table without exactly one image of the net's shape.

    The error says what to write into the recipe.
    """
    image = find_image(name, schema, f"one image of {' x '.join(map(str, IMAGES[name]))}")
    check_image_shape(name, image.name, image.shape)


def _count_numbers(name: str, schema: Schema) -> int:
    """The number of columns of all inputs together.

    Raises:
        ShapeError: an input is of another kind than numbers or points.
    """
    check_numbers(name, {feature.name: feature for feature in schema.inputs})
    return sum(math.prod(feature.shape) for feature in schema.inputs)


def probe(model: nn.Module, schema: Schema) -> Tensor:
    """A model's outputs for two rows of zeros, on the CPU.

    Leaves random state and modes as they were.
    """
    inputs = [_zeros(feature) for feature in schema.inputs]
    modes = [(module, module.training) for module in model.modules()]
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            return model.eval()(*inputs)
    finally:
        torch.set_rng_state(state)
        for module, mode in modes:
            module.training = mode


def _check_output_shape(name: str, model: nn.Module, schema: Schema) -> None:
    """Refuse a model that does not give one row of outputs a row."""
    try:
        outputs = probe(model, schema)
    except ShapeError:
        raise
    except Exception as error:  # whatever a net's own code raises when it is fed the wrong shapes
        shapes = ", ".join(f"{feature.name} {feature.shape}" for feature in schema.inputs)
        raise ShapeError(
            f"model.name: {name} fails on rows of {shapes}: {type(error).__name__}: {error}; "
            f"change size or channels under data.inputs, or take a model for these"
        ) from error
    wanted = (2, schema.num_outputs)
    got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if got != wanted:
        raise ShapeError(
            f"model.name: {name}: expected one tensor of shape {wanted} for 2 rows, as "
            f"{', '.join(target.name for target in schema.targets)} "
            f"{'has' if len(schema.targets) == 1 else 'have'} "
            f"{wanted[1]} {_OUTPUTS.get(schema.target_kind, 'columns')}; got {got}"
        )


def _zeros(feature: FeatureSchema) -> Tensor:
    shape = [1] if feature.facts.is_sequence else feature.shape  # padding alone
    dtype = torch.int64 if feature.facts.has_ids else torch.float32
    return torch.zeros(2, *shape, dtype=dtype)

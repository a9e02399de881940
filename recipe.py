"""The recipe: one YAML file, read into a frozen pydantic model, that says everything about a run.

This file checks the recipe's shape, at once and without torch. Whether the models, optimizers, losses and files that
it names exist is checked in the preflight (`tasks/preflight.py`). Defaults stand here and nowhere else.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from .errors import RecipeError, check_format
from .schema import Kind

FORMAT_VERSION = 1
# What tells the name of a weights file from a run id, which may have dots too.
WEIGHTS_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Strings = Annotated[list[str], BeforeValidator(_as_list)]
"""A list of texts; one alone may be written without brackets."""


class Part(BaseModel):
    """A part of the recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Named(Part):
    """Something that has variants: which one, and its arguments."""

    name: str
    """Name of the variant."""
    args: dict[str, Any] = {}
    """Its arguments, by name."""


class Feature(Part):
    """One or more columns read as one tensor."""

    kind: Kind
    """How the columns are read."""
    columns: Strings = []
    """Column names or patterns such as `x*`; empty means the column named like the feature."""
    size: list[int] = []
    """image: [height, width] in pixels; empty means that all images have one size already."""
    channels: Annotated[str, BeforeValidator(_as_text)] = "rgb"
    """image: rgb, gray, or the number of channels in the file."""
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    """image: what a pixel is stored as."""
    preprocess: list[Named] = []
    """image: functions of scikit-image, for example transform.resize, run once, in this order."""
    statistics: Literal["data", "imagenet", "none"] = "data"
    """image: what standardises the pixels: mean and deviation of the training rows, ImageNet's, or 0 to 1 as it is."""
    image: str = ""
    """points: the image input that they lie on; empty means the only one."""
    swap: list[list[int]] = []
    """points: pairs of points, counted from 0, that change places when the image is mirrored (left and right eye)."""
    normalise_by: list[int] = []
    """points: the two points whose distance is the unit of nme; empty means the diagonal of the points' box."""
    unit: str = ""
    """number: what the values are counted in, for example MPa; stands on the axes of figures."""
    vocabulary: str = ""
    """category: name of a vocabulary; features of the same one share their classes (head and tail of a triple)."""
    tokens: Literal["words", "characters"] = "words"
    """text: what a token is made of."""
    ngrams: list[int] = [1, 1]
    """text: [shortest, longest]: how many words or characters in a row make a token."""
    lowercase: bool = True
    """text: whether capitals count as small letters."""
    min_count: int = Field(default=1, ge=1)
    """text: occurrences in training rows that a token needs to enter the vocabulary."""
    max_vocabulary: int = Field(default=0, ge=0)
    """text: how many tokens the vocabulary keeps, the most frequent ones; 0 means all."""
    separator: str = Field(default=",", min_length=1)
    """labels: what stands between the tags of a cell."""

    @field_validator("ngrams")
    @classmethod
    def _check_ngrams(cls, ngrams: list[int]) -> list[int]:
        if len(ngrams) != 2 or not 1 <= ngrams[0] <= ngrams[1]:
            raise ValueError("expected [shortest, longest], two numbers from 1 on, for example [1, 3]")
        return ngrams

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: list[int]) -> list[int]:
        if size and (len(size) != 2 or min(size) < 1):
            raise ValueError("expected [height, width], two positive numbers of pixels")
        return size

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: str) -> str:
        if channels not in ("rgb", "gray") and not (channels.isdigit() and int(channels) > 0):
            raise ValueError("expected rgb, gray or a number of channels")
        return channels


class Split(Part):
    """Which rows train, which validate and which test."""

    column: str = ""
    """Column whose cells say train, valid or test; a pattern (split_*) means a run for each; empty means fractions."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the rows that validate, where no column says."""
    test: float = Field(default=0.2, ge=0, lt=1)
    """Fraction of the rows that test, where no column says."""
    group: str = ""
    """Column whose equal cells stay on one side, for example a patient."""
    stratify: str = ""
    """Column whose values should have the same fractions; a hash decides, so they have them in expectation."""
    seed: int = 0
    """Another seed gives another split."""

    @field_validator("test")
    @classmethod
    def _check_fractions(cls, test: float, info: Any) -> float:
        if test + info.data.get("valid", 0) >= 1:
            raise ValueError("valid and test together leave no rows to train on")
        return test


class Data(Part):
    """The table and how its columns become tensors."""

    table: str = ""
    """CSV, TSV or Parquet file; a relative path starts at the recipe file."""
    files: str = ""
    """Root of the relative file paths in the table; empty means the table's folder."""
    encoding: str = "utf-8"
    """Encoding of a CSV or TSV table."""
    delimiter: str = ""
    """Field delimiter; empty means comma for .csv, tab for .tsv."""
    key: str = ""
    """Column that names a row; empty means that its inputs do."""
    inputs: dict[str, Feature] = {}
    """What the model sees, by name, in the order of the arguments of its forward pass."""
    target: dict[str, Feature] = {}
    """What the model learns: one feature, or several of one kind."""
    split: Split = Split()
    """Training, validation and test rows."""
    max_bad_rows: float = Field(default=0.01, ge=0, le=1)
    """Fraction of the rows that may be quarantined before the run stops."""
    max_pixels: int = Field(default=50_000_000, gt=0)
    """Largest image that is decoded, in pixels times channels."""


class Train(Part):
    """The training procedure."""

    epochs: int = Field(default=10, ge=1)
    """Passes over the training rows."""
    batch_size: int = Field(default=64, ge=1)
    """Rows in an optimizer step; a last batch of one row joins the one before it."""
    optimizer: Named = Named(name="adamw")
    """Any optimizer of torch.optim by its name, in any case; or sgd_by_hand."""
    schedule: Named = Named(name="constant")
    """Learning rate over the steps: constant, cosine, one_cycle or step, each with a warmup fraction; or plateau."""
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients make one optimizer step together."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which then is what is evaluated; 0 means none."""
    early_stop_epochs: int = Field(default=0, ge=0)
    """Stop after so many epochs without a better monitored metric; 0 means never."""
    max_minutes: float = Field(default=0.0, ge=0)
    """Stop training after so many minutes, at the next step; 0 means no limit."""
    augment: list[Named] = []
    """Random changes of training rows: flip, crop, rotate, scale, erase, brightness, contrast, noise, mixup, cutmix."""
    loss: str = "auto"
    """auto, cross_entropy, nll (category), bce (labels), mse, mse_sum, smooth_l1 or l1 (number, points)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of a category target's probability that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: a row's loss counts by the inverse frequency of its class."""
    sampling: Literal["shuffle", "balanced"] = "shuffle"
    """shuffle: every row once an epoch; balanced: as many draws, every class equally often."""
    clip_norm: float = Field(default=0.0, ge=0)
    """Largest norm of all gradients together; 0 means no clipping."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "fp64"] = "auto"
    """auto is bf16 for image inputs where the hardware is faster at it, else fp32; fp16 is for CUDA, with a scaler."""
    seed: int = 0
    """Decides initial weights, order of the rows and augmentation."""
    num_workers: int = Field(default=0, ge=0)
    """Processes that gather batches; 0 gathers them in this one, which is fastest on a CPU."""
    deterministic: bool = False
    """Ask CUDA for deterministic algorithms; the CPU is deterministic anyway."""


class Checkpoint(Part):
    """When a run's state is kept."""

    every_epochs: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""
    every_steps: int = Field(default=0, ge=0)
    """Steps between checkpoints; 0 means at epochs alone."""
    keep: int = Field(default=3, ge=1)
    """How many of the newest stay; the best stays too."""
    on_error: Literal["stop", "warn"] = "stop"
    """What a checkpoint that cannot be written does, as on a full disk: it stops the run, or costs it a warning."""
    monitor: str = "auto"
    """Validation metric that decides which is best; auto is accuracy (balanced: recall_macro), rmse, nme or mrr."""


class Tracking(Part):
    """What MLflow gets."""

    experiment: str = ""
    """Experiment of the run; empty means the recipe's name."""
    register_as: str = Field(default="", alias="register")
    """Name of the registered model that a finished run becomes a version of; empty means none."""
    every_steps: int = Field(default=0, ge=0)
    """Steps between training metrics in MLflow; 0 means at most 2,000 points a metric."""
    wait_seconds: float = Field(default=3.0, ge=0)
    """How long the end of a run waits for a tracker that does not answer; what is left goes out later."""

    @field_validator("register_as")
    @classmethod
    def _check_register(cls, name: str) -> str:
        if "/" in name or ":" in name:
            raise ValueError("a registered model's name has no / and no :")
        return name

    model_config = ConfigDict(populate_by_name=True)


class WarmStart(Part):
    """Weights to begin with, and what becomes of them."""

    source: str = ""
    """Run id, runs:/<id>, models:/<name>@<alias>, or a weights file; empty means to begin at random."""
    rename: dict[str, str] = {}
    """From the source's keys to the model's, as patterns: {"backbone.*": "*"}, {"fc.*": "head.*"}."""
    exclude: Strings = []
    """Patterns of the model's keys that begin at random, whatever the source has."""
    freeze: Strings = []
    """Patterns of the model's keys that are not trained."""
    thaw_after: int = Field(default=0, ge=0)
    """Epochs after which the frozen keys are trained too; 0 means never."""
    lr_factors: dict[str, float] = {}
    """By pattern of the model's keys: what the learning rate is multiplied by; the first that fits counts."""
    grow_head: bool = True
    """Whether classes that the source does not know get outputs of their own; false refuses them."""
    statistics: Literal["source", "data"] = "source"
    """Whether means, deviations and the order of classes stay the source's or are fitted anew."""

    @field_validator("rename")
    @classmethod
    def _check_rename(cls, rename: dict[str, str]) -> dict[str, str]:
        for pattern, replacement in rename.items():
            if replacement.count("*") > pattern.count("*"):
                raise ValueError(f"{replacement!r} has more * than {pattern!r}, whose * are what it could stand for")
        return rename

    @field_validator("lr_factors")
    @classmethod
    def _check_factors(cls, factors: dict[str, float]) -> dict[str, float]:
        for pattern, factor in factors.items():
            if not (0 <= factor < math.inf):
                raise ValueError(f"{pattern!r}: {factor}; expected a factor from 0 on")
        return factors


class Recipe(Part):
    """Everything about a run."""

    format_version: Literal[1] = FORMAT_VERSION
    """Version of this format."""
    name: str = ""
    """Name of the recipe: runs and, by default, their experiment are named after it."""
    data: Data = Data()
    """The table and how its columns become tensors."""
    model: Named = Named(name="")
    """A registered model, torchvision:resnet18, or my_package.nets:MyNet."""
    train: Train = Train()
    """The training procedure."""
    checkpoint: Checkpoint = Checkpoint()
    """When a run's state is kept."""
    tracking: Tracking = Tracking()
    """What MLflow gets."""
    warm_start: WarmStart = WarmStart()
    """Weights to begin with."""

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.name


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars: `1e-3` is a number; `no`, `on` and `007` are strings. A key that stands twice is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse what YAML would take in silence: of two equal keys it keeps the last."""
        seen: set[str] = set()
        keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        for key in keys:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"key {key.value!r} twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def construct_float(self, node: Any) -> float:
        """A decimal, or an infinity written `.inf`."""
        return float(self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that `_Loader` would read as something else, for example the name `1e-3`."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SCALARS = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(?:(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN)$",
        "-+.0123456789",
    ),
)
for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_float)


def parse_yaml(text: str, place: str) -> Any:
    """Parse YAML with the scalars of version 1.2.

    Raises:
        RecipeError: it is not YAML; names the place and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError(f"{place} is not YAML: {error}") from error


def load_recipe(
    file: str | Path = "", fields: Recipe | None = None, overrides: Mapping[str, Any] | None = None
) -> Recipe:
    """Read a recipe: the file first, then the fields that were set, then the overrides.

    Args:
        file: YAML file; its relative paths are made absolute against its own folder. Empty means none.
        fields: values that go over the file's; their relative paths start at the working directory.
        overrides: dotted keys, for example {"train.epochs": 3}.
    Raises:
        RecipeError: the file cannot be read or a key or value is not legal; names all of them at once.
    """
    values: dict[str, Any] = {}
    place = "recipe"
    if str(file):
        path = Path(file)
        place = str(path)
        values = _read_file(path)
        _make_absolute(values, path.absolute().parent)
    if fields is not None:
        over = fields.model_dump(exclude_unset=True, by_alias=True)
        _make_absolute(over, Path.cwd())
        _merge(values, over)
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    _make_absolute(values, Path.cwd())
    return _validate(values, place)


def parse_overrides(items: list[str] | tuple[str, ...]) -> list[dict[str, Any]]:
    """Read `--set` items. Several values of an item, as in `train.seed=0,1,2`, give one dict for each combination.

    Raises:
        RecipeError: an item is not `key=value`.
    """
    keys: list[str] = []
    choices: list[list[Any]] = []
    for item in items:
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise RecipeError(f"--set {item}: expected KEY=VALUE, for example --set train.epochs=3")
        keys.append(key.strip())
        choices.append([parse_yaml(part, f"--set {item}") if part else "" for part in _split_values(text)])
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*choices)]


def parse_renames(items: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Read `--rename` items, such as `backbone.*=*`, as `warm_start.rename` has them.

    Raises:
        RecipeError: an item is not `from=to`, or gives a pattern twice.
    """
    renames: dict[str, str] = {}
    for item in items:
        pattern, sign, replacement = item.partition("=")
        if not sign or not pattern:
            raise RecipeError(f"--rename {item}: expected FROM=TO, for example --rename 'backbone.*=*'")
        if pattern in renames:
            raise RecipeError(f"--rename {item}: {pattern!r} was renamed to {renames[pattern]!r} before; give it once")
        renames[pattern] = replacement
    return renames


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe, defaults included, as YAML that `load_recipe` reads."""
    return yaml.dump(recipe.model_dump(by_alias=True), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def dump_value(value: Any) -> str:
    """One value as YAML on one line, as it can stand behind a key; `load_recipe` reads the same value."""
    text = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=True, width=math.inf
    )
    return text.removesuffix("\n").removesuffix("\n...")


def flatten(recipe: Recipe) -> dict[str, str]:
    """The recipe as dotted keys and strings, for example {"train.epochs": "10"}, as MLflow's params want it."""

    def walk(value: Any, key: str) -> Iterator[tuple[str, str]]:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}" if key else str(name))
        else:
            yield key, str(value)

    return dict(walk(recipe.model_dump(by_alias=True), ""))


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of the YAML file, with the short forms that the reader accepts."""
    schema = Recipe.model_json_schema(by_alias=True)
    feature, warm_start = (schema["$defs"][part]["properties"] for part in ("Feature", "WarmStart"))
    for texts in (feature["columns"], warm_start["exclude"], warm_start["freeze"]):
        texts["anyOf"] = [{"type": "string"}, {"type": "array", "items": texts.pop("items")}]
        del texts["type"]
    feature["channels"]["type"] = ["string", "integer"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "required": ["name", "data", "model"]}


def nearest(word: str, legal: Any) -> str:
    """The ending of an error message that names the nearest legal words, or all of them where none is near."""
    names = sorted(str(name) for name in legal)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"legal are {', '.join(names)}"


def _split_values(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts, depth, quote, current = [], 0, "", ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in ")}]":
            depth -= 1
        if char == "," and depth == 0 and not quote:
            parts.append(current)
            current = ""
        else:
            current += char
    return [*parts, current]


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        others = sorted(str(other) for pattern in ("*.yaml", "recipes/*.yaml") for other in Path().glob(pattern))
        hint = f"recipes here: {', '.join(others)}" if others else "torchrelay fetch digits writes one to start from"
        raise RecipeError(f"recipe {path} does not exist; {hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read as UTF-8 text: {error}") from error
    values = parse_yaml(text, f"recipe {path}")
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {path}: expected keys such as name, data and model; got {type(values).__name__}")
    version = values.get("format_version", FORMAT_VERSION)
    check_format(
        f"recipe {path}", version, FORMAT_VERSION, f"write it as format_version: {FORMAT_VERSION}", RecipeError
    )
    return values


def _make_absolute(values: dict[str, Any], root: Path) -> None:
    data = values.get("data")
    if isinstance(data, dict):
        for key in ("table", "files"):
            text = data.get(key)
            if isinstance(text, str) and text and "://" not in text:
                data[key] = str(Path(root, text).resolve())
    model = values.get("model")
    if isinstance(model, dict) and str(model.get("name")).startswith("torchvision:"):
        args = model.get("args")
        file = args.get("weights_file") if isinstance(args, dict) else None
        if isinstance(args, dict) and isinstance(file, str) and file:
            model["args"] = {**args, "weights_file": str(Path(root, file).resolve())}
    warm_start = values.get("warm_start")
    if isinstance(warm_start, dict) and _is_file_name(warm_start.get("source")):
        warm_start["source"] = str(Path(root, warm_start["source"]).resolve())


def _is_file_name(source: object) -> bool:
    """Whether a source is a weights file, not a run or a registered model."""
    if not isinstance(source, str) or source.startswith(("runs:/", "models:/")):
        return False
    return "/" in source or source.endswith(WEIGHTS_SUFFIXES)


def _merge(values: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict) and key not in ("args", "inputs", "target"):
            _merge(values[key], value)
        else:
            values[key] = value


def _set(values: dict[str, Any], dotted: str, value: Any) -> None:
    *folders, last = dotted.split(".")
    inner: Any = values
    part: Any = Recipe
    for name in folders:
        # A part that the file leaves out starts from its defaults, so that train.optimizer.args.lr alone is legal.
        field = _field(part, name)
        part = field.annotation if field else None
        if isinstance(inner, list):
            inner = inner[_index(inner, name, dotted)]
            if not isinstance(inner, dict | list):
                raise RecipeError(f"--set {dotted}: position {name} is {inner!r}, which has no parts")
            continue
        if inner.get(name) is None:
            has_default = field is not None and isinstance(field.default, BaseModel)
            inner[name] = field.default.model_dump(by_alias=True) if field and has_default else {}
        inner = inner[name]
        if not isinstance(inner, dict | list):
            raise RecipeError(f"--set {dotted}: {name} is {inner!r}, which has no parts")
    if isinstance(inner, list):
        inner[_index(inner, last, dotted)] = value
    else:
        inner[last] = value


def _index(items: list[Any], name: str, dotted: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise RecipeError(f"--set {dotted}: expected a position from 0 to {len(items) - 1}, got {name!r}")
    return int(name)


def _field(part: Any, name: str) -> Any:
    if not (isinstance(part, type) and issubclass(part, BaseModel)):
        return None
    by_alias = {field.alias or key: field for key, field in part.model_fields.items()}
    return by_alias.get(name)


def _validate(values: dict[str, Any], place: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise RecipeError(f"{place}: " + "\n".join(lines)) from error


def _explain(problem: Any) -> str:
    """One line for one of pydantic's findings: the key, the value, what is legal."""
    loc = [str(part) for part in problem["loc"]]
    key, value = ".".join(loc), problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key} (value {value!r}); {nearest(loc[-1], _legal_keys(loc[:-1]))}"
    if problem["type"] == "literal_error":
        legal = get_args(_annotation(loc))
        return f"{key}: {value!r} is not legal; {nearest(str(value), legal)}"
    if problem["type"] == "missing":
        owner = ".".join(loc[:-1]) or "the recipe"
        return f"{key} is missing; legal keys of {owner} are {', '.join(_legal_keys(loc[:-1]))}"
    if problem["type"] == "model_type":
        return f"{key}: got {value!r}; expected keys and values, legal keys are {', '.join(_legal_keys(loc))}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key}: got {value!r}; {message[0].lower()}{message[1:]}"


def _annotation(loc: list[str]) -> Any:
    part: Any = Recipe
    for name in loc:
        field = _field(part, name)
        if field is not None:
            part = field.annotation
        elif part is not None and get_args(part):  # an entry of a dict or of a list
            part = get_args(part)[-1]
        else:
            return None
    return part


def _legal_keys(loc: list[str]) -> list[str]:
    part = _annotation(loc)
    if not (isinstance(part, type) and issubclass(part, BaseModel)):
        return []
    return [field.alias or key for key, field in part.model_fields.items()]

"""The recipe, a frozen pydantic model that describes a whole run.

`recipe/file.py` reads it from a YAML file. Its shape is checked at once and without torch. Whether
the models, optimizers, losses and files that it names exist is checked in the preflight
(`tasks/assembly/preflight.py`). Defaults stand here and nowhere else, and so do the marks of what a
run that goes on may change (`recipe/changes.py` reads them).
"""

from __future__ import annotations

import difflib
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ..errors import RecipeError
from ..kinds import KINDS, Facts, KindName
from .types import (
    BESIDE_CURVES,
    FIXED,
    MAY_CHANGE,
    Channels,
    Count,
    CountOrNone,
    Delimiter,
    Encoding,
    MayChange,
    Pixels,
    Place,
    Seed,
    Text,
    Words,
    Workers,
)
from .yaml import check_bounds

FORMAT_VERSION = 1
# More cores than any machine that this runs on.
MOST_THREADS = 1024
# A message names at most so many legal words; so many are compared with a wrong one.
MOST_SHOWN, MOST_NAMES = 200, 20_000
# What tells the name of a weights file from a run id, which may have dots too.
WEIGHTS_SUFFIXES = (".pt", ".pth", ".tar", ".ckpt", ".bin", ".safetensors")


# Of an image as it is stored, height times width: in bytes already a part of any machine's memory.
MOST_PIXELS = 2**28
# Characters of a wrong word that are compared with the right ones.
MOST_COMPARED = 100


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_texts(value: object) -> object:
    values = value if isinstance(value, list) else [value]
    return [
        str(one) if isinstance(one, (int, float)) and not isinstance(one, bool) else one
        for one in values
    ]


Texts = Annotated[list[str], BeforeValidator(_as_texts)]
"""A list of texts, among them numbers; one alone may be written without brackets."""
Strings = Annotated[list[str], BeforeValidator(_as_list)]
"""A list of texts; one alone may be written without brackets."""


class Part(BaseModel):
    """A section of the recipe, frozen, which refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Named(Part):
    """The name of a variant and its arguments."""

    name: Text
    """Name of the variant."""
    args: dict[str, Any] = {}
    """Its arguments, by name."""


class Spelling(Part):
    """Which spellings of a class, a category or a tag count as one.

    Unicode's composed form always does.
    """

    strip: bool = False
    """White space at the ends and what is not seen (zero-width space, byte order mark) do not
    count.
    """
    fold_case: bool = False
    """Capitals count as small letters, and full-width letters as the usual ones."""
    numbers: bool = False
    """Equal numbers are one class, however they are written (1, 1.0, 01, 1e0), so are true and
    TRUE.
    """


class Feature(Part):
    """One or more columns read as one tensor."""

    kind: KindName
    """How the columns are read."""
    columns: Strings = []
    """Column names or patterns such as `x*`; empty means the column named like the feature."""
    size: list[Pixels] = []
    """image: [height, width] in pixels; empty means that all images have one size already."""
    channels: Channels = "rgb"
    """image: rgb, gray, or the number of channels in the file."""
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    """image: how a pixel is stored."""
    background: str = "white"
    """image: ground of transparent pixels: white, black, #rrggbb, or keep, which takes the
    colours that the file stores beneath; a number of channels keeps the alpha itself.
    """
    preprocess: list[Named] = []
    """image: functions of scikit-image, for example transform.resize, run once, in this order."""
    statistics: Literal["data", "imagenet", "none"] = "data"
    """image: what standardises the pixels: mean and deviation of the training rows, ImageNet's,
    or 0 to 1 as it is.
    """
    image: Text = ""
    """points: the image input that they lie on; empty means the only one."""
    swap: list[list[Place]] = []
    """points: pairs of points, counted from 0, that change places when the image is mirrored
    (left and right eye).
    """
    normalise_by: list[Place] = []
    """points: the two points whose distance is the unit of nme; empty means the diagonal of the
    points' box.
    """
    missing: Literal["reject", "mean", "median"] | Annotated[float, Field(allow_inf_nan=False)] = (
        "reject"
    )
    """number, as input: a missing cell rejects its row, or is filled by the training rows' mean or
    median, or by a number; columns that lack some in training rows get an input more each,
    which says where.
    """
    unit: Text = ""
    """number: unit of the values, for example MPa, shown on the axes of figures."""
    vocabulary: Text = ""
    """category: name of a vocabulary; features of the same one share their classes (head and
    tail of a triple).
    """
    tokens: Literal["words", "characters"] = "words"
    """text: whether a token is made of words or characters."""
    ngrams: list[Words] = [1, 1]
    """text: [shortest, longest]: how many words or characters in a row make a token."""
    lowercase: bool = True
    """text: whether capitals count as small letters."""
    min_count: Count = 1
    """text: occurrences in training rows that a token needs to enter the vocabulary."""
    max_vocabulary: CountOrNone = 0
    """text: how many tokens the vocabulary keeps, the most frequent ones; 0 means all."""
    separator: str = Field(default=",", min_length=1, max_length=100)
    """labels: sign between the tags of a cell."""
    labels: Spelling = Spelling()
    """category, labels: which spellings are one class or tag."""

    @property
    def facts(self) -> Facts:
        """What is true of its kind."""
        return KINDS[self.kind]

    @field_validator("ngrams")
    @classmethod
    def _check_ngrams(cls, ngrams: list[int]) -> list[int]:
        if len(ngrams) != 2 or ngrams[0] > ngrams[1]:
            raise ValueError(
                "expected [shortest, longest], two numbers from 1 on, for example [1, 3]"
            )
        return ngrams

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: list[int]) -> list[int]:
        if size and len(size) != 2:
            raise ValueError("expected [height, width], two positive numbers of pixels")
        if size and size[0] * size[1] > MOST_PIXELS:
            raise ValueError(f"expected at most {MOST_PIXELS:,} pixels, height times width")
        return size

    @field_validator("background")
    @classmethod
    def _check_background(cls, background: str) -> str:
        if background not in ("white", "black", "keep") and not re.fullmatch(
            "#[0-9a-fA-F]{6}", background
        ):
            raise ValueError("expected white, black, keep or a colour such as '#8090a0'")
        return background.lower()


class Split(Part):
    """Which rows train, which validate and which test."""

    column: str = ""
    """Column whose cells say train, valid or test; a pattern (split_*) means a run for each;
    empty means fractions.
    """
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the rows that validate, where no column says."""
    test: float = Field(default=0.2, ge=0, lt=1)
    """Fraction of the rows that test, where no column says."""
    group: str = ""
    """Column whose equal cells stay on one side, for example a patient."""
    stratify: str = ""
    """Column whose values the report counts by side and warns of where fractions left them
    uneven; moves no row.
    """
    repeats: Literal["together", "apart"] = "together"
    """Rows of the same inputs, or of one key, on one side; or each by itself, where there are
    few different ones.
    """
    seed: Seed = 0
    """Another seed gives another split."""

    @field_validator("test")
    @classmethod
    def _check_fractions(cls, test: float, info: Any) -> float:
        if test + info.data.get("valid", 0) >= 1:
            raise ValueError("valid and test together leave no rows to train on")
        return test


class TableFile(Part):
    """Where the table and its files are."""

    table: str = ""
    """CSV, TSV or Parquet file; a relative path starts at the recipe file."""
    files: str = ""
    """Root of the relative file paths in the table; empty means the table's folder."""
    links: list[str] = []
    """Folders outside of it that symlinks may lead into, such as a cache; a relative path starts
    at the recipe file.
    """


class Dialect(Part):
    """How a text table is written.

    For Parquet, how the numbers in columns of text are.
    """

    encoding: Encoding = "utf-8"
    """Encoding of a CSV or TSV table."""
    delimiter: Delimiter = ""
    """Field delimiter; empty means what a first line sep=; says, else comma for .csv, tab for
    .tsv.
    """
    skip_lines: int = Field(default=0, ge=0, le=1000)
    """Lines above the header, such as a title or comments."""
    skip_spaces: bool = False
    """Whether to ignore spaces after a delimiter, as in `age, income`."""
    escape: Literal["", "\\"] = ""
    """Sign before a quote within a quoted field; empty means that such a quote is
    doubled.
    """
    decimal: Literal[".", ","] = "."
    """Decimal sign of numbers."""
    thousands: Literal["", ",", ".", " ", "'"] = ""
    """Sign between the thousands of numbers; a space stands for no-break and narrow spaces too."""
    units: Strings = []
    """Units before or after a number, for example $ and %."""

    @field_validator("thousands")
    @classmethod
    def _check_thousands(cls, thousands: str, info: Any) -> str:
        if thousands and thousands == info.data.get("decimal"):
            raise ValueError("expected another sign than that of data.decimal")
        return thousands

    @field_validator("units")
    @classmethod
    def _check_units(cls, units: list[str]) -> list[str]:
        for unit in units:
            if not unit.strip() or any(sign.isdigit() for sign in unit):
                raise ValueError(
                    f"{unit!r}; expected a sign without digits, for example $, EUR or %"
                )
        return units


class Data(Dialect, TableFile):
    """The table and how its columns become tensors."""

    key: str = ""
    """Column that names a row; empty means that its inputs do."""
    inputs: dict[Text, Feature] = {}
    """What the model sees, by name, in the order of the arguments of its forward pass."""
    target: dict[Text, Feature] = {}
    """What the model learns: one feature, or several of one kind."""
    split: Split = Split()
    """Training, validation and test rows."""
    missing_values: Texts = []
    """Cells of number and points that say that there is no number, beside empty ones and NA,
    NaN, ?, . and the like.
    """
    rare_classes: Literal["reject", "drop", "keep"] = "reject"
    """Rows of a class without a training row: bad ones; left out, and counted as no bad ones; or
    kept.
    """
    max_unknown: float = Field(default=0.5, ge=0, le=1)
    """Fraction of an input's cells of another table that a model may not know before their rows
    get no prediction.
    """
    max_bad_rows: float = Field(default=0.01, ge=0, le=1)
    """Fraction of the rows that may be quarantined before the run stops."""
    max_pixels: int = Field(default=50_000_000, gt=0, le=2**40)
    """Largest image that is decoded, in pixels times channels."""


class Train(Part):
    """The training procedure."""

    epochs: Annotated[Count, BESIDE_CURVES] = 10
    """Passes over the training rows."""
    batch_size: Annotated[Count, FIXED] = 64
    """Rows in an optimizer step; a last batch of one row joins the one before it."""
    optimizer: Annotated[Named, MayChange(args=("lr", "weight_decay"))] = Named(name="adamw")
    """Any optimizer of torch.optim by its name, in any case; or sgd_by_hand."""
    schedule: Annotated[Named, MAY_CHANGE] = Named(name="constant")
    """Learning rate over the steps: constant, cosine, one_cycle or step, each with a warmup
    fraction; or plateau.
    """
    accumulate: Annotated[Count, FIXED] = 1
    """Batches whose gradients make one optimizer step together."""
    ema: Annotated[float, FIXED] = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then evaluated instead;
    0 means none.
    """
    early_stop_epochs: Annotated[CountOrNone, BESIDE_CURVES] = 0
    """Stop after so many epochs without a better monitored metric; 0 means never."""
    max_minutes: Annotated[float, BESIDE_CURVES] = Field(default=0.0, ge=0, le=1e7)
    """Stop training after so many minutes, at the next step; 0 means no limit."""
    augment: Annotated[list[Named], MAY_CHANGE] = []
    """Random changes of training rows: flip, crop, rotate, scale, erase, brightness, contrast,
    noise, mixup, cutmix.
    """
    loss: Annotated[Text, FIXED] = "auto"
    """auto, cross_entropy, nll (category), bce (labels), mse, mse_sum, smooth_l1 or l1 (number,
    points).
    """
    label_smoothing: Annotated[float, MAY_CHANGE] = Field(default=0.0, ge=0, lt=1)
    """Share of a category target's probability that is spread over all classes."""
    class_weights: Annotated[Literal["none", "balanced"], FIXED] = "none"
    """balanced: a row's loss counts by the inverse frequency of its class."""
    sampling: Annotated[Literal["shuffle", "balanced"], FIXED] = "shuffle"
    """shuffle: every row once an epoch; balanced: as many draws, every class equally often."""
    clip_norm: Annotated[float, MAY_CHANGE] = Field(default=0.0, ge=0)
    """Largest norm of all gradients together; 0 means no clipping."""
    device: Annotated[Text, MAY_CHANGE] = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16", "fp64"], MAY_CHANGE] = "auto"
    """auto is bf16 for image inputs where the hardware is faster at it, else fp32; fp16 is for
    CUDA, with a scaler.
    """
    threads: Annotated[str, BeforeValidator(_as_text), BESIDE_CURVES] = "auto"
    """Threads that a CPU computes with: a number, or auto, the fastest number for machine, model
    and batch size.
    """
    seed: Annotated[Seed, FIXED] = 0
    """Decides initial weights, order of the rows and augmentation."""
    num_workers: Annotated[Workers, BESIDE_CURVES] = 0
    """Processes that gather batches; 0 gathers them in this one, which is fastest on a CPU."""
    deterministic: Annotated[bool, MAY_CHANGE] = False
    """Ask CUDA for deterministic algorithms; the CPU is deterministic anyway."""

    @field_validator("threads")
    @classmethod
    def _check_threads(cls, threads: str) -> str:
        if threads != "auto" and not (threads.isdecimal() and 1 <= int(threads) <= MOST_THREADS):
            raise ValueError(f"expected auto, or a number of threads from 1 to {MOST_THREADS}")
        return threads


class Checkpoint(Part):
    """When a run's state is kept."""

    every_epochs: Annotated[Count, BESIDE_CURVES] = 1
    """Epochs between checkpoints."""
    every_steps: Annotated[CountOrNone, BESIDE_CURVES] = 0
    """Steps between checkpoints; 0 means at epochs alone."""
    keep: Annotated[Count, BESIDE_CURVES] = 3
    """How many of the newest stay; the best stays too."""
    on_error: Annotated[Literal["stop", "warn"], BESIDE_CURVES] = "stop"
    """What to do if a checkpoint cannot be written, as on a full disk: stop the run, or warn and go
    on.
    """
    monitor: Annotated[str, FIXED] = Field(default="auto", max_length=2_000)
    """Validation metric that decides which is best; auto is accuracy (balanced: recall_macro),
    rmse, nme or mrr.
    """


class Tracking(Part):
    """What MLflow gets."""

    experiment: Annotated[Text, FIXED] = ""
    """Experiment of the run; empty means the recipe's name."""
    register_as: Annotated[Text, BESIDE_CURVES] = Field(default="", alias="register")
    """Name of the registered model that a finished run becomes a version of; empty means none."""
    every_steps: Annotated[CountOrNone, BESIDE_CURVES] = 0
    """Steps between training metrics in MLflow; 0 means at most 2,000 points a metric."""
    wait_seconds: Annotated[float, BESIDE_CURVES] = Field(default=3.0, ge=0, le=86_400)
    """How long a run's end waits for a tracker that does not answer; the rest is sent later."""

    @field_validator("register_as")
    @classmethod
    def _check_register(cls, name: str) -> str:
        if "/" in name or ":" in name:
            raise ValueError("a registered model's name has no / and no :")
        return name

    model_config = ConfigDict(populate_by_name=True)


class WarmStart(Part):
    """Which weights a run begins with, and what becomes of them."""

    source: Annotated[str, FIXED] = ""
    """Run id, runs:/<id>, models:/<name>@<alias>, or a weights file; empty means to begin at
    random.
    """
    rename: Annotated[dict[str, str], FIXED] = {}
    """From the source's keys to the model's, as patterns: {"backbone.*": "*"}, {"fc.*":
    "head.*"}.
    """
    exclude: Annotated[Strings, FIXED] = []
    """Patterns of the model's keys that begin at random, whatever the source has."""
    freeze: Annotated[Strings, FIXED] = []
    """Patterns of the model's keys that are not trained."""
    thaw_after: Annotated[CountOrNone, MAY_CHANGE] = 0
    """Epochs after which the frozen keys are trained too; 0 means never."""
    lr_factors: Annotated[dict[str, float], FIXED] = {}
    """Factor of the learning rate, by pattern of the model's keys; the first that fits counts."""
    grow_head: Annotated[bool, FIXED] = True
    """Whether classes that the source does not know get outputs of their own; false refuses
    them.
    """
    statistics: Annotated[Literal["source", "data"], FIXED] = "source"
    """Whether means, deviations and the order of classes stay the source's or are fitted anew."""

    @field_validator("rename")
    @classmethod
    def _check_rename(cls, rename: dict[str, str]) -> dict[str, str]:
        for pattern, replacement in rename.items():
            if replacement.count("*") > pattern.count("*"):
                raise ValueError(
                    f"{replacement!r} has more * than {pattern!r}, whose * are what it could stand "
                    "for"
                )
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

    format_version: Annotated[Literal[1], FIXED] = FORMAT_VERSION
    """Version of this format."""
    name: Annotated[Text, FIXED] = ""
    """Name of the recipe: runs and, by default, their experiment are named after it."""
    data: Annotated[Data, FIXED] = Data()
    """The table and how its columns become tensors."""
    model: Annotated[Named, FIXED] = Named(name="")
    """A registered model, torchvision:resnet18, or my_package.nets:MyNet."""
    train: Train = Train()
    """The training procedure."""
    checkpoint: Checkpoint = Checkpoint()
    """When a run's state is kept."""
    tracking: Tracking = Tracking()
    """What MLflow gets."""
    warm_start: WarmStart = WarmStart()
    """Weights to begin with."""

    @model_validator(mode="before")
    @classmethod
    def _check_bounds(cls, values: Any) -> Any:
        """Hold values that do not come from a file to the file's bounds.

        Prefect's parameters are such values.
        """
        try:
            check_bounds(values, "the recipe")
        except RecipeError as error:
            raise ValueError(str(error)) from error
        return values

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.tracking.experiment or self.name


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of the YAML file, with the reader's short forms."""
    schema = Recipe.model_json_schema(by_alias=True)
    feature, warm_start = (schema["$defs"][part]["properties"] for part in ("Feature", "WarmStart"))
    for texts in (feature["columns"], warm_start["exclude"], warm_start["freeze"]):
        texts["anyOf"] = [{"type": "string"}, {"type": "array", "items": texts.pop("items")}]
        del texts["type"]
    values, one = (
        schema["$defs"]["Data"]["properties"]["missing_values"],
        {"type": ["string", "number"]},
    )
    values["anyOf"] = [one, {"type": "array", "items": one}]
    del values["type"], values["items"]
    for number in (feature["channels"], schema["$defs"]["Train"]["properties"]["threads"]):
        number["type"] = ["string", "integer"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "required": ["name", "data", "model"],
    }


def nearest(word: str, legal: Any) -> str:
    """The ending of a message that names the nearest legal words.

    It names the first of them if none is near.
    """
    names = sorted(str(name) for name in legal)
    near = difflib.get_close_matches(word[:MOST_COMPARED], names[:MOST_NAMES], n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(map(quote_name, near))}?"
    rest = f", … ({len(names):,} in all)" if len(names) > MOST_SHOWN else ""
    return f"legal are {', '.join(map(quote_name, names[:MOST_SHOWN]))}{rest}"


def quote_name(name: str) -> str:
    """A name as a message shows it.

    It has quotes if spaces or commas would hide where it begins and ends.
    """
    is_plain = name == name.strip() and name.isprintable() and "," not in name and name
    return name if is_plain else repr(name)

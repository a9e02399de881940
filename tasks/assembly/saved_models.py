"""Weights outside a run.

Looking into a source, packing several models into one file, exporting one, loading one.

A source is whatever `tracking/registry/versions.py` finds, or any file of weights, with or without
a run around it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...disk import require_place
from ...engine.checkpoints import STATE_FILE, read_manifest, read_pointer, read_state
from ...engine.hardware import pick_device
from ...errors import SourceError
from ...models import build_model
from ...models.inputs import TORCHVISION
from ...recipe import WEIGHTS_SUFFIXES, Recipe, load_recipe
from ...runs import CHECKPOINTS, RECIPE_FILE, SCHEMA_FILE, find_run, load_record
from ...schema import Schema
from ...settings import home
from ...tracking.registry import find_source_beside, resolve_source
from ...weights import (
    WeightsFile,
    check_finite,
    check_state,
    choose_model,
    load_into,
    load_weights,
    match_module_prefix,
    open_weights_file,
    prefix_of,
    read_weights_file,
    save_pack,
    save_weights,
    sha256_of,
    strip_module_prefix,
    write_safetensors,
)
from .servable import Servable
from .trust import admit_code

# Buffers of batch normalisation: in a state_dict, but not trained by an optimizer.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
PROGRESS = ("epoch", "step", "loss", "best_metric", "best_epoch")


class LoadedModel(NamedTuple):
    """A model that is ready to use.

    Attributes:
        model: takes standardised inputs, one tensor an input feature, and gives unnormalised scores
            or standardised values; in eval mode.
        servable: the same over raw inputs, as they stand in the table (images: pixels as stored),
            giving values in the table's own units; in eval mode, and it shares the model.
        schema: what inputs and targets are: classes in the order of the scores, statistics, shapes.
        recipe: that the model was trained by.
        label: the run id, `models:/<name>/<version>`, or the file.
    """

    model: nn.Module
    servable: nn.Module
    schema: Schema
    recipe: Recipe
    label: str


class Part(NamedTuple):
    """One model of a source, with what it takes to train on."""

    name: str
    label: str
    state: Mapping[str, Tensor]
    optimizer: dict[str, Any] | None
    extras: dict[str, Any]


def load_model(source: str, device: str = "cpu", trust_code: Sequence[str] = ()) -> LoadedModel:
    """Build the model that a source's recipe and schema say, and load its
    weights into it.

    No code comes out of a weights file: architecture and arguments are the recipe's, the classes
    those installed here.

    Args:
        source: run id, runs:/…, models:/name@alias, or a weights file with recipe.yaml and
            schema.json near it.
        device: auto, cpu, cuda, cuda:1 or mps; wherever the weights were saved from, they come by
            way of the CPU.
        trust_code: modules that the source's recipe may have imported, such as my_package.nets.
    Raises:
        SourceError: there is no such source, its weights do not fit, or its recipe names code that
            nobody has let in.
        DeviceError: the device is not there.
    """
    found = resolve_source(source, home())
    recipe = load_recipe(found.folder / RECIPE_FILE)
    admit_code(recipe, found.folder, source, trust_code)
    schema = Schema.load(found.folder / SCHEMA_FILE)
    picked = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        model = build_model(recipe.model, schema)
    load_into(model, load_weights(found.weights), str(found.weights))
    servable = Servable(schema, model).to(picked).eval()
    return LoadedModel(model, servable, schema, recipe, found.label)


def describe_source(source: str) -> dict[str, Any]:
    """What a source's file of weights holds, ready for JSON.

    Raises:
        SourceError: there is none, or it is refused, see `weights/file.py`.
    """
    found, label, _ = _open(source)
    models = {
        name: _describe_state(state, name in found.optimizers)
        for name, state in found.models.items()
    }
    return {
        "source": label,
        "path": str(found.path.absolute()),
        "file_bytes": found.path.stat().st_size,
        "form": found.form,
        "models": models,
        "extras": found.extras,
        "others": list(found.others),
    }


def pack_sources(sources: Sequence[str], names: Mapping[str, str], out: Path) -> list[Part]:
    """Write the models of several sources into one file, each with its
    optimizer's state where it has one.

    Args:
        sources: see `describe_source`; a file of several models gives them all.
        names: what to call a source's model, by the source; others are called after their run's
            recipe or their file, and after their run where those are the same.
        out: the file to write.
    Raises:
        SourceError: a source is not there; two models would have one name; the file cannot hold
            them; weights are not finite.
    """
    if out.suffix not in WEIGHTS_SUFFIXES or out.suffix == ".safetensors":
        raise SourceError(
            f"{out}: several models with their optimizers make a file of torch.save; name it .pt "
            "or .tar"
        )
    require_place(out)
    parts = [part for source in sources for part in _parts(source, names.get(source, ""))]
    counts = Counter(part.name for part in parts)
    parts = [part if counts[part.name] == 1 else part._replace(name=part.label) for part in parts]
    twice = [name for name, count in Counter(part.name for part in parts).items() if count > 1]
    if twice:
        raise SourceError(
            f"two models would be called {twice[0]!r}; --name NAME=SOURCE calls one otherwise"
        )
    save_pack({part.name: _as_checkpoint(part) for part in parts}, out)
    return parts


def export_source(
    source: str, out: Path, model: str = "", strip_prefix: str = "", *, with_optimizer: bool
) -> Part:
    """Write one model's state_dict, for inference or for others, as torch.save
    or safetensors by the file's name.

    Args:
        source: see `describe_source`.
        out: the file to write.
        model: which one, of a file of several.
        strip_prefix: what to take off the beginning of every key; the `module.` of a wrapper always
            goes.
        with_optimizer: write a checkpoint with the optimizer's state as well.
    Raises:
        SourceError: the source or its optimizer is not there; a key lacks the prefix; the file
            cannot hold it; its weights are not finite or, where recipe and schema are near, of
            another class of number than the model's.
    """
    is_safetensors = out.suffix == ".safetensors"
    if out.suffix not in WEIGHTS_SUFFIXES:
        raise SourceError(f"{out}: weights are written as {', '.join(WEIGHTS_SUFFIXES)}")
    if is_safetensors and with_optimizer:
        raise SourceError(
            f"{out}: safetensors hold tensors by name and no optimizer's state; name it .pt"
        )
    require_place(out)
    part = _part(source, model)
    state = strip_module_prefix(part.state)
    odd = [key for key in state if not key.startswith(strip_prefix)]
    if odd:
        has = (
            f"they begin with {prefix_of(state)!r}"
            if prefix_of(state)
            else "they have no beginning in common"
        )
        raise SourceError(
            f"{source}: the key {odd[0]!r} does not begin with {strip_prefix!r}; {has}"
        )
    state = (
        {key.removeprefix(strip_prefix): value for key, value in state.items()}
        if strip_prefix
        else state
    )
    part = part._replace(state=state)
    if with_optimizer and part.optimizer is None:
        raise SourceError(
            f"{source} has no optimizer's state beside these weights; leave out --with-optimizer"
        )
    if is_safetensors:
        write_safetensors(state, out, {"source": part.label})
    else:
        save_weights(_as_checkpoint(part) if with_optimizer else state, out)
    return part


def _open(source: str) -> tuple[WeightsFile, str, Path | None]:
    """The file that a source names, what to call it, and the folder of its
    run where it is one's best weights.
    """
    path = Path(source)
    if path.is_file():
        return open_weights_file(path), source, None
    if path.is_dir():
        try:
            find_run(home(), source)
        except SourceError:
            open_weights_file(path)  # raises, and says which files in it could be meant
    found = resolve_source(source, home())
    return open_weights_file(found.weights), found.label, found.folder


def _part(source: str, model: str, name: str = "") -> Part:
    """The only model of a source, or the one that is named."""
    found, label, folder = _open(source)
    chosen = choose_model(found, model)
    _check_values(found.path, chosen.state, folder)
    if folder is not None:
        optimizer, progress = _training_state(folder, chosen.state)
        return Part(name or _name_of_run(folder, label), label, chosen.state, optimizer, progress)
    key = model if model in found.models else next(iter(found.models))
    name = name or key or found.path.stem
    return Part(name, label, chosen.state, found.optimizers.get(key), _extras_of(found, key))


def _parts(source: str, name: str) -> list[Part]:
    """All models of a source."""
    found, label, _ = _open(source)
    if found.state and (len(found.models) == 1 or name):
        return [_part(source, "", name)]
    if name:
        raise SourceError(
            f"{source} holds several models ({', '.join(found.models)}), which keep their names"
        )
    for state in found.models.values():
        _check_values(found.path, state, None)
    return [
        Part(
            key or found.path.stem,
            f"{label} {key}",
            state,
            found.optimizers.get(key),
            _extras_of(found, key),
        )
        for key, state in found.models.items()
    ]


def _check_values(path: Path, state: Mapping[str, Tensor], folder: Path | None) -> None:
    """Refuse to hand on what cannot be a model's.

    Held against the model where one is known, else looked at alone.

    Args:
        path: of the file.
        state: of one of its models.
        folder: has recipe and schema; None where the file was named, which may lie near them all
            the same.
    Raises:
        SourceError: names the keys and what is wrong with them.
    """
    place = f"weights {path}"
    known = find_source_beside(path.absolute()) if folder is None else None
    folder = folder or (known.folder if known is not None else None)
    own = {} if folder is None else _built_from(folder)
    matched = match_module_prefix(state, own)
    check_state(own, matched, place)
    of_another_shape = {
        key for key in matched if key in own and matched[key].shape != own[key].shape
    }
    others = {
        key: value for key, value in matched.items() if key not in own or key in of_another_shape
    }
    check_finite(others, place)


def _built_from(folder: Path) -> dict[str, Tensor]:
    """The state_dict of the model that a recipe and a schema describe, as it
    is built; empty for a class of its own.
    """
    recipe = load_recipe(folder / RECIPE_FILE)
    if ":" in recipe.model.name and not recipe.model.name.startswith(TORCHVISION):
        return {}  # to export a file runs no code of anybody's
    with torch.random.fork_rng(devices=[]):
        return build_model(recipe.model, Schema.load(folder / SCHEMA_FILE)).state_dict()


def _extras_of(found: WeightsFile, name: str) -> dict[str, Any]:
    inner = found.extras.get(name)
    return inner if isinstance(inner, dict) else found.extras


def _name_of_run(folder: Path, label: str) -> str:
    if label.startswith("models:/"):
        return label.removeprefix("models:/").rpartition("/")[0]
    try:
        return load_record(folder).name or label
    except SourceError:
        return label


def _training_state(
    folder: Path, state: Mapping[str, Tensor]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The optimizer's state and the progress in a run's best checkpoint, where
    that has the very same weights.

    Raises:
        CheckpointError: it does not verify, or is another run's.
    """
    name = read_pointer(folder / CHECKPOINTS, "best")
    checkpoint = folder / CHECKPOINTS / name / STATE_FILE
    if not name or not checkpoint.is_file():
        return None, {}
    read_state(checkpoint.parent, read_manifest(checkpoint.parent, folder.name))
    found = read_weights_file(checkpoint)
    if sha256_of(found.state) != sha256_of(state):
        return None, {}
    return found.optimizers.get(""), {
        key: found.extras[key] for key in PROGRESS if key in found.extras
    }


def _as_checkpoint(part: Part) -> dict[str, Any]:
    optimizer = {"optimizer_state_dict": part.optimizer} if part.optimizer is not None else {}
    return {**part.extras, "source": part.label, "model_state_dict": part.state, **optimizer}


def _describe_state(state: Mapping[str, Tensor], has_optimizer: bool) -> dict[str, Any]:
    """Tensors in the file's order, sums, digest, and what all keys begin
    with.
    """
    rows = [
        {"key": key, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        for key, value in state.items()
    ]
    trained = [value for key, value in state.items() if not key.endswith(STATISTICS)]
    return {
        "tensors": rows,
        "parameters": sum(value.numel() for value in trained),
        "bytes": sum(value.numel() * value.element_size() for value in state.values()),
        "prefix": prefix_of(state),
        "has_module_prefix": list(strip_module_prefix(state)) != list(state),
        "has_optimizer": has_optimizer,
        "sha256": sha256_of(state),
    }

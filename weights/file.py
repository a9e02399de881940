"""Any file of weights, ours or others', read safely onto the CPU and
understood: which models, what else.

Recognised are a raw state_dict, a checkpoint `{"epoch", "model_state_dict", "optimizer_state_dict",
"loss", …}`, one with `state_dict` (Lightning, timm), `model`, `net`, `ema`, …, the same nested one
level, several models in one file (ours, or `modelA_state_dict` beside `modelB_state_dict`), and
safetensors. What a file is decides its content, not its name. Reading bytes is the business of
`torch_format/files.py` and `safetensors.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import SourceError, check_format
from ..recipe import nearest
from .file_kinds import HEAD_BYTES, name_folder, name_kind
from .module_prefix import (
    State,
    match_module_prefix,
    prefix_of,
    strip_module_prefix,
    with_metadata_of,
)
from .safetensors import looks_like_safetensors, read_safetensors
from .torch_format import LEGACY_MAGIC, ZIP_MAGIC, load_archive, load_legacy, wanted_by_plain_pickle

__all__ = [
    "WeightsFile",
    "choose_model",
    "match_module_prefix",
    "open_weights_file",
    "prefix_of",
    "read_weights_file",
    "recognise",
    "strip_module_prefix",
]

PACK_KEY, PACK_VERSION = "torchrelay_pack", 1
# Names under which others keep the one model of a file; what stands under another name is a model
# of that name.
MAIN_NAMES = ("model", "", "net", "network", "module", "weights", "params", "state")
# Where Lightning keeps the states of its optimizers.
OPTIMIZER_LIST = "optimizer_states"
MOST_PLAIN_ITEMS = 64


@dataclass(frozen=True)
class WeightsFile:
    """What a file of weights holds.

    Attributes:
        path: the file.
        form: what was recognised: state_dict, model_state_dict, state_dict entry, torchrelay
            checkpoint, pack, several models, safetensors, or `<name> entry`.
        state: state_dict of the only or chosen model, on the CPU, keys as in the file; empty where
            a file of several models was opened without a choice. The tensors may be mapped from the
            file: copy before writing to them.
        models: of a file of several models each state_dict by the model's name; else `{"": state}`.
        optimizers: state_dicts of optimizers, by the names of their models.
        extras: plain values: epoch, loss, …
        others: names of entries that are none of these, such as a scheduler's state.
    """

    path: Path
    form: str
    state: State
    models: dict[str, State]
    optimizers: dict[str, dict[str, Any]] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = ()


def read_weights_file(path: Path, model: str = "") -> WeightsFile:
    """Read a file and choose one of its models.

    Args:
        path: written by torch.save, in either of its formats, or safetensors.
        model: name of the model, where the file has several.
    Raises:
        SourceError: see `open_weights_file`; or there is no such model, or several and none is
            named.
    """
    return choose_model(open_weights_file(path), model)


def choose_model(found: WeightsFile, model: str = "") -> WeightsFile:
    """The same file with the `state` of one of its models.

    Raises:
        SourceError: there is no such model, or several and none is named.
    """
    if model in found.models:
        return replace(found, state=found.models[model])
    if not model and found.state:
        return found
    place, names = f"weights {found.path}", ", ".join(sorted(found.models))
    if not model:
        raise SourceError(
            f"{place} hold several models ({names}); name one: `torchrelay weights export "
            f"{found.path} --model NAME "
            f"-o NAME.pt` gives a file of its own"
        )
    if list(found.models) == [""]:
        raise SourceError(
            f"{place} hold one model without a name, not {model!r}; leave the name out"
        )
    raise SourceError(f"{place} hold no model {model!r}; {nearest(model, found.models)}")


def open_weights_file(path: Path) -> WeightsFile:
    """Read a file with all its models.

    Raises:
        SourceError: there is no such file; it is no file of weights (says what it is), damaged, or
            needs more than tensors and plain values (says what it wants), or its keys are no text.
            No code of a file is run, whatever it is.
    """
    found = _read_models(path)
    for key in (key for state in found.models.values() for key in state):
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise SourceError(
                f"weights {path} are refused: the key {key[:80]!r} has half of a surrogate pair, "
                "which is no text; "
                f"whoever made the file can save it with other keys"
            ) from error
    return found


def _read_models(path: Path) -> WeightsFile:
    place = f"weights {path}"
    if path.is_dir():
        kind = name_folder(path)
        raise SourceError(f"{place}: {kind.what}; {kind.remedy}")
    if not path.exists():
        raise SourceError(f"{place} do not exist; `torchrelay runs` lists the runs that have some")
    if not path.is_file():
        raise SourceError(f"{place}: a device or a pipe; name a weights file")
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        num_bytes = path.stat().st_size
        if head.startswith((ZIP_MAGIC, LEGACY_MAGIC)):
            if path.suffix == ".safetensors":  # torch.load would go by the name
                raise SourceError(
                    f"{place}: a file of torch.save under the name of safetensors; rename it to .pt"
                )
            load = load_archive if head.startswith(ZIP_MAGIC) else load_legacy
            return recognise(load(path, place), path)
        if looks_like_safetensors(head, num_bytes):
            state, metadata = read_safetensors(path, place)
            if not state:
                raise SourceError(f"{place} hold no tensors")
            return WeightsFile(path, "safetensors", state, {"": state}, extras=dict(metadata))
    except OSError as error:
        raise SourceError(f"{place} cannot be read: {error}") from error
    raise SourceError(_explain(path, head, place))


def recognise(value: Any, path: Path) -> WeightsFile:
    """Find models, optimizers and plain values in what a file held.

    Raises:
        SourceError: there are no weights in it; says what is.
    """
    if isinstance(value, dict) and PACK_KEY in value:
        return _recognise_pack(value, path)
    if _is_state(value):
        state = _clean(value)
        return WeightsFile(path, "state_dict", state, {"": state})
    if not isinstance(value, dict):
        raise SourceError(
            f"weights {path}: expected a state_dict, or a dict that has one, got "
            f"{type(value).__name__}; "
            f"save it with torch.save(model.state_dict(), path)"
        )
    if _is_optimizer(value):
        raise SourceError(
            f"weights {path}: the state of an optimizer alone, which has no weights; name the "
            "model's file (of a run: "
            "weights/best.pt), or have both in one: torchrelay weights export RUN -o both.pt "
            "--with-optimizer"
        )
    if "model_state_dict" in value and "random_states" in value:
        return _recognise_checkpoint(value, path)
    models, forms = _find_models(value)
    loose = _tensors_of(value)
    if not models and loose:
        state = _clean(loose)
        rest = {key: one for key, one in value.items() if key not in loose}
        return WeightsFile(
            path, "state_dict", state, {"": state}, extras=_plain(rest), others=_others(rest)
        )
    if not models:
        keys = ", ".join(repr(key)[:60] for key in list(value)[:8])
        raise SourceError(
            f"weights {path}: expected a state_dict, or an entry such as model_state_dict or "
            "state_dict, got keys "
            f"{keys or 'none'}; save it with torch.save(model.state_dict(), path)"
        )
    optimizers = _find_optimizers(value, models)
    if len(models) == 1:
        ((name, state),) = models.items()
        optimizers = {"" if key == name else key: one for key, one in optimizers.items()}
        models, forms = {"": state}, {"": forms[name]}
    form = forms.get("", "several models")
    return WeightsFile(
        path, form, models.get("", {}), models, optimizers, _plain(value), _others(value)
    )


def _clean(state: dict[str, Any]) -> State:
    """Parameters as plain tensors, detached.

    The versions of the modules stay.
    """
    return with_metadata_of(state, {key: value.detach() for key, value in state.items()})


def _tensors_of(value: dict[Any, Any]) -> dict[str, Any]:
    """The tensors among other values, such as the extra state that a module
    of a net may keep.
    """
    found = {
        key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, Tensor)
    }
    return with_metadata_of(value, found)


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(key, str) and isinstance(one, Tensor) for key, one in value.items())
    )


def _is_optimizer(value: Any) -> bool:
    return (
        isinstance(value, dict) and isinstance(value.get("param_groups"), list) and "state" in value
    )


def _find_models(
    value: dict[Any, Any], *, is_nested: bool = False
) -> tuple[dict[str, State], dict[str, str]]:
    """State_dicts in a checkpoint by the names of their models, the main one
    under "", and what each entry is.
    """
    models: dict[str, State] = {}
    forms: dict[str, str] = {}
    for key, one in value.items():
        if not isinstance(key, str) or not isinstance(one, dict) or _is_optimizer(one):
            continue
        name = _name_of(key)
        if _is_state(one):
            found, form = one, key if key == "model_state_dict" else f"{key} entry"
        else:
            inner, inner_forms = _find_models(one, is_nested=True) if not is_nested else ({}, {})
            if len(inner) == 1:
                ((inner_name, found),) = inner.items()
                form = f"{key} > {inner_forms[inner_name]}"
            elif "state_dict" in key and (tensors := _tensors_of(one)):
                found, form = tensors, key if key == "model_state_dict" else f"{key} entry"
            else:
                continue
        if name not in models:
            models[name], forms[name] = _clean(found), form
    return models, forms


def _name_of(key: str) -> str:
    """The model that an entry belongs to.

    "" for model_state_dict, A for modelA_state_dict, ema for state_dict_ema.
    """
    name = re.sub(r"_?state_dict_?", "", key)
    return "" if name in MAIN_NAMES else name


def _find_optimizers(value: dict[Any, Any], models: Collection[str]) -> dict[str, dict[str, Any]]:
    """State_dicts of optimizers by the names of their models.

    Lightning keeps a list of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, one in value.items():
        if isinstance(key, str) and _is_optimizer(one):
            found.setdefault(_owner_of(key, models), one)
        elif key == OPTIMIZER_LIST and isinstance(one, list):
            named = {
                str(number) if number else "": state
                for number, state in enumerate(one)
                if _is_optimizer(state)
            }
            found |= {name: state for name, state in named.items() if name not in found}
    return found


def _owner_of(key: str, models: Collection[str]) -> str:
    """The model of an optimizer's entry.

    ModelA of optimizerA_state_dict, netG of optG, "" of optimizer.
    """
    rest = _bare(re.sub(r"opt(im(izer)?)?", "", key))
    owners = [name for name in models if _bare(name) == rest]
    return owners[0] if len(owners) == 1 else _name_of(re.sub(r"optim(izer)?", "model", key))


def _bare(name: str) -> str:
    """What tells the models of a file apart, whatever stands around it."""
    return re.sub(r"state_dict|model|net|[_.-]", "", name).lower()


def _recognise_checkpoint(value: dict[str, Any], path: Path) -> WeightsFile:
    """A checkpoint of a run.

    Its main model is the one that is kept, averaged where the run averages.
    """
    trained, average = value["model_state_dict"], value.get("average_state_dict")
    models = {"": trained}
    if isinstance(average, dict):
        models = {"": average.get("model_state_dict"), "trained": trained}
    if not all(_is_state(one) for one in models.values()):
        raise SourceError(
            f"weights {path}: a checkpoint of torchrelay without state_dicts of tensors"
        )
    models = {name: _clean(one) for name, one in models.items()}
    optimizer = value.get("optimizer_state_dict")
    optimizers = {"": optimizer} if isinstance(optimizer, dict) and _is_optimizer(optimizer) else {}
    return WeightsFile(
        path, "torchrelay checkpoint", models[""], models, optimizers, _plain(value), _others(value)
    )


def _recognise_pack(value: dict[Any, Any], path: Path) -> WeightsFile:
    """Several models in one file, as `save_pack` writes them."""
    check_format(f"weights {path}", value[PACK_KEY], PACK_VERSION, "pack them again", SourceError)
    models, optimizers, extras = {}, {}, {}
    parts = value.get("models")
    for name, part in parts.items() if isinstance(parts, dict) else ():
        if (
            not isinstance(name, str)
            or not isinstance(part, dict)
            or not _is_state(part.get("model_state_dict"))
        ):
            raise SourceError(
                f"weights {path}: a pack whose model {name!r} has no model_state_dict; pack them "
                "again"
            )
        models[name] = _clean(part["model_state_dict"])
        if _is_optimizer(part.get("optimizer_state_dict")):
            optimizers[name] = part["optimizer_state_dict"]
        extras[name] = _plain(part)
    if not models:
        raise SourceError(f"weights {path}: a pack without models; pack them again")
    state = next(iter(models.values())) if len(models) == 1 else {}
    return WeightsFile(path, "pack", state, models, optimizers, extras)


def _plain(value: Mapping[Any, Any]) -> dict[str, Any]:
    """The entries that are numbers, texts, or short lists and dicts of them."""
    found = {str(key): _as_plain(one) for key, one in value.items()}
    return {key: one for key, one in found.items() if one is not _NOT_PLAIN}


def _others(value: Mapping[Any, Any]) -> tuple[str, ...]:
    """Names of the entries that are neither weights, nor an optimizer's
    state, nor plain.
    """
    models, _ = _find_models(dict(value))
    odd = [
        str(key)
        for key, one in value.items()
        if _as_plain(one) is _NOT_PLAIN and not _is_optimizer(one)
    ]
    return tuple(key for key in odd if _name_of(key) not in models and key != OPTIMIZER_LIST)


_NOT_PLAIN = object()


def _as_plain(value: Any, *, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        return value.item()
    if depth > 1 or not isinstance(value, list | tuple | dict) or len(value) > MOST_PLAIN_ITEMS:
        return _NOT_PLAIN
    inner = list(value.values()) if isinstance(value, dict) else list(value)
    plain = [_as_plain(one, depth=depth + 1) for one in inner]
    if any(one is _NOT_PLAIN for one in plain):
        return _NOT_PLAIN
    return dict(zip(map(str, value), plain, strict=True)) if isinstance(value, dict) else plain


def _explain(path: Path, head: bytes, place: str) -> str:
    """Why a file of another kind is refused."""
    kind = name_kind(head, path)
    with path.open("rb") as file:
        wanted = wanted_by_plain_pickle(file)
    if wanted:
        names = ", ".join(wanted[:8])
        return (
            f"{place} is refused: a plain pickle, not written by torch.save, that would run or "
            f"build {names}; nothing "
            "was run. Its owner can save the weights alone: torch.save(model.state_dict(), "
            "'weights.pt')"
        )
    return f"{place}: {kind.what}; {kind.remedy}"

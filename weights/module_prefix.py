"""What wrappers put before the keys of a state_dict, taken away or added as a
model needs it.

`torch.nn.DataParallel` and `DistributedDataParallel` keep the net as their part `module`,
torch.compile as `_orig_mod`; so their state_dicts have these words before every key.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from .torch_private import module_versions, set_module_versions

State = dict[str, Tensor]

WRAPPERS = ("module.", "_orig_mod.")
# A buffer that torch's AveragedModel adds beside its `module.` keys.
AVERAGED_COUNTER = "n_averaged"


def prefix_of(state: Iterable[str]) -> str:
    """What all keys begin with, up to and with a dot, such as `module.`,
    `model.` or `module.net.`; else empty.
    """
    keys = [key for key in state if key != AVERAGED_COUNTER]
    shared: list[str] = []
    for parts in zip(*(key.split(".")[:-1] for key in keys), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "".join(f"{part}." for part in shared)


def strip_module_prefix(state: Mapping[str, Tensor]) -> State:
    """Keys without the `module.` that DataParallel, DistributedDataParallel or
    torch.compile put before all of them.

    The counter that torch's AveragedModel keeps beside such keys goes too.
    """
    return _unwrapped(state)[-1]


def match_module_prefix(state: Mapping[str, Tensor], keys: Iterable[str]) -> State:
    """The state with `module.` taken away or added, whichever fits more of a
    model's keys; as it is where none does.

    Args:
        state: as saved; with or without the prefix.
        keys: of the model's state_dict.
    """
    wanted = set(keys)
    forms = _unwrapped(state)
    prefix = _wrapper_of(wanted)
    if prefix:
        forms.append(
            _renamed(
                forms[-1], lambda key: f"{prefix}{key}", lambda path: f"{prefix}{path}".rstrip(".")
            )
        )
    return max(forms, key=lambda form: len(wanted & form.keys()))  # the first of equal ones


def _unwrapped(state: Mapping[str, Tensor]) -> list[State]:
    """The state as it is, then without one wrapper after the other."""
    forms = [state if isinstance(state, dict) else dict(state)]
    while prefix := next((one for one in WRAPPERS if _has_prefix(forms[-1], one)), ""):
        kept = {key: value for key, value in forms[-1].items() if key != AVERAGED_COUNTER}
        bare = with_metadata_of(forms[-1], kept)
        forms.append(
            _renamed(
                bare,
                lambda key, prefix=prefix: key.removeprefix(prefix),
                lambda path, prefix=prefix: f"{path}.".removeprefix(prefix).rstrip("."),
            )
        )
    return forms


def _wrapper_of(keys: Iterable[str]) -> str:
    """All wrappers' prefixes of a model's keys, the outermost first."""
    inner, found = list(keys), ""
    while prefix := next((one for one in WRAPPERS if _has_prefix(inner, one)), ""):
        found += prefix
        inner = [key.removeprefix(prefix) for key in inner]
    return found


def _has_prefix(keys: Iterable[str], prefix: str) -> bool:
    relevant = [key for key in keys if key != AVERAGED_COUNTER]
    return bool(relevant) and all(key.startswith(prefix) for key in relevant)


def _renamed(
    state: State, rename_key: Callable[[str], str], rename_path: Callable[[str], str]
) -> State:
    """The same tensors under other keys, and the versions of the modules
    under their paths.
    """
    made: State = OrderedDict((rename_key(key), value) for key, value in state.items())
    if versions := module_versions(state):
        renamed = OrderedDict((rename_path(path), one) for path, one in versions.items())
        set_module_versions(made, renamed)
    return made


def with_metadata_of(source: object, state: State) -> State:
    """A state_dict with the versions of its modules, which some modules'
    loading looks at.
    """
    made: State = OrderedDict(state)
    versions = module_versions(source)
    if isinstance(versions, dict) and all(isinstance(one, dict) for one in versions.values()):
        set_module_versions(made, versions)
    return made

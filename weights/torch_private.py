"""The private part of torch's state_dicts, checked on torch 2.15.0.

tests/weights/test_torch_private.py fails where torch changes or drops it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# `Module.state_dict` keeps the versions of its modules as an attribute of the dictionary, and
# `Module.load_state_dict` looks there how to read what an older version saved. torch documents the
# attribute, but no way to carry it over to a changed copy of the dictionary.
METADATA = "_metadata"


def module_versions(state: object) -> Any:
    """The versions of a state_dict's modules by their paths, or None."""
    return getattr(state, METADATA, None)


def set_module_versions(state: object, versions: Mapping[str, Any]) -> None:
    """Set the versions of a state_dict's modules.

    Args:
        state: an `OrderedDict`, as a plain dictionary takes no attributes.
        versions: by the paths of the modules.
    """
    setattr(state, METADATA, versions)

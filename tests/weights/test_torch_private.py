"""torch still keeps the versions of modules where they are looked for, and reads them there."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import nn

from torchrelay.weights.torch_private import module_versions, set_module_versions


def test_a_state_dict_says_the_versions_of_its_modules() -> None:
    versions = module_versions(nn.Sequential(nn.BatchNorm1d(2)).state_dict())
    assert versions == {"": {"version": 1}, "0": {"version": 2}}


def test_loading_looks_at_the_versions_that_were_set() -> None:
    norm = nn.BatchNorm1d(2)
    state = OrderedDict(norm.state_dict())
    del state["num_batches_tracked"]  # which the first version of batch norms did not have
    set_module_versions(state, {"": {"version": 1}})
    norm.load_state_dict(state)
    set_module_versions(state, {"": {"version": 2}})
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        norm.load_state_dict(state)

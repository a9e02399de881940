from __future__ import annotations

import pytest

from torchrelay.datasets.kinds import kind_of
from torchrelay.kinds import KINDS


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_that_recipes_may_name_has_an_object_with_its_facts(name: str) -> None:
    assert kind_of(name).facts is KINDS[name]

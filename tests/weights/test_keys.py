from __future__ import annotations

import re

import pytest

from torchrelay.errors import RecipeError
from torchrelay.weights.keys import check_patterns, fits, match_keys

OWN = ["conv.weight", "conv.bias", "head.weight", "head.bias"]


def test_a_star_stands_for_any_text_and_dots() -> None:
    assert fits("layer1.0.conv1.weight", ["layer1.*"])
    assert fits("layer1.0.conv1.weight", ["*.weight"])
    assert not fits("layer10.weight", ["layer1.*"])
    assert fits("layer2.weight", ["layer[12].*"])


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_that_wrappers_put_before_the_keys_are_looked_through(wrapper: str) -> None:
    wrapped = [f"{wrapper}{key}" for key in OWN]
    expected = dict(zip(OWN, wrapped, strict=True))
    assert match_keys(OWN, wrapped, {}).source_of == expected
    if wrapper != "module._orig_mod.":  # the model itself is wrapped, the source is not
        assert match_keys(wrapped, OWN, {}).source_of == dict(zip(wrapped, OWN, strict=True))


def test_a_key_of_the_very_name_goes_before_one_behind_a_wrapper() -> None:
    matches = match_keys(["fc.weight"], ["module.fc.weight", "fc.weight"], {})
    assert matches.source_of == {"fc.weight": "fc.weight"}
    assert matches.surplus == ["module.fc.weight"]


@pytest.mark.parametrize(
    ("source", "rename", "expected"),
    [
        ("backbone.conv.weight", {"backbone.*": "*"}, "conv.weight"),
        ("module.backbone.conv.weight", {"backbone.*": "*"}, "conv.weight"),
        ("module.backbone.conv.weight", {"module.backbone.*": "*"}, "conv.weight"),
        ("fc.bias", {"fc.*": "head.*"}, "head.bias"),
        ("first", {"first": "conv.bias"}, "conv.bias"),
        ("a.conv.b.weight", {"a.*.b.*": "*.*"}, "conv.weight"),
        ("head.x.y", {"*.*": "*.bias"}, "head.bias"),  # as little as will do
        ("weight.of.head", {"*.of.*": "head.*"}, "head.weight"),
        ("x.head.bias", {"x.conv.*": "conv.*", "x.*": "*"}, "head.bias"),
    ],
)
def test_renaming_follows_the_first_pattern_that_fits(
    source: str, rename: dict[str, str], expected: str
) -> None:
    others = ["x.conv.weight"] if "x.conv.*" in rename else []
    matches = match_keys(OWN, [*others, source], rename)
    assert matches.source_of[expected] == source
    assert expected in matches.renamed


def test_a_renamed_key_goes_before_one_that_has_the_name_already() -> None:
    matches = match_keys(OWN, ["head.bias", "fc.bias"], {"fc.*": "head.*"})
    assert matches.source_of == {"head.bias": "fc.bias"}
    assert matches.surplus == ["head.bias"]


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (
            {"backbon.*": "*"},
            "warm_start.rename: 'backbon.*' fits no key of the source; did you mean backbone.*",
        ),
        (
            {"backbone.*": "convs.*"},
            "'backbone.*' leads to 'convs.weight', which is no key of the model; did you mean conv",
        ),
        (
            {"*.weight": "conv.weight"},
            "'backbone.weight' and 'fc.weight' of the source would both become 'conv.weight'",
        ),
    ],
)
def test_renaming_that_leads_nowhere_names_the_nearest(
    rename: dict[str, str], message: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        match_keys(OWN, ["backbone.weight", "fc.weight"], rename)


def test_a_pattern_that_fits_nothing_names_the_nearest_module_or_the_first_keys() -> None:
    check_patterns("warm_start.freeze", ["conv.*", "*.bias"], OWN)
    with pytest.raises(
        RecipeError,
        match=r"warm_start.freeze: 'con.\*' fits no key of the model; did you mean conv.\*",
    ):
        check_patterns("warm_start.freeze", ["con.*"], OWN)
    keys = [f"k{number}" for number in range(9)]
    with pytest.raises(RecipeError, match=r"there are k0, k1, k2, k3, k4, … \(9 keys\)$"):
        check_patterns("warm_start.freeze", ["zzzzzz"], keys)

"""What is refused of YAML before anything is built of it, and what stays as it was."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from torchrelay.errors import MOST_SHOWN, RecipeError, shown_value
from torchrelay.recipe.file import (
    MOST_RUNS,
    dump_recipe,
    load_recipe,
    parse_overrides,
    parse_recipe,
)
from torchrelay.recipe.model import Recipe
from torchrelay.recipe.yaml import MOST_BYTES, MOST_LEVELS, MOST_VALUES, check_bounds, parse_yaml

QUICK_SECONDS = (
    15  # of the processor; without bounds each of these takes minutes, or ends in a traceback
)
LETTERS = "abcdefghij"
ALIASES = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in itertools.pairwise(LETTERS)
)
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}], k{i}: 1}}\n" for i in range(1, 9)
)
BOMBS = {
    "aliases": (
        ALIASES,
        rf"has more than {MOST_VALUES:,} values by line 6, each alias counted as what it stands "
        rf"for",
    ),
    "aliases in arguments": (
        f"model: {{name: m, args: {{{', '.join(ALIASES.splitlines())}}}}}",
        r"has more than 200,000 values by line 1, each alias",
    ),
    "merges": (MERGES, r"has more than 200,000 values by line \d"),
    "900 brackets": (f"name: {'[' * 900}{']' * 900}", r"is nested deeper than 50 levels in line 1"),
    "20,000 brackets": (
        f"name: {'[' * 20_000}{']' * 20_000}",
        r"is nested deeper than 50 levels in line 1",
    ),
    "1,200 levels": (
        "".join(f"{' ' * level}k:\n" for level in range(1_200)),
        r"is nested deeper than 50 levels",
    ),
    "dashes": ("- " * 3_000 + "x", r"is nested deeper than 50 levels in line 1"),
    "levels below aliases": (
        "".join(f"a{i}: &a{i} {'[' * 9}{f'*a{i - 1}' if i else 'x'}{']' * 9}\n" for i in range(8)),
        r"is nested deeper than 50 levels in line 6",
    ),
    "inside of itself": (
        "model: {name: m, args: &e {x: *e}}",
        r"\*e in line 1 stands inside of what it stands for",
    ),
    "5,000 digits": (
        f"train: {{epochs: {'9' * 5_000}}}",
        r"a number of 5,000 digits, more than 100",
    ),
    "5,000 digits of a float": (f"train: {{ema: 0.{'9' * 5_000}}}", r"a number of 5,001 digits"),
    "a float that is none": (
        "train: {optimizer: {name: sgd, args: {lr: 1e99999}}}",
        r"'1e99999' is beyond what a num",
    ),
    "10 MB": (f"name: {'x' * 10_000_000}", r"is larger than 1,000,000 bytes"),
    "2 MB in letters of two bytes": ("é" * 1_000_000, r"is larger than 1,000,000 bytes"),
    "a list as a model": (
        f"model: [{','.join(['x' * 20] * 47_000)}]",
        r"model: got \['xxxx.* legal keys are name",
    ),
    "a long name": (
        f"name: {'x' * 900_000}",
        r"name: got 'xxxx.*should have at most 250 characters",
    ),
    "an unknown key": (f"{'k' * 1_000}: 1", r"unknown key kkk.*… \(value 1\)"),
    "many unknown keys": (
        "".join(f"key{i}: 1\n" for i in range(50_000)),
        r"(?s)unknown key key0 .*and 49,980 mistakes",
    ),
    "a tag of Python": (
        "name: !!python/object/apply:os.system [x]",
        r"could not determine a constructor",
    ),
    "bytes": ("name: !!binary aGFsbG8=", r"the tag 'tag:yaml.org,2002:binary'"),
    "a date by its tag": ("name: !!timestamp 2024-01-31", r"the tag 'tag:yaml.org,2002:timestamp'"),
    "no number by its tag": ("train: {epochs: !!int many}", r"'many' is tagged !!int and is none"),
    "sixties by a tag": ("train: {epochs: !!int 1:2:3}", r"'1:2:3' is tagged !!int and is none"),
    "no truth by its tag": (
        "train: {deterministic: !!bool maybe}",
        r"'maybe' is tagged !!bool and is none",
    ),
    "two documents": ("name: a\n---\nname: b", r"is not YAML: expected a single document"),
    "a tab": ("data:\n\ttable: x", r"is not YAML"),
    "a NUL": ("name: a\0b", r"is not YAML"),
    "no such anchor": ("name: *a", r"undefined alias"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_recipe_that_would_explode_is_refused_at_once_with_a_short_message(
    name: str, tmp_path: Path
) -> None:
    text, message = BOMBS[name]
    path = tmp_path / "r.yaml"
    path.write_text(text, "utf-8")
    started = time.process_time()
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert time.process_time() - started < QUICK_SECONDS
    assert len(str(caught.value)) < 20_000


def test_the_command_line_refuses_a_bomb_with_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(MERGES)
    limits = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))"
    code = (
        f"{limits}\nfrom torchrelay.cli import main\nimport sys\nsys.argv[1:] = ['recipe', "
        "'bomb.yaml']\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: recipe bomb.yaml has more than")
    assert "Traceback" not in done.stderr


def test_utf_16_and_a_folder_are_no_recipes(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes("name: x".encode("utf-16"))
    with pytest.raises(RecipeError, match=r"cannot be read as UTF-8 text"):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match=r"cannot be read as UTF-8 text: .*directory"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"cannot be read as UTF-8 text: .*null"):
        load_recipe("a\0b")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes("\ufeffname: x".encode())
    assert load_recipe(tmp_path / "r.yaml").name == "x"


@pytest.mark.parametrize("key", [".".join("x" * 3_000), ".".join(["model", "args", *"x" * 49])])
def test_an_override_of_too_many_parts_is_refused(key: str) -> None:
    with pytest.raises(
        RecipeError, match=r"--set (x\.x|model\.args).* parts, more than the 50 of any recipe"
    ) as caught:
        load_recipe("", None, parse_overrides([f"{key}=1"])[0])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            f"model.args={'[' * 900}{']' * 900}",
            r"--set model.args=\[\[.*… is nested deeper than 50 levels",
        ),
        (
            f"train.epochs={'9' * 5_000}",
            r"(?s)--set train.epochs=99.*… is not YAML: a number of 5,000 digits",
        ),
        (f"train.epochs {'9' * 5_000}", r"expected KEY=VALUE"),
    ],
)
def test_an_override_has_the_bounds_of_a_recipe(item: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("", None, parse_overrides([item])[0])
    assert len(str(caught.value)) < 500


def test_overrides_that_make_more_runs_than_anybody_means_are_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"these values make 10,000,000,000 runs, more than 1,000"
    ):
        parse_overrides([f"model.args.{letter}=0,1,2,3,4,5,6,7,8,9" for letter in LETTERS])
    assert len(parse_overrides(["a=1,2", "b=1,2"])) == 4
    assert MOST_RUNS == 1_000


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (nest(900), r"nested deeper than 50 levels"),
        (["x"] * (MOST_VALUES + 1), r"more than 200,000 values"),
        ("x" * (MOST_BYTES + 1), r"larger than 1,000,000 bytes"),
    ],
)
def test_a_recipe_that_prefect_hands_over_has_the_same_bounds(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate({"model": {"name": "m", "args": {"x": values}}})
    with pytest.raises(RecipeError, match=message):
        load_recipe("", None, {"model.args.x": values})


def test_values_that_contain_themselves_are_refused() -> None:
    values: dict[str, Any] = {}
    values["x"] = values
    with pytest.raises(RecipeError, match=r"nested deeper than 50 levels"):
        check_bounds(values, "it")
    check_bounds(nest(MOST_LEVELS), "it")


def test_what_two_aliases_stand_for_can_be_changed_apart(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("data: {inputs: {a: &x {kind: number, columns: [p]}, b: *x}}")
    inputs = load_recipe(path, None, {"data.inputs.a.columns.0": "q"}).data.inputs
    assert (inputs["a"].columns, inputs["b"].columns) == (["q"], ["p"])


def test_anchors_merges_and_tags_of_the_core_still_work() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: !!str 3}\nc: !!float 4\ne: !!null ''\nf: ~"
    found = parse_yaml(text, "it")
    assert found == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": "3"},
        "c": 4.0,
        "e": None,
        "f": None,
    }


def test_a_recipe_of_many_columns_is_read_and_written_and_read() -> None:
    columns = [f"column_{number:05}" for number in range(20_000)]
    recipe = Recipe.model_validate(
        {"data": {"inputs": {"x": {"kind": "number", "columns": columns}}}}
    )
    assert parse_recipe(dump_recipe(recipe)) == recipe


def test_a_long_or_deep_value_is_shortened_in_messages() -> None:
    for value in (
        "x" * 10_000,
        list(range(10_000)),
        nest(900),
        {str(i): i for i in range(500)},
        10**5_000,
        10**300,
    ):
        assert len(shown_value(value)) <= MOST_SHOWN + 2
    assert shown_value(["a", 1, {"b": None}]) == "['a', 1, {'b': None}]"

"""The recipe: what YAML and `--set` become, and what a mistake is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from torchrelay.errors import RecipeError
from torchrelay.recipe.file import dump_recipe, flatten, load_recipe, parse_overrides
from torchrelay.recipe.model import Feature, Named, Recipe, Train, nearest, recipe_schema

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "r.yaml"
        path.write_text(text, "utf-8")
        return path

    return write


# Mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nam: x", r"unknown key nam \(value 'x'\); did you mean name\?"),
        ("train: {epoch: 3}", r"unknown key train.epoch \(value 3\); did you mean epochs\?"),
        (
            "train: {optimizer: {nme: sgd, name: sgd}}",
            r"unknown key train.optimizer.nme .*did you mean name\?",
        ),
        (
            "data: {target: {y: {kind: number, colum: y}}}",
            r"data.target.y.colum \(value 'y'\); did you mean columns\?",
        ),
        ("train: {zzz: 1}", r"unknown key train.zzz .*legal are accumulate, augment, batch_size"),
        ("tracking: {registr: m}", r"unknown key tracking.registr .*did you mean register\?"),
        (
            "data: {inputs: {x: {kind: imag}}}",
            r"data.inputs.x.kind: 'imag' is not legal; did you mean image\?",
        ),
        (
            "train: {precision: half}",
            r"train.precision: 'half' is not legal; legal are auto, bf16, fp16, fp32, fp64",
        ),
        (
            "data: {inputs: {x: {columns: a}}}",
            r"data.inputs.x.kind is missing; legal keys of data.inputs.x are kind, ",
        ),
        ("train: {epochs: many}", r"train.epochs: got 'many'; input should be a valid integer"),
        ("train: {epochs: 0}", r"train.epochs: got 0; input should be greater than or equal to 1"),
        ("train: {optimizer: sgd}", r"train.optimizer: got 'sgd'; .*legal keys are name, args"),
        ("train:", r"train: got None; .*legal keys are epochs, batch_size"),
        (
            "data: {max_bad_rows: 1%}",
            r"data.max_bad_rows: got '1%'; input should be a valid number",
        ),
        (
            "data: {split: {valid: 0.6, test: 0.4}}",
            r"data.split.test: got 0.4; .*leave no rows to train on",
        ),
        (
            "data: {inputs: {x: {kind: image, size: [32]}}}",
            r"data.inputs.x.size: got \[32\]; expected \[height, width\]",
        ),
        (
            "data: {inputs: {x: {kind: image, channels: rgba}}}",
            r"channels: got 'rgba'; expected rgb, gray or a number",
        ),
        ("name: a\ntrain: {}\nname: b", r"(?s)key 'name' twice.*line 3"),
        ("? [a, b]\n: c", r"(?s)r.yaml is not YAML.*unhashable key"),
        (
            "model: !!python/name:os.system {}",
            r"(?s)r.yaml is not YAML.*could not determine a constructor",
        ),
        ("name: [a", r"(?s)r.yaml is not YAML.*line 1"),
        ("- name: a", r"expected keys such as name, data and model; got list"),
        (
            "format_version: 2",
            r"format_version 2, this torchrelay reads format_version 1; .*upgrade",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key_its_value_and_what_is_legal(
    write: Write, text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(write(text))
    assert "r.yaml" in str(caught.value)


def test_all_mistakes_are_named_at_once(write: Write) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("nam: x\ntrain: {epoch: 3, seed: a}\nmodel: {name: mlp, arg: {}}"))
    message = str(caught.value)
    assert all(key in message for key in ("nam", "train.epoch", "train.seed", "model.arg"))


def test_a_recipe_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text("name: mine")
    with pytest.raises(
        RecipeError, match=r"recipe nothing.yaml does not exist; recipes here: recipes/mine.yaml"
    ):
        load_recipe("nothing.yaml")


def test_a_recipe_that_is_not_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match=r"r.yaml cannot be read as UTF-8 text"):
        load_recipe(path)


def test_nearest_names_what_is_near_or_else_everything() -> None:
    assert nearest("adm", ["adam", "sgd"]) == "did you mean adam?"
    assert nearest("xyz", ["sgd", "adam"]) == "legal are adam, sgd"


# Scalars


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("5.", 5.0),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("true", True),
        ("null", None),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(write: Write, text: str, value: object) -> None:
    recipe = load_recipe(write(f"model: {{name: m, args: {{a: {text}}}}}"))
    assert recipe.model.args["a"] == value
    assert type(recipe.model.args["a"]) is type(value)


def test_a_feature_may_give_one_column_and_channels_as_a_number(write: Write) -> None:
    recipe = load_recipe(write("data: {inputs: {x: {kind: image, columns: path, channels: 4}}}"))
    assert recipe.data.inputs["x"].columns == ["path"]
    assert recipe.data.inputs["x"].channels == "4"


# Order and places


def test_fields_go_over_the_file_and_overrides_over_both(write: Write) -> None:
    path = write("name: file\ntrain: {epochs: 1, batch_size: 1, seed: 1}")
    fields = Recipe(train=Train(batch_size=2, seed=2))
    recipe = load_recipe(path, fields, {"train.seed": 3})
    assert (recipe.name, recipe.train.epochs, recipe.train.batch_size, recipe.train.seed) == (
        "file",
        1,
        2,
        3,
    )


def test_fields_replace_arguments_and_features_as_a_whole(write: Write) -> None:
    path = write(
        "model: {name: mlp, args: {hidden: [8]}}\ndata: {inputs: {x: {kind: image, size: [4, 4]}}}"
    )
    fields = Recipe.model_validate({"model": {"name": "mlp", "args": {"dropout": 0.5}}})
    fields = fields.model_copy(
        update={"data": fields.data.model_copy(update={"inputs": {"a": Feature(kind="number")}})}
    )
    recipe = load_recipe(path, fields)
    assert recipe.model.args == {"dropout": 0.5}
    assert list(recipe.data.inputs) == ["a"]


def test_paths_start_at_the_recipe_and_those_of_overrides_at_the_working_directory(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "r.yaml").write_text("data: {table: ../data/t.csv, files: images}")
    plain = load_recipe("recipes/r.yaml").data
    assert (plain.table, plain.files) == (str(tmp_path / "data" / "t.csv"), str(folder / "images"))
    assert load_recipe("recipes/r.yaml", None, {"data.table": "u.csv"}).data.table == str(
        tmp_path / "u.csv"
    )
    assert load_recipe("recipes/r.yaml", None, {"data": {"table": "u.csv"}}).data.table == str(
        tmp_path / "u.csv"
    )
    assert load_recipe("", Recipe.model_validate({"data": {"table": "v.csv"}})).data.table == str(
        tmp_path / "v.csv"
    )


def test_an_override_of_a_part_that_the_file_leaves_out_starts_from_the_defaults(
    write: Write,
) -> None:
    recipe = load_recipe(write("name: x"), None, {"train.optimizer.args.lr": 0.1})
    assert recipe.train.optimizer == Named(name="adamw", args={"lr": 0.1})


def test_an_override_reaches_into_a_list(write: Write) -> None:
    path = write("train: {augment: [{name: flip}, {name: crop, args: {padding: 4}}]}")
    recipe = load_recipe(path, None, {"train.augment.1.args.padding": 2})
    assert recipe.train.augment[1].args == {"padding": 2}
    with pytest.raises(
        RecipeError, match=r"--set train.augment.2.name: expected a position from 0 to 1, got '2'"
    ):
        load_recipe(path, None, {"train.augment.2.name": "flip"})


def test_an_override_of_a_key_that_does_not_exist_names_the_nearest(write: Write) -> None:
    with pytest.raises(
        RecipeError, match=r"unknown key train.epchs \(value 3\); did you mean epochs\?"
    ):
        load_recipe(write("name: x"), None, {"train.epchs": 3})
    with pytest.raises(RecipeError, match=r"--set name.first: name is 'x', which has no parts"):
        load_recipe(write("name: x"), None, {"name.first": "a"})


# --set


def test_several_values_give_one_set_of_overrides_for_each_combination() -> None:
    assert parse_overrides(["a=1,2", "b.c=x"]) == [{"a": 1, "b.c": "x"}, {"a": 2, "b.c": "x"}]
    several = parse_overrides(["a=1,2", "b=3,4"])
    assert several == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]
    assert parse_overrides([]) == [{}]


def test_commas_inside_brackets_and_quotes_do_not_split() -> None:
    assert parse_overrides(["a=[1, 2],[3]"]) == [{"a": [1, 2]}, {"a": [3]}]
    assert parse_overrides(["a={name: crop, args: {padding: 4}}"]) == [
        {"a": {"name": "crop", "args": {"padding": 4}}}
    ]
    assert parse_overrides(["a='x,y'"]) == [{"a": "x,y"}]


def test_values_of_set_are_yaml() -> None:
    assert parse_overrides(["a=1e-3", "b=no", "c=null", "d=k=v"]) == [
        {"a": 0.001, "b": "no", "c": None, "d": "k=v"}
    ]


@pytest.mark.parametrize("item", ["train.epochs", "=3", " =3"])
def test_an_item_without_key_or_value_is_refused(item: str) -> None:
    with pytest.raises(RecipeError, match=r"expected KEY=VALUE, for example --set train.epochs=3"):
        parse_overrides([item])


def test_a_value_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--set a=\[1 is not YAML"):
        parse_overrides(["a=[1"])


# Writing


def test_what_is_dumped_loads_as_the_same_recipe(write: Write) -> None:
    values: dict[str, Any] = {
        "name": "1e-3",
        "data": {
            "key": "null",
            "inputs": {"x": {"kind": "image", "channels": 4}},
            "split": {"column": "no"},
        },
        "model": {
            "name": "m",
            "args": {"a": 1e-5, "b": float("inf"), "c": "007", "d": [1, "2"], "e": "12", "f": None},
        },
        "tracking": {"register": "ü"},
    }
    recipe = Recipe.model_validate(values)
    assert load_recipe(write(dump_recipe(recipe))) == recipe


def test_flattening_names_every_leaf() -> None:
    flat = flatten(
        Recipe.model_validate({"name": "x", "model": {"name": "mlp", "args": {"hidden": [8, 8]}}})
    )
    assert flat["name"] == "x"
    assert flat["model.args.hidden"] == "[8, 8]"
    assert flat["train.optimizer.name"] == "adamw"
    assert flat["train.augment"] == "[]"
    assert flat["tracking.register"] == ""


def test_the_experiment_is_the_name_unless_it_is_given() -> None:
    assert Recipe(name="a").experiment == "a"
    assert Recipe.model_validate({"name": "a", "tracking": {"experiment": "b"}}).experiment == "b"


# JSON Schema


def test_the_schema_accepts_what_the_reader_accepts() -> None:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    feature = {"kind": "image", "columns": "path", "channels": 4}
    target = {"y": {"kind": "number", "columns": ["y0", "y*"]}}
    recipe = {
        "name": "x",
        "data": {"inputs": {"i": feature}, "target": target},
        "model": {"name": "mlp"},
        "tracking": {"register": "m"},
        "warm_start": {"freeze": "body.*", "exclude": ["head.*"]},
    }
    jsonschema.validate(recipe, schema)
    read = Recipe.model_validate(recipe)
    assert (read.warm_start.freeze, read.data.inputs["i"].columns) == (["body.*"], ["path"])
    for wrong in (
        {"nam": 1},
        {"train": {"epochs": 0}},
        {"train": {"precision": "half"}},
        {"tracking": {"register_as": ""}},
        {"warm_start": {"freeze": 3}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(recipe | wrong, schema)


def test_every_key_is_described_in_the_schema() -> None:
    schema = recipe_schema()
    parts = {"Recipe": schema, **schema["$defs"]}
    missing = [
        f"{part}.{key}"
        for part, content in parts.items()
        for key, field in content["properties"].items()
        if "description" not in field
        and "$ref" not in field  # a part is described where it is defined
    ]
    assert missing == []
    assert all("description" in part for part in parts.values())


def test_every_key_stands_in_the_documentation() -> None:
    text = (
        (Path(__file__).parents[2] / "docs" / "recipe.md")
        .read_text("utf-8")
        .partition("\n## Augmentation")[0]
    )
    documented = {
        key
        for row in re.findall(r"^\|(.*?)\|", text, re.MULTILINE)
        for key in re.findall(r"`(.+?)`", row)
    }
    keys = set(flatten(Recipe())) - {"data.inputs", "data.target"} | set(Feature.model_fields)
    keys = {key.removesuffix(".name").removesuffix(".args") or key for key in keys - {"name"}} | {
        "name"
    }
    assert keys | {"data.inputs.NAME", "data.target.NAME"} == documented


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_fit_the_schema_and_load(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text("utf-8")), recipe_schema())
    assert load_recipe(path).name == path.stem


# Limits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"train: {{seed: {2**70}}}", r"train.seed: got 1180591620717411303424; .* less than"),
        ("train: {seed: -9223372036854775809}", r"train.seed: got -9223372036854775809; "),
        (f"data: {{split: {{seed: {2**70}}}}}", r"data.split.seed: got 1180591620717411303424; "),
        (
            "data: {inputs: {i: {kind: image, channels: 99999999999999999999}}}",
            r"i.channels: got 99999999999999999999; ",
        ),
        (
            "data: {inputs: {i: {kind: image, channels: 65537}}}",
            r"i.channels: got .*a number of channels up to 65,536",
        ),
        (
            "data: {inputs: {i: {kind: image, channels: '²'}}}",
            r"i.channels: got '²'; expected rgb, gray or a number",
        ),
        (
            "data: {inputs: {i: {kind: image, size: [100000, 1]}}}",
            r"i.size.0: got 100000; .*less than or equal to 65536",
        ),
        (
            "data: {inputs: {i: {kind: image, size: [60000, 60000]}}}",
            r"i.size: got .*at most 268,435,456 pixels",
        ),
        ("data: {inputs: {i: {kind: image, size: [0, 8]}}}", r"i.size.0: got 0; "),
        ("data: {inputs: {t: {kind: text, ngrams: [1, 1000]}}}", r"t.ngrams.1: got 1000; "),
        (
            f"data: {{inputs: {{t: {{kind: text, min_count: {10**30}}}}}}}",
            r"t.min_count: got 10{30}; ",
        ),
        (
            f"data: {{inputs: {{t: {{kind: text, max_vocabulary: {10**30}}}}}}}",
            r"t.max_vocabulary: got 10{30}; ",
        ),
        (f"data: {{max_pixels: {10**30}}}", r"data.max_pixels: got 10{30}; "),
        (
            "data: {encoding: idna}",
            r"data.encoding: got 'idna'; no encoding that a table is written in",
        ),
        (
            "data: {encoding: punycode}",
            r"data.encoding: got 'punycode'; no encoding that a table is",
        ),
        (
            "data: {encoding: unicode_escape}",
            r"data.encoding: got 'unicode_escape'; no encoding that a table is",
        ),
        (
            "data: {encoding: undefined}",
            r"data.encoding: got 'undefined'; no encoding that a table is",
        ),
        ('data: {encoding: "a\\0b"}', r"data.encoding: got 'a\\x00b'; expected characters"),
        (
            'data: {delimiter: "\\n"}',
            r"data.delimiter: got '\\n'; expected one character that can be printed",
        ),
        ('data: {delimiter: "\\0"}', r"data.delimiter: got '\\x00'; expected one character"),
        ("data: {delimiter: '\"'}", r"data.delimiter: got '\"'; expected one character"),
        (
            "train: {num_workers: 100000}",
            r"train.num_workers: got 100000; .*less than or equal to 256",
        ),
        (
            f"train: {{epochs: {10**20}}}",
            r"train.epochs: got 10{20}; .*less than or equal to 2147483647",
        ),
        (f"train: {{batch_size: {10**20}}}", r"train.batch_size: got 10{20}; "),
        (f"train: {{accumulate: {10**20}}}", r"train.accumulate: got 10{20}; "),
        (f"train: {{early_stop_epochs: {10**20}}}", r"train.early_stop_epochs: got 10{20}; "),
        (f"checkpoint: {{keep: {10**20}}}", r"checkpoint.keep: got 10{20}; "),
        (
            "train: {max_minutes: .inf}",
            r"train.max_minutes: got inf; input should be a finite number",
        ),
        ("train: {max_minutes: 1e9}", r"train.max_minutes: got 1000000000.0; "),
        ("train: {ema: .nan}", r"train.ema: got nan; input should be a finite number"),
        ("train: {label_smoothing: .nan}", r"train.label_smoothing: got nan; "),
        ("train: {clip_norm: .inf}", r"train.clip_norm: got inf; "),
        ("data: {split: {test: .nan}}", r"data.split.test: got nan; "),
        ("tracking: {wait_seconds: .inf}", r"tracking.wait_seconds: got inf; "),
        ("tracking: {wait_seconds: 1e300}", r"tracking.wait_seconds: got 1e\+300; "),
        ("warm_start: {lr_factors: {a: .inf}}", r"warm_start.lr_factors.a: got inf; "),
        ('name: "a\\0b"', r"name: got 'a\\x00b'; expected characters that can be printed"),
        ('name: "a\\nb"', r"name: got 'a\\nb'; expected characters that can be printed"),
        (f"name: {'x' * 300}", r"name: got 'xxx.*at most 250 characters"),
        (
            f"tracking: {{experiment: {'x' * 300}}}",
            r"tracking.experiment: got 'xxx.*at most 250 characters",
        ),
        ('tracking: {register: "a\\eb"}', r"tracking.register: got 'a\\x1bb'; expected characters"),
        ('data: {inputs: {"a\\nb": {kind: number}}}', r"expected characters that can be printed"),
        (f"model: {{name: {'m' * 300}}}", r"model.name: got 'mmm.*at most 250 characters"),
    ],
)
def test_what_no_machine_or_library_takes_is_refused_with_the_limit(
    write: Write, text: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(text))


def test_the_largest_values_are_taken(write: Write) -> None:
    text = f"""
train: {{seed: {2**63 - 1}, num_workers: 256, epochs: {2**31 - 1}}}
data:
  delimiter: "\\t"
  encoding: utf-16
  inputs: {{i: {{kind: image, channels: 65536, size: [65536, 4096]}}}}
  split: {{seed: {-(2**63)}}}
"""
    recipe = load_recipe(write(text))
    assert recipe.train.seed == 2**63 - 1
    assert recipe.data.inputs["i"].channels == "65536"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from torchrelay.datasets.ingest.inherit import check_inputs, inherit
from torchrelay.datasets.ingest.prepare import InheritedSchema, Prepared, prepare_data
from torchrelay.datasets.pack import open_view
from torchrelay.errors import DataError
from torchrelay.recipe import Data
from torchrelay.schema import FeatureSchema, Schema
from torchrelay.settings import Home

WriteTable = Callable[..., str]
MakeData = Callable[..., Data]


def numbers(
    name: str = "x", columns: str = "ab", mean: float = 0.0, **more: object
) -> FeatureSchema:
    values = {
        "name": name,
        "kind": "number",
        "columns": [*columns],
        "shape": [len(columns)],
        "dtype": "float64",
    }
    return FeatureSchema.model_validate(
        {**values, "mean": [mean] * len(columns), "std": [2.0] * len(columns), **more}
    )


def classes(name: str, labels: str, num_columns: int = 0, **more: object) -> FeatureSchema:
    shape = [num_columns] if num_columns else []
    values = {"name": name, "kind": "category", "columns": [name], "shape": shape, "dtype": "int64"}
    counts = list(range(1, len(labels) + 1))
    return FeatureSchema.model_validate({**values, "classes": [*labels], "counts": counts, **more})


def texts(tokens: str, **more: object) -> FeatureSchema:
    values = {
        "name": "t",
        "kind": "text",
        "columns": ["t"],
        "shape": [0],
        "dtype": "int64",
        "tokens": "words",
    }
    counts = [3] * len(tokens)
    return FeatureSchema.model_validate(
        {**values, "classes": [*tokens], "counts": counts, "ngrams": [1, 1], **more}
    )


def picture(channels: int, size: int) -> FeatureSchema:
    return FeatureSchema(
        name="t", kind="image", columns=["t"], shape=[channels, size, size], dtype="uint8"
    )


def test_statistics_stay_the_sources_and_vocabularies_only_grow() -> None:
    fitted = Schema(
        inputs=[numbers(mean=5), classes("c", "wxz", 1), texts("qp")], targets=[classes("y", "acd")]
    )
    source = Schema(
        inputs=[numbers(mean=1), classes("c", "zy", 1), texts("pr")], targets=[classes("y", "cba")]
    )
    merged = inherit(fitted, source, "source")
    x, c, t = merged.inputs
    assert (x.mean, x.std) == ([1.0, 1.0], [2.0, 2.0])
    # Inputs keep all that the source knows; counts are those of the table.
    assert (c.classes, c.counts) == ([*"zywx"], [3, 0, 1, 2])
    assert (t.classes, t.counts) == ([*"prq"], [3, 0, 3])
    # A target keeps those that the table has.
    assert (merged.targets[0].classes, merged.targets[0].counts) == ([*"cad"], [2, 1, 3])
    assert (merged.num_outputs, merged.targets[0].shape) == (3, [])


def test_a_class_is_embedded_into_as_many_numbers_as_it_was() -> None:
    fitted = Schema(
        inputs=[classes("c", "abcdefghi", 1), texts("abcde")], targets=[classes("y", "ab")]
    )
    source = Schema(inputs=[classes("c", "ab", 1), texts("abc")], targets=[classes("y", "ab")])
    assert [feature.embedding_size for feature in fitted.inputs] == [5, 3]
    for statistics in ("source", "data"):
        once = inherit(fitted, source, statistics)
        for heir in (once, inherit(fitted, once, statistics)):
            assert [feature.embedding_size for feature in heir.inputs] == [1, 2]


def test_fitted_anew_nothing_else_is_taken_over() -> None:
    fitted = Schema(inputs=[numbers(mean=5), numbers("z", "c")], targets=[classes("y", "acd")])
    source = Schema(inputs=[numbers(mean=1)], targets=[classes("y", "cba")])
    assert inherit(fitted, source, "data") == fitted


def test_a_target_that_the_source_does_not_have_is_as_it_was_fitted() -> None:
    source = Schema(inputs=[numbers()], targets=[numbers("u", "uv", mean=4)])
    for target in (classes("u", "ab"), numbers("u", "vu", mean=9), classes("other", "ab")):
        fitted = Schema(inputs=[numbers()], targets=[target])
        assert inherit(fitted, source, "source").targets == [target]
    same = Schema(inputs=[numbers()], targets=[numbers("u", "uv", mean=9)])
    assert inherit(same, source, "source").targets[0].mean == [4.0, 4.0]


def test_of_one_target_each_the_names_do_not_count_and_of_several_they_do() -> None:
    one = Schema(inputs=[numbers()], targets=[classes("kind", "ba")])
    fitted = Schema(inputs=[numbers()], targets=[classes("label", "ab")])
    assert inherit(fitted, one, "source").targets[0].classes == [*"ba"]
    two = Schema(inputs=[numbers()], targets=[classes("kind", "ba"), classes("size", "sl")])
    fitted = Schema(inputs=[numbers()], targets=[classes("size", "ls"), classes("label", "ab")])
    assert [target.classes for target in inherit(fitted, two, "source").targets] == [
        [*"sl"],
        [*"ab"],
    ]


def test_entities_that_are_ranked_stay_the_same_for_inputs_and_target() -> None:
    def schema(entities: str) -> Schema:
        shared: dict[str, Any] = {"vocabulary": "entities"}
        inputs = [classes("head", entities, 1, **shared), classes("relation", "r", 1)]
        return Schema(inputs=inputs, targets=[classes("tail", entities, **shared)])

    merged = inherit(schema("abd"), schema("ca"), "source")
    assert merged.inputs[0].classes == merged.targets[0].classes == [*"cabd"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [numbers(columns="abc")],
            "data.inputs.x: its columns are a, b, c, of 'x' in the source of the warm start a, b;",
        ),
        (
            [classes("x", "ab", 2)],
            "its kind is 'category', of 'x' in the source of the warm start 'number'",
        ),
        (
            [numbers(dtype="float32")],
            "its dtype is 'float32', of 'x' in the source of the warm start 'float64'",
        ),
        ([numbers(), numbers("z")], "data.inputs has 2 features, the source of the warm start 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_both(
    inputs: list[FeatureSchema], message: str
) -> None:
    source = Schema(inputs=[numbers()], targets=[classes("y", "ab")])
    with pytest.raises(DataError, match=f"{message}.*warm_start.statistics: data"):
        inherit(Schema(inputs=inputs, targets=source.targets), source, "source")


def test_texts_and_images_may_stand_in_another_column_but_are_cut_and_stored_alike() -> None:
    source = Schema(inputs=[texts("ab")], targets=[classes("y", "ab")])
    moved = Schema(inputs=[texts("ab", columns=["words"])], targets=source.targets)
    assert inherit(moved, source, "source").inputs[0].columns == ["words"]
    with pytest.raises(
        DataError, match=r"its ngrams are 1, 2, of 't' in the source of the warm start 1, 1"
    ):
        inherit(
            Schema(inputs=[texts("ab", ngrams=[1, 2])], targets=source.targets), source, "source"
        )


def test_names_and_kinds_of_a_recipe_are_compared_before_the_table_is_read() -> None:
    source = Schema(inputs=[numbers()], targets=[classes("y", "ab")])
    check_inputs(Data.model_validate({"inputs": {"x": {"kind": "number"}}}), source)
    with pytest.raises(
        DataError, match=r"data.inputs has x \(text\), the source of the warm start x \(number\)"
    ):
        check_inputs(Data.model_validate({"inputs": {"x": {"kind": "text"}}}), source)


@pytest.mark.parametrize(
    ("asked", "feature", "message"),
    [
        (
            {"kind": "text", "ngrams": [1, 3]},
            texts("ab"),
            "its ngrams are 1, 3, of 't' in the source .* 1, 1",
        ),
        (
            {"kind": "category", "vocabulary": "v"},
            classes("t", "ab", 1),
            "its vocabulary is 'v', of 't' .* ''",
        ),
        (
            {"kind": "image", "size": [32, 32]},
            picture(3, 28),
            "its shape is 3, 32, 32, of 't' .* 3, 28, 28",
        ),
        (
            {"kind": "image", "size": [28, 28], "channels": 3},
            picture(1, 28),
            "its shape is 3, 28, 28, of 't' .* 1, 28",
        ),
        (
            {"kind": "image", "dtype": "uint16"},
            picture(3, 28),
            "its dtype is 'uint16', of 't' .* 'uint8'",
        ),
    ],
)
def test_what_a_recipe_says_of_its_inputs_is_compared_before_a_file_is_read(
    asked: dict[str, object], feature: FeatureSchema, message: str
) -> None:
    source = Schema(inputs=[feature], targets=[classes("y", "ab")])
    with pytest.raises(DataError, match=f"data.inputs.t: {message}.*warm_start.statistics: data"):
        check_inputs(Data.model_validate({"inputs": {"t": asked}}), source)


def test_a_recipe_that_does_not_say_the_size_of_images_is_not_refused_for_it() -> None:
    source = Schema(inputs=[picture(3, 28)], targets=[classes("y", "ab")])
    for asked in ({"kind": "image"}, {"kind": "image", "size": [28, 28]}):
        check_inputs(Data.model_validate({"inputs": {"t": asked}}), source)


def test_a_split_keeps_what_it_inherited_and_is_another_than_without(
    write_table: WriteTable, number_data: MakeData, home: Home
) -> None:
    few = number_data(write_table(["x0,x1,label", *["1,2,b", "3,4,c"] * 10], "few.csv"))
    more = number_data(
        write_table(["x0,x1,label", *["10,2,a", "30,4,c", "50,6,b"] * 10], "more.csv")
    )

    def schema_of(prepared: Prepared) -> Schema:
        return open_view(prepared.pack_dir, prepared.split_dir).schema

    source = schema_of(prepare_data(few, home))
    alone = prepare_data(more, home)
    heirs = [
        prepare_data(more, home, None, InheritedSchema(source, statistics))
        for statistics in ("source", "data")
    ]
    assert len({alone.split_dir, *(heir.split_dir for heir in heirs)}) == 3
    assert {heir.pack_dir for heir in heirs} == {alone.pack_dir}
    assert schema_of(heirs[0]).targets[0].classes == ["b", "c", "a"]
    assert schema_of(heirs[0]).inputs[0].mean == source.inputs[0].mean
    assert schema_of(heirs[1]) == schema_of(alone)
    assert prepare_data(more, home, None, InheritedSchema(source, "source")).reused

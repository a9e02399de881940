from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torchrelay.errors import DataError, RecipeError, SourceError
from torchrelay.recipe import Recipe, WarmStart, load_recipe
from torchrelay.schema import Schema
from torchrelay.settings import home
from torchrelay.tasks.assembly.preflight import check_recipe
from torchrelay.tasks.assembly.sources import doubts_about_settings, find_source, pin_source
from torchrelay.tasks.assembly.warm_start import Start, plan_start
from torchrelay.tasks.ingest import ingest_table
from torchrelay.tasks.runs import recipe_for_finetune
from torchrelay.upkeep.trials import dry_run
from torchrelay.weights import load_weights, save_weights, sha256_of

from ...conftest import WriteRecipe
from ..conftest import MakeRun

FEW, MORE = (["wasp", "bee"], ["red", "tan"]), (["ant", "wasp", "bee"], ["blue", "red", "tan"])


def plan(recipe_file: Path, source: object, **warm_start: Any) -> Start:
    recipe = load_recipe(recipe_file, None, {"warm_start": {"source": str(source), **warm_start}})
    check_recipe(recipe)
    start = plan_start(recipe, Schema.load(ingest_table.fn(recipe).first.split_dir / "schema.json"))
    assert start is not None
    return start


def whats(start: Start) -> dict[str, str]:
    return {entry.key or entry.source_key: entry.what for entry in start.entries}


def test_rows_go_by_label_where_statistics_and_order_are_fitted_anew(
    insect_recipe: WriteRecipe, make_run: MakeRun
) -> None:
    run_dir = make_run(insect_recipe("few", *FEW), "few")
    old = load_weights(run_dir / "weights" / "best.pt")
    start = plan(insect_recipe("more", *MORE), "few", statistics="data")
    # Sorted: ant, bee, wasp and, behind what is unseen, blue, red, tan.
    assert torch.equal(start.state["head.weight"][1:], old["head.weight"])
    assert torch.equal(start.state["colour.weight"][[0, 2, 3]], old["colour.weight"])
    assert start.source_sha256 == sha256_of(old)


@pytest.mark.parametrize(
    ("kind", "embedding", "num_special"),
    [("category", "encoders.1.columns.0.weight", 1), ("text", "encoders.1.bag.weight", 2)],
)
def test_embeddings_of_a_vocabulary_that_grew_keep_their_length_and_the_layers_behind_them(
    insect_recipe: WriteRecipe, make_run: MakeRun, kind: str, embedding: str, num_special: int
) -> None:
    def write(name: str, classes: list[str], colours: list[str]) -> Path:
        file = insect_recipe(name, classes, colours, model={"name": "mlp", "args": {"hidden": [4]}})
        file.write_text(file.read_text().replace("kind: category", f"kind: {kind}", 1))
        return file

    run_dir = make_run(write("few", *FEW), "few")
    colours = [
        "blue",
        "red",
        "tan",
        "grey",
        "black",
        "white",
    ]  # of which an embedding alone would have 3 numbers
    start = plan(write("more", MORE[0], colours), "few")
    old = load_weights(run_dir / "weights" / "best.pt")
    assert {key: what for key, what in whats(start).items() if what != "loaded"} == {
        embedding: "grown",
        "layers.3.weight": "grown",
        "layers.3.bias": "grown",
    }
    assert start.state[embedding].shape == (num_special + 6, 1)
    assert torch.equal(start.state[embedding][: num_special + 2], old[embedding])


def test_a_file_with_recipe_and_schema_near_it_knows_its_classes_and_one_alone_does_not(
    insect_recipe: WriteRecipe, make_run: MakeRun, tmp_path: Path
) -> None:
    run_dir = make_run(insect_recipe("few", *FEW), "few")
    weights, more = run_dir / "weights" / "best.pt", insect_recipe("more", *MORE)
    inside = plan(more, weights)
    assert (whats(inside)["head.weight"], inside.source.label) == ("grown", "few")
    own = tmp_path / "own"
    own.mkdir()
    for name in ("recipe.yaml", "schema.json", "weights/best.pt"):
        (own / Path(name).name).write_bytes((run_dir / name).read_bytes())
    beside = plan(more, own / "best.pt")
    assert (whats(beside)["head.weight"], beside.source.label) == ("grown", str(own / "best.pt"))
    assert (
        recipe_for_finetune(Recipe(), "", {}, str(own / "best.pt"), ["nets_with_norm"]).name
        == "few"
    )
    (tmp_path / "alone.pt").write_bytes(weights.read_bytes())
    alone = plan(more, "alone.pt")  # relative to the working directory
    assert {key for key, what in whats(alone).items() if what != "loaded"} == {
        "head.weight",
        "head.bias",
        "colour.weight",
    }
    assert {whats(alone)[key] for key in ("head.weight", "colour.weight")} == {"mismatch"}
    with pytest.raises(
        SourceError,
        match=r"the head of .*alone.pt is not the model's: "
        r"head.weight has \(3, 8\), there \(2, 8\)",
    ):
        plan(more, "alone.pt", grow_head=False)
    colours = insect_recipe(
        "colours", FEW[0], MORE[1]
    )  # vocabularies of inputs are no head, and grow anyhow
    assert whats(plan(colours, "alone.pt", grow_head=False))["colour.weight"] == "mismatch"


def test_a_file_saved_under_data_parallel_with_other_names_fits_after_renaming(
    insect_recipe: WriteRecipe, make_run: MakeRun, tmp_path: Path
) -> None:
    few = insect_recipe("few", *FEW)
    old = load_weights(make_run(few, "few") / "weights" / "best.pt")
    theirs = nn.ModuleDict({"trunk": nn.Module(), "fc": nn.Linear(8, 2)})
    theirs["trunk"].colour, theirs["trunk"].body = (
        nn.Embedding(3, 4),
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)),
    )
    renamed = {f"fc.{k[5:]}" if k.startswith("head.") else f"trunk.{k}": v for k, v in old.items()}
    theirs.load_state_dict(renamed)
    save_weights(
        {"state_dict": nn.DataParallel(theirs).state_dict(), "epoch": 3}, tmp_path / "theirs.pth"
    )
    start = plan(few, "theirs.pth", rename={"fc.*": "head.*", "trunk.*": "*"})
    assert set(whats(start).values()) == {"renamed"}
    assert sha256_of(start.state) == sha256_of(old)
    assert {entry.source_key.partition(".")[0] for entry in start.entries} == {"module"}
    with pytest.raises(
        RecipeError, match=r"warm_start.rename: 'trunks.\*' fits no key of the source; did you mean"
    ):
        check_recipe(
            load_recipe(
                few, None, {"warm_start": {"source": "theirs.pth", "rename": {"trunks.*": "*"}}}
            )
        )


def test_a_source_that_lacks_classes_is_refused_with_them_where_the_head_may_not_grow(
    insect_recipe: WriteRecipe, make_run: MakeRun
) -> None:
    few = insect_recipe("few", *FEW)
    make_run(few, "few")
    with pytest.raises(
        SourceError, match=r"the source few has no outputs for ant; warm_start.grow_head: true"
    ):
        plan(insect_recipe("more", *MORE), "few", grow_head=False)
    assert set(whats(plan(few, "few", grow_head=False)).values()) == {"loaded"}


def test_other_inputs_and_sources_that_are_not_there_are_refused_before_the_ingest(
    insect_recipe: WriteRecipe, number_recipe: WriteRecipe, make_run: MakeRun
) -> None:
    few = insect_recipe("few", *FEW)
    make_run(few, "few")
    recipe = load_recipe(number_recipe(), None, {"warm_start.source": "few"})
    with pytest.raises(
        DataError,
        match=r"data.inputs has x \(number\), the source .* x \(number\), colour \(category\)",
    ):
        check_recipe(recipe)
    for source, message in (
        ("fewer", "run 'fewer' does not exist"),
        ("no/such.pt", "no/such.pt does not exist"),
    ):
        with pytest.raises(SourceError, match=message):
            check_recipe(load_recipe(few, None, {"warm_start.source": source}))
    assert not list(home().runs.glob("numbers*"))


def test_the_source_is_pinned_to_what_it_means_now(
    insect_recipe: WriteRecipe, make_run: MakeRun
) -> None:
    few = insect_recipe("few", *FEW)
    weights = make_run(few, "few-20260101-000000-abcd") / "weights" / "best.pt"
    for named, pinned in (
        ("few-2026", "few-20260101-000000-abcd"),
        (str(weights), str(weights)),
        ("", ""),
    ):
        recipe = load_recipe(few, None, {"warm_start.source": named})
        assert pin_source(recipe).warm_start.source == pinned
    assert find_source(str(weights)).label == "few-20260101-000000-abcd"


def test_without_a_recipe_the_sources_own_is_taken_without_its_warm_start(
    insect_recipe: WriteRecipe, make_run: MakeRun, tmp_path: Path
) -> None:
    run_dir = make_run(insect_recipe("few", *FEW), "few")
    text = (run_dir / "recipe.yaml").read_text()
    (run_dir / "recipe.yaml").write_text(
        text.replace("freeze: []", "freeze: [body.*]").replace("source: ''", "source: older")
    )
    own = load_recipe(run_dir / "recipe.yaml")
    assert own.warm_start == WarmStart(source="older", freeze=["body.*"])
    insect_recipe("more", *MORE)
    changes = {"data.table": "more.csv", "warm_start.thaw_after": 2}
    resolved = recipe_for_finetune(Recipe(), "", changes, "few", ["nets_with_norm"])
    assert resolved.data.table == str(tmp_path / "more.csv")
    assert resolved.warm_start == WarmStart(source="few", thaw_after=2)
    assert resolved.train == own.train
    with pytest.raises(RecipeError, match=r"warm_start.source is missing"):
        recipe_for_finetune(Recipe(), str(tmp_path / "more.yaml"), {}, "")
    (tmp_path / "alone.pt").write_bytes((run_dir / "weights" / "best.pt").read_bytes())
    with pytest.raises(
        RecipeError,
        match=r"alone.pt is a weights file without a recipe.yaml.*finetune RECIPE --from alone.pt",
    ):
        recipe_for_finetune(Recipe(), "", {}, "alone.pt")


def test_a_dry_run_begins_with_the_sources_weights(
    insect_recipe: WriteRecipe, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    few = insect_recipe("few", *FEW)
    make_run(few, "few", seed=5)
    cold = dry_run(load_recipe(few))["losses"][0]
    assert dry_run(load_recipe(few, None, {"warm_start.source": "few"}))["losses"][0] != cold
    assert "warm start: 10 of 10 keys from few: 10 loaded" in capsys.readouterr().err


def test_settings_without_effect_are_doubted() -> None:
    def doubts(is_pretrained: bool = False, **settings: Any) -> str:
        return " | ".join(
            doubts_about_settings(WarmStart.model_validate(settings), 4, is_pretrained)
        )

    assert doubts(source="x", rename={"a": "b"}, freeze=["a.*"], thaw_after=3) == ""
    assert doubts(is_pretrained=True, freeze=["a.*"], lr_factors={"a.*": 2}) == ""
    assert "rename, exclude: without effect, because warm_start.source is empty" in doubts(
        rename={"a": "b"}, exclude=["a"]
    )
    assert "freezes weights that are as they were drawn" in doubts(freeze=["a.*"])
    assert "thaw_after: without effect, because nothing is frozen" in doubts(
        source="x", thaw_after=1
    )
    assert "4 epochs of 4: what is frozen stays so to the end" in doubts(
        source="x", freeze=["a.*"], thaw_after=4
    )

"""What `init` proposes about values: spellings, rare classes, few keys, numbers that may mean
that there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchrelay.datasets.ingest import prepare_data
from torchrelay.disk import read_json
from torchrelay.drafting.draft import Draft, draft_recipe
from torchrelay.drafting.survey import survey_table
from torchrelay.drafting.text import describe_draft, parse_draft, write_draft
from torchrelay.recipe import Recipe
from torchrelay.settings import home


def draft(lines: list[str], target: str = "") -> tuple[Recipe, str, Draft]:
    """The recipe of a table with these lines, its text in one line a comment, and the draft."""
    path = Path("table.csv").absolute()
    path.write_text("\n".join(lines) + "\n")
    found = draft_recipe(survey_table(path), target)
    text = write_draft(found, path.with_suffix(".yaml"))
    return parse_draft(text, path), text.replace("\n    # ", " ").replace("\n  # ", " "), found


def report_of(recipe: Recipe) -> dict[str, Any]:
    return read_json(prepare_data(recipe.data, home()).split_dir / "report.json")


@pytest.mark.parametrize(
    ("spellings", "rule", "said"),
    [
        (
            ["0", "1", "0.0", "1.0"],
            {"numbers": True},
            "4 spellings are taken for 2, with their rows: '0' (20) and",
        ),
        (["true", "TRUE", "false", "False"], {"numbers": True}, "'true' (20) and 'TRUE' (20)"),
        (
            ["cat", "Cat", "dog", "dog"],
            {"fold_case": True},
            "2 spellings are taken for 1, with their rows: 'cat' (20)",
        ),
        (
            ["cat", "cat ", "cat\u00a0", "dog"],
            {"strip": True},
            "'cat' (20) and 'cat ' (20) and 'cat\\xa0' (20)",
        ),
        (
            ["cat", "Cat ", "dog", "dog"],
            {"strip": True, "fold_case": True},
            "'cat' (20) and 'Cat ' (20)",
        ),
    ],
)
def test_look_alike_classes_are_proposed_as_one_with_their_counts(
    spellings: list[str], rule: dict[str, bool], said: str
) -> None:
    recipe, text, _ = draft(
        ["x,label", *(f"{row / 7:.2f},{spellings[row % 4]}" for row in range(80))]
    )
    labels = recipe.data.target["label"].labels.model_dump()
    assert {key: value for key, value in labels.items() if value} == rule
    assert said in text
    report = report_of(recipe)
    assert len(report["features"]["label"]["classes"]) == 2
    assert report["look_alikes"] == {}


def test_look_alike_categories_and_tags_are_proposed_as_one_too() -> None:
    tags = ["red;blue", "Red", "blue", "red;big;blue", "big", "red;big", "blue;big"]
    lines = [
        f"{row / 7:.2f},{['Oslo', 'oslo', 'Rome'][row % 3]},{tags[row % 7]}" for row in range(84)
    ]
    recipe, _, _ = draft(["x,city,tags", *lines])
    assert recipe.data.inputs["city"].labels.fold_case
    assert recipe.data.target["tags"].labels.fold_case


def test_capitals_and_small_letters_of_a_table_of_letters_stay_classes() -> None:
    recipe, text, _ = draft(["x,label", *(f"{row / 7:.2f},{'aAbB'[row % 4]}" for row in range(80))])
    assert not any(recipe.data.target["label"].labels.model_dump().values())
    assert "spellings" not in text


def test_rare_classes_are_kept_and_none_of_their_rows_is_bad() -> None:
    labels = ["a"] * 57 + ["b"] * 58 + ["c", "d", "e"]
    recipe, text, _ = draft(
        ["x,label", *(f"{row / 7:.2f},{label}" for row, label in enumerate(labels))]
    )
    assert (recipe.data.rare_classes, recipe.data.max_bad_rows) == ("keep", 0.01)
    assert "Column 'label' has classes of fewer than 10 rows: 'c' (1), 'd' (1), 'e' (1)." in text
    report = report_of(recipe)
    assert report["quarantined"]["rows"] == 0
    assert report["features"]["label"]["classes"]["e"] == {"train": 1, "valid": 0, "test": 0}


@pytest.mark.parametrize("has_id", [True, False])
def test_a_draft_of_two_yes_or_no_columns_has_sane_sides(has_id: bool) -> None:
    rng = np.random.default_rng(1)
    a, b, c = rng.integers(0, 2, (3, 300))
    yes = np.array(["no", "yes"])
    lines = [f"{row + 1},{yes[a[row]]},{yes[b[row]]},{yes[c[row] & a[row]]}" for row in range(300)]
    lines = ["row_id,smokes,drinks,ill", *lines]
    recipe, text, found = draft(
        lines if has_id else [line.split(",", 1)[1] for line in lines], "ill"
    )
    assert (recipe.data.key, recipe.data.split.repeats) == (
        ("row_id", "together") if has_id else ("", "apart")
    )
    assert "300 rows have 4 different inputs, too few to decide by" in text
    assert ("key" in [part for part, _ in describe_draft(found)]) == has_id
    report = report_of(recipe)
    train, valid, test = report["splits"].values()
    assert (190 <= train <= 230, 20 <= valid <= 42, 42 <= test <= 78) == (True, True, True)
    assert not [
        text for text in report["warnings"] if "different keys" in text or "same row" in text
    ]


def test_inputs_that_are_many_decide_the_split_themselves() -> None:
    recipe, _, _ = draft(["x,label", *(f"{row / 7:.2f},{'ab'[row % 2]}" for row in range(80))])
    assert (recipe.data.key, recipe.data.split.repeats) == ("", "together")


@pytest.mark.parametrize(
    ("cell", "every", "said"),
    [
        (
            "-999",
            20,
            "Column 'v': 10 cells say -999, all others 0 to 66.33. If that means that the number "
            "is missing",
        ),
        ("9999", 20, "10 cells say 9999, all others 0.33 to 66.33"),
        ("-99999999", 300, "Column 'v': 1 cell is"),
    ],
)
def test_a_number_that_may_say_that_there_is_none_is_hinted_at_and_not_assumed(
    cell: str, every: int, said: str
) -> None:
    rows = [
        f"{row / 7:.2f},{cell if row % every == 0 else f'{row / 3:.2f}'},{'ab'[row % 2]}"
        for row in range(200)
    ]
    recipe, text, found = draft(["u,v,label", *rows])
    assert said.replace("0 to", "0.33 to") in text
    assert (
        f"say missing_values: [{cell}], and missing: median at the input; nothing was assumed"
        in text
    )
    assert recipe.data.missing_values == []
    assert "hint" in [part for part, _ in describe_draft(found)]


@pytest.mark.parametrize("cell", ["-9", "0", "70"])
def test_numbers_near_the_others_are_no_hint(cell: str) -> None:
    rows = [
        f"{row / 7:.2f},{cell if row % 20 == 0 else f'{row / 3:.2f}'},{'ab'[row % 2]}"
        for row in range(200)
    ]
    assert draft(["u,v,label", *rows])[2].hints == []

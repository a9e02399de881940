from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from torchrelay.drafting.draft import draft_recipe
from torchrelay.drafting.points import FACE_NORMALISE_BY, FACE_SWAP, pair_sides
from torchrelay.drafting.survey import survey_table
from torchrelay.drafting.text import init_recipe, parse_draft, write_draft
from torchrelay.errors import DataError, RecipeError, TorchrelayError
from torchrelay.recipe import Recipe, load_recipe


def write_table(text: list[str], name: str = "table.csv") -> Path:
    path = Path(name).absolute()
    path.write_text("\n".join(text) + "\n")
    return path


def draft(table: Path, target: str = "") -> tuple[Recipe, str]:
    """The recipe of a table, and its text."""
    path = table.with_suffix(".yaml")
    text = write_draft(draft_recipe(survey_table(table), target), path)
    return parse_draft(text, path), text


def write_pictures(num: int, size: tuple[int, ...], seed: int = 0) -> list[str]:
    Path("images").mkdir(exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(num):
        Image.fromarray(generator.integers(0, 256, size, np.uint8)).save(f"images/{number}.png")
    return [f"{number}.png" for number in range(num)]


NUMBERS = ["x0,x1,y", *(f"{row / 7:.2f},{row % 5},{row * row / 3:.3f}" for row in range(60))]


def test_numbers_and_a_y_are_a_regression() -> None:
    recipe, text = draft(write_table(NUMBERS))
    assert (list(recipe.data.inputs), list(recipe.data.target)) == (["x"], ["y"])
    assert (recipe.data.inputs["x"].columns, recipe.data.target["y"].kind) == (["x*"], "number")
    assert recipe.model.name == "mlp"
    assert "# Column 'y', its name says so: a number" in text


def test_a_column_of_tags_is_learned_and_its_empty_cells_cost_no_row() -> None:
    tags = ["red", "blue;red", "", "blue", "red;big", "big"]
    recipe, text = draft(
        write_table(
            ["x0,x1,tags", *(f"{row / 7:.2f},{row / 3:.2f},{tags[row % 6]}" for row in range(60))]
        )
    )
    target = recipe.data.target["tags"]
    assert (target.kind, target.separator, recipe.data.max_bad_rows) == ("labels", ";", 0.01)
    assert (
        "# Column 'tags', its name says so: labels, as it holds several of 3 tags in a cell" in text
    )


def test_small_gray_pictures_are_enlarged_for_lenet_and_not_mirrored() -> None:
    names = write_pictures(12, (8, 8))
    recipe, _ = draft(
        write_table(["image,label", *(f"{name},{number % 3}" for number, name in enumerate(names))])
    )
    image = recipe.data.inputs["image"]
    assert (image.channels, image.size, recipe.model.name, recipe.train.augment) == (
        "gray",
        [32, 32],
        "lenet",
        [],
    )
    assert recipe.data.target["label"].kind == "category"
    assert Path(recipe.data.files).name == "images"


def test_photographs_are_mirrored_and_shrunk_in_their_proportion() -> None:
    names = write_pictures(8, (120, 240, 3))
    recipe, _ = draft(
        write_table(["photo,label", *(f"{name},{number % 2}" for number, name in enumerate(names))])
    )
    image = recipe.data.inputs["image"]
    assert (image.columns, image.channels, image.size) == (["photo"], "rgb", [96, 176])
    assert recipe.model.name == "torchvision:resnet18"
    assert recipe.train.augment[0].name == "flip"


def test_pictures_and_numbers_enter_one_net() -> None:
    names = write_pictures(8, (20, 20, 3))
    rows = [f"{name},{number / 3:.2f},{number % 2}" for number, name in enumerate(names)]
    recipe, _ = draft(write_table(["image,weight,label", *rows]))
    assert [feature.kind for feature in recipe.data.inputs.values()] == ["image", "number"]
    assert recipe.model.name == "cifar_net"


def points_table(num_points: int, points: Sequence[str] = ()) -> Path:
    names = write_pictures(6, (60, 60, 3))
    points = points or [f"part_{point}" for point in range(num_points)]
    header = ",".join(f"{point}_{axis}" for point in points for axis in "xy")
    rows = [
        ",".join([name, *(str(number % 60 + 1) for number in range(2 * num_points))])
        for name in names
    ]
    return write_table([f"image_name,{header}", *rows])


def test_68_points_on_pictures_get_the_pairs_of_the_face() -> None:
    recipe, text = draft(points_table(68))
    feature = recipe.data.target["points"]
    assert (feature.kind, feature.columns) == ("points", ["part_*"])
    assert (feature.swap, feature.normalise_by) == (FACE_SWAP, FACE_NORMALISE_BY)
    assert "300-W" in text
    assert [step.name for step in recipe.train.augment] == ["flip", "crop"]


def test_other_points_are_not_mirrored() -> None:
    recipe, text = draft(points_table(5))
    assert recipe.data.target["points"].swap == []
    assert "flip" not in [step.name for step in recipe.train.augment]
    assert "which points change places in a mirror is not known" in text


def test_points_named_left_and_right_change_places_and_pictures_are_mirrored() -> None:
    recipe, text = draft(points_table(4, ["left_eye", "nose", "right_eye", "chin"]))
    assert recipe.data.target["points"].swap == [[0, 2]]
    assert [step.name for step in recipe.train.augment] == ["flip", "crop"]
    said = text.replace("\n    # ", " ")
    assert (
        "differ by left and right alone, such as left_eye and right_eye; the others (nose, chin) "
        "are taken" in said
    )


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["mouth_left", "mouth_right", "LEFT_ear", "RIGHT_ear"], [[0, 1], [2, 3]]),
        (
            ["left_eye_left", "left_eye_right", "right_eye_left", "right_eye_right"],
            [[0, 3], [1, 2]],
        ),
        (
            ["l_eye", "r_eye", "eye2_L", "eye2_R", "hipL", "hipR", "lKnee", "rKnee"],
            [[0, 1], [2, 3], [4, 5], [6, 7]],
        ),
        (["lefteye", "righteye", "l1", "r1"], [[0, 1], [2, 3]]),
        (["mouth_l", "mouth_c", "mouth_r", "bright_spot"], [[0, 2]]),
        (["light", "right"], []),  # a side without its mate
        (["left_eye", "right_eye", "left_ear"], []),
        (["light", "night", "rung", "lung", "aloe", "aroe"], []),
        ([f"point_{letter}" for letter in "abcdefghijklmnopqrs"], []),  # letters that count
        (["left_eye", "right_ear"], []),
        (["0", "1", "2"], []),
    ],
)
def test_names_pair_by_their_sides_alone(names: list[str], pairs: list[list[int]]) -> None:
    assert pair_sides(names) == pairs


def test_the_pairs_of_the_face_are_a_mirror_of_its_points(root: Path) -> None:
    used = sorted(point for pair in FACE_SWAP for point in pair)
    assert len(set(used)) == len(used) == 58
    table = root / "data" / "faces" / "face_landmarks.csv"
    if not table.exists():
        pytest.skip("data/faces is not here")
    points = np.loadtxt(table, delimiter=",", skiprows=1, usecols=range(1, 137)).reshape(-1, 68, 2)
    mean = (points - points.mean(1, keepdims=True)) / points.std((1, 2), keepdims=True)
    face = mean.mean(0)
    order = np.arange(68)
    for left, right in FACE_SWAP:
        order[[left, right]] = right, left
    mirrored = face[order] * [-1, 1]
    assert (
        np.abs(mirrored - face).max() < 0.15
    )  # of the face's own deviation; a wrong pair is off by far more


def test_several_split_columns_are_a_run_each_and_one_is_taken_as_it_is() -> None:
    several = [
        f"{line},{'split_0,split_1' if not row else 'train,test' if row % 3 else 'test,train'}"
        for row, line in enumerate(NUMBERS)
    ]
    recipe, text = draft(write_table(several))
    assert recipe.data.split.column == "split_*"
    assert "2 columns say train, valid or test: one run for each" in text.replace("\n  #", "")
    one = [
        f"{line},{'part' if not row else ('train', 'val', 'test')[row % 3]}"
        for row, line in enumerate(NUMBERS)
    ]
    assert draft(write_table(one))[0].data.split.column == "part"


def test_rows_of_one_patient_stay_together_and_a_key_names_the_rows() -> None:
    lines = [
        f"{line},{'patient,id' if not row else f'p{row // 3},r{row * 3}'}"
        for row, line in enumerate(NUMBERS)
    ]
    recipe, text = draft(write_table(lines))
    assert (recipe.data.split.group, recipe.data.key) == ("patient", "id")
    assert list(recipe.data.inputs) == ["x"]
    assert "rows of one 'patient' stay on one side" in text


def test_few_groups_decide_no_split_and_are_no_input() -> None:
    lines = [f"{line},{'site' if not row else f's{row % 2}'}" for row, line in enumerate(NUMBERS)]
    recipe, text = draft(write_table(lines))
    assert recipe.data.split.group == ""
    assert "Not used: site (has 2 values that repeat" in text


def test_rows_of_one_picture_stay_together_where_they_have_other_inputs() -> None:
    names = write_pictures(8, (20, 20, 3)) * 2
    rows = [f"{name},{number / 3:.2f},{number % 2}" for number, name in enumerate(names)]
    assert draft(write_table(["image,weight,label", *rows]))[0].data.split.group == "image"
    alone = [f"{name},{number % 2}" for number, name in enumerate(names)]
    assert draft(write_table(["image,label", *alone], "alone.csv"))[0].data.split.group == ""


def test_columns_of_classes_are_a_target_each() -> None:
    lines = [f"{row / 7:.2f},{row % 2},{row // 2 % 2}" for row in range(60)]
    recipe, _ = draft(write_table(["a,y1,y2", *lines]))
    assert {name: feature.kind for name, feature in recipe.data.target.items()} == {
        "y1": "category",
        "y2": "category",
    }


def test_an_input_whose_name_is_taken_keeps_its_column() -> None:
    names = write_pictures(16, (20, 20, 3))
    rows = [
        f"{name},{('CT', 'MRI')[number // 2 % 2]},{number % 2}" for number, name in enumerate(names)
    ]
    recipe, _ = draft(write_table(["file,image,label", *rows]))
    assert {name: feature.columns for name, feature in recipe.data.inputs.items()} == {
        "image": ["file"],
        "image_2": ["image"],
    }


def test_empty_split_cells_raise_the_limit_and_rare_classes_are_kept() -> None:
    sides = ("train", "valid", "test", "train", "train", "")
    rows = [
        f"{row / 7:.2f},{'ab'[row % 2] if row < 58 else row},{sides[row % 6]}" for row in range(60)
    ]
    recipe, text = draft(write_table(["x,label,split", *rows]))
    assert recipe.data.max_bad_rows >= 12 / 60
    text = text.replace("\n  #", "")
    assert "10 cells of 'split' are empty" in text
    assert recipe.data.rare_classes == "keep"
    assert "Column 'label' has classes of fewer than 10 rows: '58' (1), '59' (1)" in text


def test_cells_that_are_no_number_cost_rows_and_not_the_column_until_they_are_many() -> None:
    header = ",".join([*(f"x{column}" for column in range(10)), "y"])
    rows = [
        ",".join(
            [
                *(
                    f"o{row}" if row == column else f"{row / 7 + column:.2f}"
                    for column in range(10)
                ),
                f"{row / 3:.2f}",
            ]
        )
        for row in range(60)
    ]
    recipe, text = draft(write_table([header, *rows]))
    [feature] = recipe.data.inputs.values()
    assert feature.columns == [f"x{column}" for column in range(6)]  # a tenth of 60 rows
    assert "1 cell of 'x0' is no number" in text


def test_the_reason_for_a_deep_net_is_the_one_that_it_was_chosen_by() -> None:
    names = write_pictures(12, (20, 20, 3))
    table = write_table(
        ["image,y", *(f"{name},{number / 3:.2f}" for number, name in enumerate(names))]
    )
    assert "Numbers to be told from pictures, here enlarged to 32 x 32." in draft(table)[1]


def test_points_are_named_among_what_could_be_learned() -> None:
    names = write_pictures(8, (60, 60, 3))
    rows = [f"{name},{number},{number + 1},{number % 2}" for number, name in enumerate(names)]
    with pytest.raises(
        DataError, match=r"could be label, eye_x, eye_y \(the 1 point of eye_x together\)"
    ):
        draft(write_table(["image,eye_x,eye_y,label", *rows]))


def test_missing_cells_raise_the_limit_and_mostly_empty_columns_are_left_out() -> None:
    lines = [
        f"{line},{'z' if not row else '' if row % 2 else row}".replace(f",{row * row / 3:.3f}", ",")
        if row in (4, 9)
        else f"{line},{'z' if not row else '' if row % 2 else row}"
        for row, line in enumerate(NUMBERS)
    ]
    lines = [
        line if row not in (4, 9) else ",".join([*line.split(",")[:2], "", ""])
        for row, line in enumerate(lines)
    ]
    recipe, text = draft(write_table(lines))
    assert recipe.data.max_bad_rows > 0.03
    assert "2 cells of 'y' are empty" in text
    assert "Not used: z" in text
    assert recipe.data.inputs["x"].columns == ["x*"]


def test_texts_are_counted_by_their_words_and_learned_by_logistic_regression() -> None:
    lines = [f"this is sentence number {row},{'de' if row % 2 else 'en'}" for row in range(400)]
    recipe, text = draft(write_table(["text,language", *lines]))
    assert (recipe.data.inputs["text"].kind, recipe.data.inputs["text"].tokens) == ("text", "words")
    assert (recipe.model.name, list(recipe.data.target)) == ("bag_of_words", ["language"])
    assert recipe.train.epochs == 60
    assert "400 distinct texts" in text
    assert "its words are counted" in text.replace("\n    # ", " ")


def test_texts_without_spaces_and_names_that_are_all_there_is_are_read_by_their_characters() -> (
    None
):
    lines = [
        f"{'これは文章です' if row % 2 else '我喜欢喝茶'}{row},{'ja' if row % 2 else 'zh'}"
        for row in range(40)
    ]
    recipe, _ = draft(write_table(["text,language", *lines], "unspaced.csv"))
    assert (recipe.data.inputs["text"].tokens, recipe.data.inputs["text"].ngrams) == (
        "characters",
        [1, 3],
    )
    names = [
        f"{'Ivan' if row % 2 else 'Maria'}{row},{'m' if row % 2 else 'f'}" for row in range(40)
    ]
    recipe, _ = draft(write_table(["person_name,sex", *names], "names.csv"))
    assert recipe.data.inputs["person_name"].tokens == "characters"
    lines = [f"{name},{row / 7}" for row, name in enumerate(names)]
    recipe, text = draft(write_table(["person_name,sex,x", *lines], "both.csv"))
    assert list(recipe.data.inputs) == ["x"]
    assert "kind: text with tokens: characters would read its letters" in text.replace(
        "\n  # ", " "
    )


def test_texts_beside_numbers_enter_a_perceptron() -> None:
    lines = [
        f"this is sentence number {row},{row / 7},{'de' if row % 2 else 'en'}" for row in range(40)
    ]
    recipe, _ = draft(write_table(["note,x,language", *lines]))
    assert {name: feature.kind for name, feature in recipe.data.inputs.items()} == {
        "x": "number",
        "note": "text",
    }
    assert recipe.model.name == "mlp"


def test_the_one_column_beside_texts_that_can_be_learned_is_the_target() -> None:
    lines = [f"this is sentence number {row},{row * row / 7:.3f}" for row in range(40)]
    recipe, text = draft(write_table(["review,rating", *lines]))
    assert (list(recipe.data.inputs), recipe.data.target["rating"].kind) == (["review"], "number")
    assert recipe.model.name == "bag_of_words"
    assert "the only column beside the texts that can be learned" in text.replace("\n    # ", " ")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["a,b", *(f"{row / 3:.2f},{row / 7:.2f}" for row in range(30))],
            r"it could be a, b; say which: .* --target b",
        ),
        (
            ["label,class,a", *(f"{row % 2},{row % 3},{row / 7}" for row in range(30))],
            r"it could be label, class;",
        ),
    ],
)
def test_a_table_that_does_not_say_what_to_learn_is_an_error_with_the_candidates(
    lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        draft(write_table(lines))
    assert caught.value.exit_code == 2


FACTS = [f"e{row % 20},{'of' if row % 2 else 'in'},e{(row * 7 + 1) % 20}" for row in range(60)]


@pytest.mark.parametrize(
    "header",
    [
        "head,relation,tail",
        "Subject,Predicate,Object",
        "h,r,t",
        "source,type,target",
        "who,what,whom",
    ],
)
def test_triples_are_recognised_by_their_names_or_by_the_values_that_two_columns_share(
    header: str,
) -> None:
    recipe, text = draft(write_table([header, *FACTS]))
    head, relation, tail = header.split(",")
    assert list(recipe.data.inputs) == [head, relation]
    assert (recipe.data.inputs[head].vocabulary, recipe.data.inputs[relation].vocabulary) == (
        "entities",
        "",
    )
    assert recipe.data.target[tail].vocabulary == "entities"
    assert recipe.model.name == "complex"
    assert "entities, of which there are 20" in text
    assert "hash of each fact decides" in text


@pytest.mark.parametrize(
    "lines",
    [
        ["a,b,label", *(f"{row % 9},{row % 7},{'xy'[row % 2]}" for row in range(60))],  # numbers
        [
            "colour,size,label",
            *(f"{'rgb'[row % 3]},{'sml'[row % 3]},{'xy'[row % 2]}" for row in range(60)),
        ],
        [
            "first,second,label",
            *(f"{'abcd'[row % 4]},{'abcd'[row % 3]},{'ab'[row % 2]}" for row in range(60)),
        ],
        [
            "source,type,x,target",
            *(f"{'wa'[row % 2]}eb,{'pqr'[row % 3]},{row / 7:.2f},{row % 2}" for row in range(60)),
        ],
        [
            "h,r,t,y",
            *(f"{row / 7:.3f},{row % 5},{row / 3:.2f},{row * row / 9:.3f}" for row in range(60)),
        ],
    ],
)
def test_columns_that_share_few_values_or_numbers_are_no_triples(lines: list[str]) -> None:
    recipe, _ = draft(write_table(lines))
    assert list(recipe.data.target) == [lines[0].rpartition(",")[2]]
    assert not any(feature.vocabulary for feature in recipe.data.inputs.values())


def test_the_target_can_be_named() -> None:
    table = write_table(NUMBERS)
    recipe, text = draft(table, target="x0")
    assert list(recipe.data.target) == ["x0"]
    assert "named by --target" in text
    with pytest.raises(RecipeError, match="has no such column; did you mean y"):
        draft(table, target="yy")
    text_table = write_table(
        ["x,note", *(f"{row / 3:.2f},some words {row} and more" for row in range(20))], "notes.csv"
    )
    with pytest.raises(
        DataError,
        match="--target note: that column cannot be learned, as it holds 20 distinct texts",
    ):
        draft(text_table, target="note")


def init(table: Path, **changes: Any) -> Path:
    return init_recipe(table, **{"files": None, "target": "", "force": False, **changes})[0]


def test_a_recipe_that_is_there_stays_unless_forced() -> None:
    table = write_table(NUMBERS)
    path = init(table)
    assert path == table.with_suffix(".yaml")
    path.write_text("mine")
    with pytest.raises(RecipeError, match=r"table.yaml is there already; --force writes over it"):
        init(table)
    assert path.read_text() == "mine"
    init(table, force=True)
    assert load_recipe(path).name == "table"
    assert [entry.name for entry in Path().iterdir() if entry.name.startswith(".")] == []


def test_a_recipe_goes_where_out_says_and_finds_its_table_from_there() -> None:
    table = write_table(NUMBERS)
    Path("deep/er").mkdir(parents=True)
    Path("link").symlink_to("deep/er", target_is_directory=True)
    for place in (Path("deep/mine.yaml"), Path("link/mine.yaml")):
        assert init(table, out=place) == place
        assert load_recipe(place).data.table == str(table)
    assert not table.with_suffix(".yaml").exists()


@pytest.mark.parametrize(
    ("place", "force", "message"),
    [
        ("there.yaml", False, "there.yaml is there already; --force writes over it"),
        ("table.csv", True, "table.csv is the table that is read; name another file with --out"),
        ("folder", True, "folder is a folder; name a file with --out, such as folder/table.yaml"),
        (
            "nowhere/mine.yaml",
            False,
            "the folder nowhere is not there; make it, or name another place with --out",
        ),
    ],
)
def test_a_place_that_can_hold_no_recipe_is_an_error_before_anything_is_written(
    place: str, force: bool, message: str
) -> None:
    table = write_table(NUMBERS)
    Path("there.yaml").write_text("mine")
    Path("folder").mkdir()
    with pytest.raises(RecipeError, match=re.escape(message)):
        init(table, out=Path(place), force=force)
    assert Path("there.yaml").read_text() == "mine"
    assert table.read_text().splitlines() == NUMBERS
    assert sorted(entry.name for entry in Path().iterdir()) == ["folder", "table.csv", "there.yaml"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "absent.csv is not there; correct the argument TABLE"),
        (
            "header.csv",
            b"a,label\n",
            "has a header and no rows; add rows, or name another table with the argument TABLE",
        ),
        ("one.csv", b'"a,b;c"\n1\n2\n', "which column is to be learned?"),
        (
            "cut.csv",
            "a,b\n1,2\n".encode("utf-16") + b"\0",
            "it is cut short, or of another encoding: save it again",
        ),
    ],
)
def test_a_broken_table_is_told_to_a_user_who_has_no_recipe(
    name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(message)) as error:
        init(Path(name))
    assert "data." not in str(error.value)


def test_names_that_yaml_would_read_as_something_else_survive() -> None:
    lines = [
        "1e3,null,true",
        *(f"{row / 3:.2f},{row / 9:.2f},{'no' if row % 2 else 'yes'}" for row in range(20)),
    ]
    recipe, _ = draft(write_table(lines, "12.csv"), target="true")
    assert recipe.name == "12"
    assert recipe.data.inputs["numbers"].columns == ["1e3", "null"]
    assert list(recipe.data.target) == ["true"]


def test_hostile_tables_are_errors_and_never_tracebacks() -> None:
    for number, text in enumerate(
        (["a"], ["a,b"], ["a,b", ","], ["a,b", "1,1", "1,1"], ["a,a", "1,2"])
    ):
        with pytest.raises(TorchrelayError):
            draft(write_table(text, f"{number}.csv"))


@pytest.mark.parametrize("cell", ["", "#N/A", "NaN", "?", ".", "unknown"])
def test_a_column_that_lacks_one_number_of_twenty_is_an_input_and_filled(cell: str) -> None:
    rows = [
        f"{row / 7:.2f},{cell if row % 20 == 0 else f'{row / 3:.2f}'},{'ab'[row % 2]}"
        for row in range(100)
    ]
    recipe, text = draft(write_table(["u,v,label", *rows]))
    [feature] = recipe.data.inputs.values()
    assert (feature.columns, feature.missing) == (["u", "v"], "median")
    assert recipe.data.missing_values == (["unknown"] if cell == "unknown" else [])
    assert recipe.data.max_bad_rows == 0.01
    assert "5 cells are missing (v): the median of the training rows stands there" in text.replace(
        "\n    # ", " "
    )


def test_a_column_that_lacks_most_of_its_numbers_is_no_input() -> None:
    rows = [
        f"{row / 7:.2f},{'' if row % 4 else f'{row / 3:.2f}'},{'ab'[row % 2]}" for row in range(100)
    ]
    recipe, text = draft(write_table(["u,v,label", *rows]))
    assert recipe.data.inputs["u"].missing == "reject"
    assert "v (75 cells are empty, more than half of all)" in text

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from torchrelay.drafting.draft import draft_recipe
from torchrelay.drafting.survey.table import common_pattern, survey_table
from torchrelay.drafting.text import parse_draft, write_draft
from torchrelay.errors import DataError
from torchrelay.recipe import load_recipe

from ...datasets.conftest import WritePictures, WriteTable


def roles(table: str) -> dict[str, str]:
    return {name: column.role for name, column in survey_table(Path(table)).columns.items()}


def test_each_column_is_told_by_its_cells(write_table: WriteTable) -> None:
    lines = ["id,no,a,b,const,colour,note,split"]
    for row in range(40):
        split = ("train", "train", "Valid", "test")[row % 4]
        lines.append(
            f"k{row * 7},{row},{row / 7:.3f},{row % 3},1,{'red' if row % 2 else 'blue'},this is "
            f"text no {row},{split}"
        )
    assert roles(write_table(lines)) == {
        "id": "key",
        "no": "id",
        "a": "number",
        "b": "category",
        "const": "constant",
        "colour": "category",
        "note": "text",
        "split": "split",
    }


def test_a_column_of_numbers_that_is_lost_shows_a_cell_that_is_none(
    write_table: WriteTable,
) -> None:
    lines = [
        f"{row / 7:.3f},{('n.d.', 'lost')[row % 2] if row % 9 > 6 else -row / 7}"
        for row in range(90)
    ]
    column = survey_table(Path(write_table(["a,b", *lines]))).columns["b"]
    assert column.why.endswith("in 90 rows, for example 'lost', which is no number")


def test_cells_of_several_tags_are_told_from_places_sentences_and_categories(
    write_table: WriteTable,
) -> None:
    tags = ["red", "blue, red", "", "blue", "red, big, blue", "big"]
    places = ["Oslo, Norway", "Rome, Italy"]
    lines = ["genre\tplace\tsaid\tkind\tpiped"]
    for row in range(60):
        cells = [
            tags[row % 6],
            places[row % 2],
            f"Well, {row}, so it is",
            "a, b" if row % 2 else "c",
        ]
        lines.append("\t".join([*cells, tags[row % 6].replace(", ", "|")]))
    columns = survey_table(Path(write_table(lines, "table.tsv"))).columns
    assert {name: (column.role, column.separator) for name, column in columns.items()} == {
        "genre": ("labels", ","),
        "place": ("category", ""),
        "said": ("text", ""),
        "kind": ("category", ""),
        "piped": ("labels", "|"),
    }
    assert columns["genre"].why == "holds several of 3 tags in a cell, with ',' between them"


def test_words_for_missing_are_missing_among_numbers_and_names_among_names(
    write_table: WriteTable,
) -> None:
    rows = [f"{'NA' if row % 10 == 0 else row / 3},{'NA' if row % 2 else 'x'}" for row in range(40)]
    columns = survey_table(Path(write_table(["a,b", *rows]))).columns
    assert (columns["a"].role, columns["a"].num_missing) == ("number", 4)
    assert (columns["b"].role, columns["b"].num_missing, columns["b"].num_values) == (
        "category",
        0,
        2,
    )


def test_pictures_are_found_below_a_folder_beside_the_table(
    write_table: WriteTable, write_pictures: WritePictures, tmp_path: Path
) -> None:
    names = [f"{number}.png" for number in range(6)]
    write_pictures(names, size=(20, 30))
    survey = survey_table(
        Path(
            write_table(
                ["file,label", *(f"{name},{name[0] > '2'}" for name in names), "gone.png,True"]
            )
        )
    )
    assert survey.files == tmp_path / "images"
    assert survey.num_bad_files == 1
    assert survey.pictures is not None
    assert (survey.pictures.channels, survey.pictures.bits, survey.pictures.same_size) == (
        3,
        8,
        True,
    )
    assert (survey.pictures.height, survey.pictures.width) == (20, 30)


def test_paths_that_lead_nowhere_are_an_error_that_names_the_option(
    write_table: WriteTable,
) -> None:
    with pytest.raises(
        DataError, match=r"'image' names pictures such as '0.png', and 0 of 2 .* --files DIR"
    ):
        survey_table(Path(write_table(["image,label", "0.png,a", "1.png,b"])))


@pytest.mark.parametrize(
    ("before", "what"), [("/elsewhere/", "absolute paths"), ("../", r"paths with \.\.")]
)
def test_paths_that_leave_the_folder_are_an_error(
    write_table: WriteTable, write_pictures: WritePictures, tmp_path: Path, before: str, what: str
) -> None:
    write_pictures(["0.png", "1.png"])
    before = f"{tmp_path}/images/" if before[0] == "/" else f"../{tmp_path.name}/images/"
    table = write_table(["image,a,label", f"{before}0.png,1.5,a", f"{before}1.png,2.5,b"])
    with pytest.raises(
        DataError, match=f"'image' holds {what} such as .*0.png'; expected paths relative to"
    ):
        survey_table(Path(table))


def test_files_that_are_no_pictures_are_counted_and_an_error_where_all_are(
    write_table: WriteTable,
    write_pictures: WritePictures,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_pictures(["0.png", "1.png"], size=(8, 8))
    write_pictures(["2.png"], size=(80, 80))
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 1000
    )  # of more than twice as many Pillow makes an error
    table = Path(write_table(["image,y", "0.png,1", "1.png,2", "2.png,3"]))
    assert survey_table(table).num_unread == 1
    for name in ("0.png", "1.png", "2.png"):
        (tmp_path / "images" / name).write_text("no picture")
    with pytest.raises(
        DataError, match=r"no file that was looked at is a picture; one is .*0.png, which is a text"
    ):
        survey_table(table)


def test_arrays_are_read_with_their_channels_last(write_table: WriteTable, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    table = Path(write_table(["image,y", "0.npy,1", "1.npy,2"]))
    for number in range(2):
        np.save(tmp_path / "images" / f"{number}.npy", np.zeros((8, 9, 20), np.uint8))
    pictures = survey_table(table).pictures
    assert pictures is not None
    assert (pictures.channels, pictures.height, pictures.width) == (20, 8, 9)
    np.save(tmp_path / "images" / "0.npy", np.zeros((2, 8, 9), np.uint8))
    with pytest.raises(
        DataError, match=r"0.npy: an array of shape \(2, 8, 9\), which looks like channels, height"
    ):
        survey_table(table)


def test_tiffs_whose_pages_are_the_rows_of_a_picture_are_an_error(
    write_table: WriteTable, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    table = Path(write_table(["image,y", "0.tif,1", "1.tif,2"]))
    for number in range(2):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", np.zeros((20, 30, 2), np.uint8))
    with pytest.raises(
        DataError, match=r"0.tif: a TIFF of 20 pages of 30 x 2 pixels, .*planarconfig='contig'"
    ):
        survey_table(table)
    write_table(
        ["image,y", "0.tif,1", "2.tif,2", "3.tif,3"]
    )  # one such file among others is a bad row
    for number in (2, 3):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", np.zeros((20, 30), np.uint8))
    pictures = survey_table(table).pictures
    assert pictures is not None
    assert pictures.channels == 1


def test_a_column_named_like_a_split_is_read_as_one_or_not_at_all(write_table: WriteTable) -> None:
    words = [("training", "dev", "testing")[row % 3] for row in range(30)]
    lines = [f"{row / 7:.2f},{word},{row % 5},{'ab'[row % 2]}" for row, word in enumerate(words)]
    survey = survey_table(Path(write_table(["a,part,fold,subset", *lines])))
    assert [survey.columns[name].role for name in ("part", "fold", "subset")] == [
        "split",
        "parts",
        "parts",
    ]
    assert (
        survey.columns["subset"].why
        == "is named like a split and says a, b; only train, valid and test are read"
    )
    assert (survey.train_fraction, survey.has_valid) == (pytest.approx(1 / 3), True)


def test_empty_cells_are_no_class_and_rows_of_classes_are_counted(write_table: WriteTable) -> None:
    labels = ["a"] * 20 + ["b"] * 10 + ["c", "c", "d", "", ""]
    survey = survey_table(
        Path(write_table(["x,label", *(f"{row / 7},{label}" for row, label in enumerate(labels))]))
    )
    assert survey.classes["label"].counts == {"a": 20, "b": 10, "c": 2, "d": 1}
    assert survey.columns["label"].num_missing == 2


def test_one_cell_that_is_no_number_among_many_is_a_bad_row_of_numbers(
    write_table: WriteTable,
) -> None:
    rows = [
        f'{"x" if row == 5 else row / 3:},{"x" if row < 5 else row / 3},"{row},5"'
        for row in range(60)
    ]
    columns = survey_table(Path(write_table(["a,b,c", *rows]))).columns
    assert (columns["a"].role, columns["a"].num_missing, columns["a"].num_odd) == ("number", 1, 1)
    # One word that stands there again and again says that there is no number.
    assert (columns["b"].role, columns["b"].num_odd, columns["b"].odd_word) == ("number", 5, "x")
    assert (columns["c"].role, columns["c"].why) == (
        "comma",
        "holds numbers with a decimal comma such as '0,5', '1,5', as other columns do not",
    )


def test_channels_and_bits_are_those_of_the_files(write_table: WriteTable, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(3):
        tifffile.imwrite(
            tmp_path / "images" / f"{number}.tif", np.zeros((2, 8, 9), np.uint16) + number
        )
    pictures = survey_table(
        Path(write_table(["image,y", "0.tif,1", "1.tif,2", "2.tif,3"]))
    ).pictures
    assert pictures is not None
    assert (pictures.channels, pictures.bits, pictures.height, pictures.width) == (2, 16, 8, 9)


def test_colour_files_without_colours_are_gray(write_table: WriteTable, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for number in range(2):
        Image.fromarray(np.stack([gray] * 3, 2)).save(tmp_path / "images" / f"{number}.png")
    pictures = survey_table(Path(write_table(["image,y", "0.png,1", "1.png,2"]))).pictures
    assert pictures is not None
    assert pictures.channels == 1


def test_pairs_of_x_and_y_are_points_where_there_are_pictures(
    write_table: WriteTable, write_pictures: WritePictures
) -> None:
    write_pictures(["0.png", "1.png"])
    header = "eye_x,eye_y,nose_x,nose_y,size"
    with_pictures = roles(
        write_table([f"image,{header}", "0.png,1,2,3,4,5.5", "1.png,2,3,4,5,6.5"])
    )
    assert [name for name, role in with_pictures.items() if role == "points"] == header.split(",")[
        :4
    ]
    by_axis = "x0,y0,x1,y1,x_eye,y_eye"
    numbered = roles(
        write_table([f"image,{by_axis}", "0.png,1,2,3,4,5,6", "1.png,2,3,4,5,6,7"], "axis.csv")
    )
    assert [name for name, role in numbered.items() if role == "points"] == by_axis.split(",")
    lone = roles(write_table(["image,x1,y1", "0.png,1,2", "1.png,2,3"], "lone.csv"))
    assert "points" not in lone.values()
    without = roles(write_table([header, "1,2,3,4,5.5", "2,3,4,5,6.5"], "other.csv"))
    assert "points" not in without.values()


@pytest.mark.parametrize(
    ("text", "encoding", "delimiter"),
    [
        ("ä;b\n1;2\n2;3\n", "latin-1", ";"),
        ("ä\tb\n1\t2\n2\t3\n", "utf-8", "\t"),
        ("ä,b\n1,2\n2,3\n", "utf-16", ""),
    ],
)
def test_encoding_and_delimiter_are_tried(
    write_table: WriteTable, text: str, encoding: str, delimiter: str
) -> None:
    survey = survey_table(Path(write_table(text.encode(encoding))))
    assert list(survey.columns) == ["ä", "b"]
    assert (survey.dialect.encoding, survey.dialect.delimiter) == (encoding, delimiter)


def test_a_pattern_fits_its_columns_and_no_other() -> None:
    assert common_pattern(["x0", "x1"], ["x0", "x1", "y"]) == "x*"
    assert common_pattern(["split_0", "split_1"], ["split_0", "y", "split_1"]) == "split_*"
    assert common_pattern(["x0", "x1"], ["x0", "x1", "xtra"]) == ""
    assert common_pattern(["a", "b"], ["a", "b"]) == ""


def linked(tmp_path: Path, write_pictures: WritePictures) -> list[str]:
    """A table's lines whose pictures are links in files/ into a cache beside it."""
    names = [f"{number}.png" for number in range(6)]
    write_pictures(names)
    (tmp_path / "images").rename(tmp_path / "cache")
    (tmp_path / "work" / "files").mkdir(parents=True)
    for name in names:
        (tmp_path / "work" / "files" / name).symlink_to(tmp_path / "cache" / name)
    return ["file,label", *(f"{name},{name[0] > '2'}" for name in names)]


def test_links_into_a_cache_are_looked_at_and_proposed(
    tmp_path: Path, write_table: WriteTable, write_pictures: WritePictures
) -> None:
    lines = linked(tmp_path, write_pictures)
    survey = survey_table(Path(write_table(lines, "work/table.csv")))
    assert survey.files == tmp_path / "work" / "files"
    assert (survey.links, survey.num_bad_files) == ([str(tmp_path / "cache")], 0)
    draft = draft_recipe(survey)
    path = tmp_path / "work" / "table.yaml"
    text = write_draft(draft, path)
    assert "  links: [../cache]\n" in text
    assert parse_draft(text, path).data.links == [str(tmp_path / "cache")]
    path.write_text(text)
    data = load_recipe(str(path)).data
    assert data.links == [str(tmp_path / "cache")]


def test_links_that_may_not_be_followed_are_said_as_such(
    tmp_path: Path, write_table: WriteTable
) -> None:
    (tmp_path / "files").mkdir()
    rows = []
    for number, target in enumerate(("/etc/hostname", "/dev/null", "/proc/version", "/bin/sh")):
        (tmp_path / "files" / f"{number}.png").symlink_to(target)
        rows.append(f"{number}.png,{number % 2}")
    with pytest.raises(
        DataError, match=r"no file can be read; the first: a symlink that leaves data.files: 0\.png"
    ):
        survey_table(Path(write_table(["file,label", *rows])))


def test_names_of_another_case_and_of_windows_are_named_by_init(
    write_table: WriteTable, write_pictures: WritePictures
) -> None:
    write_pictures([f"cats/{number}.png" for number in range(4)])
    labels = [f",{number % 2}" for number in range(4)]
    windows = [f"cats\\{number}.png{label}" for number, label in enumerate(labels)]
    assert survey_table(Path(write_table(["file,label", *windows]))).num_bad_files == 0
    capitals = [f"images/cats/{number}.PNG{label}" for number, label in enumerate(labels)]
    with pytest.raises(
        DataError, match=r"is 'images/cats/0\.png'\); write the paths as the files are named"
    ):
        survey_table(Path(write_table(["file,label", *capitals])))
    drive = [f"C:\\data\\{number}.png{label}" for number, label in enumerate(labels)]
    with pytest.raises(DataError, match="holds absolute paths such as 'C:"):
        survey_table(Path(write_table(["file,label", *drive])))


def test_letters_typed_in_two_ways_are_one_class_to_init(write_table: WriteTable) -> None:
    rows = [f"{row},{label}" for row, label in enumerate(["K\u00e4fer", "Ka\u0308fer", "Floh"] * 8)]
    column = survey_table(Path(write_table(["x,label", *rows]))).columns["label"]
    assert (column.role, column.why) == ("category", "has 2 distinct values in 24 rows")

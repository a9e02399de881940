"""Each measure of the house on a small checkout, with a fault and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .house import MEASURES, NOT_YET, House, main, measure

LAZY = """'''Books.'''
import lazy_loader
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
"""
STUB = "from .book import open_book as open_book  # opens a book\n"
FACE = {"shelf/__init__.py": LAZY, "shelf/__init__.pyi": STUB}
USER = {"models/__init__.py": "'''Nets.'''", "models/net.py": "from ..shelf import open_book"}


def checkout(root: Path, files: dict[str, str]) -> Path:
    """Write a package of one room, and more files."""
    room = {"shelf/__init__.py": "'''Books.'''", "shelf/book.py": "def open_book(): ...\n"}
    for name, text in {"__init__.py": "'''A package.'''", **room, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def offences(what: str, root: Path, files: dict[str, str]) -> list[str]:
    """What one measure finds."""
    find = next(find for name, find, *_ in MEASURES if name == what)
    found = sorted(set(find(House(checkout(root, files)))))
    return [f"{one.path}:{one.line}: {one.what}" for one in found]


def test_a_folder_of_12_files_passes_and_one_of_13_is_named(tmp_path: Path) -> None:
    root = checkout(tmp_path, {f"shelf/m{number}.py": "" for number in range(10)})
    rows, passed = measure(House(root))
    assert [row[2] for row in rows[:3]] == [12, 12, 12]  # one file in the root
    assert passed == []
    checkout(root, {"shelf/m10.py": "", "tests/test_one.py": "", "tests/a/test_two.py": ""})
    rows, passed = measure(House(root))
    assert [row[2] for row in rows[:3]] == [1, 13, 13]
    assert passed == ["shelf:1: 13 Python files; make rooms of what belongs together"]


@pytest.mark.parametrize(
    "init",
    [LAZY, "'''Books.'''\nfrom .book import open_book", "'''Books.'''\ndef open_book(): ..."],
    ids=["lazy", "imported", "defined"],
)
def test_a_package_has_a_face_that_is_lazy_imported_or_defined(tmp_path: Path, init: str) -> None:
    stub = {"shelf/__init__.pyi": STUB} if init == LAZY else {}
    files = {**USER, "shelf/__init__.py": init, **stub}
    assert offences("packages without a face", tmp_path, files) == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (USER, "others import from here, and there is no face"),
        (
            {"tests/test_a.py": "import torchrelay.shelf.book"},
            "others import from here, and there is no face",
        ),
        ({"shelf/__init__.py": LAZY}, "has one of attach_stub and __init__.pyi alone"),
        ({"shelf/__init__.pyi": STUB}, "has one of attach_stub and __init__.pyi alone"),
        ({"shelf/__init__.py": ""}, "no docstring"),
    ],
)
def test_a_package_that_others_use_needs_a_whole_face(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    assert offences("packages without a face", tmp_path, files) == [f"shelf/__init__.py:1: {said}"]


def test_a_package_that_its_own_tests_alone_use_or_without_code_needs_no_face(
    tmp_path: Path,
) -> None:
    tests = {"tests/shelf/test_book.py": "from torchrelay.shelf.book import open_book"}
    recipes = {"recipes/__init__.py": "'''R.'''", "models.py": "FOLDER = 'torchrelay.recipes'"}
    assert offences("packages without a face", tmp_path, {**tests, **recipes}) == []


@pytest.mark.parametrize(
    "user",
    [
        USER,
        {"tests/test_a.py": "from torchrelay import shelf\nshelf.open_book()"},
        {"tests/test_a.py": "patch('torchrelay.shelf.open_book')"},
        {"docs/a.md": "Call `shelf.open_book` first."},
    ],
)
@pytest.mark.parametrize(
    "stub", [STUB, "# Opens a book.\nfrom .book import open_book as open_book\n"]
)
def test_a_line_of_a_face_is_said_found_and_used(
    tmp_path: Path, user: dict[str, str], stub: str
) -> None:
    assert offences("faults in faces", tmp_path, {**FACE, **user, "shelf/__init__.pyi": stub}) == []


@pytest.mark.parametrize(
    ("stub", "files", "said"),
    [
        (STUB.partition("#")[0], USER, "open_book has no comment"),
        (STUB, {}, "open_book is used by nobody else"),
        (STUB, {"docs/a.md": "An open_book without a mark."}, "open_book is used by nobody else"),
        (STUB, {"shelf/x.py": "from . import open_book"}, "open_book is used by nobody else"),
        (
            STUB,
            {**USER, "shelf/book.py": "def f(open_book): ..."},
            "open_book is not in torchrelay.shelf.book",
        ),
        (
            STUB.replace("as open_book ", ""),
            USER,
            "open_book is not written `open_book as open_book`",
        ),
    ],
)
def test_a_faulty_line_of_a_face_is_named(
    tmp_path: Path, stub: str, files: dict[str, str], said: str
) -> None:
    files = {**FACE, **files, "shelf/__init__.pyi": stub}
    assert offences("faults in faces", tmp_path, files) == [f"shelf/__init__.pyi:1: {said}"]


def test_a_face_may_list_what_the_face_of_a_room_below_lists(tmp_path: Path) -> None:
    below = {
        "shelf/images/__init__.py": "'''Images.'''\nfrom .decode import see",
        "shelf/images/decode.py": "see = 1",
    }
    stub = {"shelf/__init__.pyi": "from .images import see as see  # looks at an image"}
    user = {"flows.py": "from .shelf import see"}
    files = {**FACE, **below, **stub, **user}
    assert offences("faults in faces", tmp_path, files) == []
    assert offences("imports past a face", tmp_path, files) == []


NESTED = {
    "shelf/images/__init__.py": "'''Images.'''",
    "shelf/images/decode.py": "def see(): ...",
    "errors.py": "",
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("flows/train.py", "from ..shelf import open_book"),
        ("flows/train.py", "from ..shelf.images import see"),
        ("flows/train.py", "from torchrelay import errors\nimport torchrelay.errors"),
        ("shelf/images/decode.py", "from ..book import open_book"),
        ("shelf/split.py", "from .book import open_book\nfrom . import book"),
        ("tests/shelf/test_a.py", "from torchrelay.shelf.images.decode import see"),
        ("tests/shelf/images/test_a.py", "from torchrelay.shelf.book import open_book"),
        ("tests/faults/test_a.py", "from torchrelay.shelf import book"),
        ("tests/shelf/test_a.py", "from .book import rows\nfrom ..conftest import run"),
        ("shelf/book.py", "PLACE = 'torchrelay.shelf.book._read'"),
        ("tests/test_a.py", "from torchrelay.errors import DataError"),
        ("tests/test_a.py", "TAG = 'torchrelay.run_id'"),
        ("tests/test_a.py", "'''See torchrelay.shelf.book.'''"),
    ],
)
def test_faces_open_files_and_own_files_may_be_imported(
    tmp_path: Path, path: str, text: str
) -> None:
    assert (
        offences("imports past a face", tmp_path, {**NESTED, "flows/__init__.py": "", path: text})
        == []
    )


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("flows/train.py", "from ..shelf.book import open_book"),
        ("flows/train.py", "from ..shelf import book\n\nbook.open_book()"),
        ("flows/train.py", "def f(): from ..shelf import book as t; t.open_book()"),
        ("flows/train.py", "from .. import shelf; shelf.book.open_book()"),
        ("tests/test_a.py", "import torchrelay.shelf.book"),
        ("tests/models/test_a.py", "from torchrelay.shelf.book import open_book"),
        ("tests/conftest.py", "patch('torchrelay.shelf.book.open_book')"),
        ("tests/test_a.py", "run('from torchrelay.shelf import book')"),
        ("benchmarks/bench.py", "import_module('torchrelay.shelf.book')"),
    ],
)
def test_an_import_past_a_face_is_named(tmp_path: Path, path: str, text: str) -> None:
    found = offences(
        "imports past a face", tmp_path, {**NESTED, "flows/__init__.py": "", path: text}
    )
    assert found == [f"{path}:1: torchrelay.shelf.book lies behind the face of torchrelay.shelf"]


def test_a_face_may_list_a_name_that_a_file_of_its_package_has_too(tmp_path: Path) -> None:
    files = {"shelf/open_book.py": "def open_book(): ...", "flows/__init__.py": ""}
    user = {"flows/train.py": "from ..shelf import open_book\n\nopen_book()"}
    stub = {"shelf/__init__.pyi": STUB.replace(".book", ".open_book")}
    name = "torchrelay.shelf.open_book"
    assert offences("imports past a face", tmp_path, {**files, **user, **FACE, **stub}) == []
    (found,) = offences(
        "imports past a face", tmp_path, {**files, **user, "shelf/__init__.pyi": ""}
    )
    assert found.startswith(f"flows/train.py:1: {name} lies behind the face")


def test_a_room_above_may_not_reach_past_the_face_of_one_below(tmp_path: Path) -> None:
    files = {**NESTED, "shelf/a.py": "from .images.decode import see"}
    room = "torchrelay.shelf.images"
    (found,) = offences("imports past a face", tmp_path, files)
    assert found == f"shelf/a.py:1: {room}.decode lies behind the face of {room}"


@pytest.mark.parametrize(
    "text",
    [
        "from torchrelay.shelf.book import _read",
        "from torchrelay.shelf import book; book._read()",
        "from torchrelay.shelf import book; patch.setattr(book, '_read', None)",
        "patch.setattr('torchrelay.shelf.book._read', None)",
    ],
)
def test_a_private_name_of_another_module_is_named(tmp_path: Path, text: str) -> None:
    found = offences("imports past a face", tmp_path, {"tests/shelf/test_a.py": text})
    assert found == ["tests/shelf/test_a.py:1: _read of torchrelay.shelf.book is private"]


RECIPE = {"recipe.py": "class Image(Feature): ...\nclass Other(Part): ..."}


@pytest.mark.parametrize(
    "text",
    [
        "feature.kind == 'image'",
        "'labels' != schema.target_kind",
        "kind in ('number', 'points')",
        "'text' in kinds",
        "feature['kind'] == 'image' or feature.get('kind') == 'text'",
        "input_kinds & {'category', 'text'}",
        "f(feature.kind in NUMBERS)",
        "isinstance(feature, (Other, Image))",
        "match feature.kind:\n case 'image' | 'x': ...",
    ],
)
def test_a_line_that_asks_for_a_kind_is_counted_once(tmp_path: Path, text: str) -> None:
    files = {**RECIPE, "rows.py": f"NUMBERS = ('number', 'points')\n{text}"}
    (found,) = offences("literal kind tests", tmp_path, files)
    last = 2 + text.count("\n")
    assert found == f"rows.py:{last}: asks for a kind"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("datasets/kinds/image.py", "feature.kind == 'image'"),
        ("engine/losses.py", "feature.kind == 'labels'"),
        ("engine/metrics/compute.py", "feature.kind == 'labels'"),
        ("tests/test_a.py", "feature.kind == 'labels'"),
        ("rows.py", "record.kind == 'train' or dtype.kind == 'f'"),
        ("rows.py", "column.role == 'image' or isinstance(feature, Other)"),
        ("rows.py", "'text' + kind"),
        ("rows.py", "match feature.kind:\n case 'train': ..."),
    ],
)
def test_other_comparisons_and_those_in_the_kinds_room_do_not_count(
    tmp_path: Path, path: str, text: str
) -> None:
    rooms = {f"{room}/__init__.py": "" for room in ("engine", "engine/metrics", "datasets/kinds")}
    assert offences("literal kind tests", tmp_path, {**RECIPE, **rooms, path: text}) == []


def test_a_function_of_8_parameters_is_named_unless_they_are_a_users_form(tmp_path: Path) -> None:
    seven = "a, /, b, c, *d, e, f, **g"
    forms = "".join(f"@{form}()\ndef run(x, {seven}): ...\n" for form in ("click.command", "flow"))
    text = f"class A:\n def f(self, {seven}): ...\n{forms}def g(x, {seven}): ..."
    plateau = {"engine/optim/schedules.py": f"def plateau(x, {seven}): ..."}
    assert offences("functions over 7 parameters", tmp_path, {"a.py": text, **plateau}) == [
        "a.py:7: g has 8 parameters"
    ]


def test_a_function_of_61_lines_is_named(tmp_path: Path) -> None:
    text = "@a\ndef f():\n" + " x\n" * 59 + "async def g():\n" + " x\n" * 60
    assert offences("functions over 60 lines", tmp_path, {"tests/a.py": text}) == [
        "tests/a.py:62: g has 61 lines"
    ]


def test_parameters_called_run_dir_count_in_the_package_alone(tmp_path: Path) -> None:
    text = "def f(run_dir): ...\nrun_dir = lambda *, run_dir: run_dir"
    found = offences("parameters called run_dir", tmp_path, {"a.py": text, "tests/test_a.py": text})
    assert found == ["a.py:1: takes a run_dir", "a.py:2: takes a run_dir"]


@pytest.mark.parametrize(
    "text",
    [
        "import torch; torch._name(x)",
        "from prefect.x import _name",
        "from prefect._name import run",
        "import prefect._name.x",
        "def f(module): return module._name",
        "class A(B):\n def f(self): return self._name",
        "getattr(x, '_name')",
        "setattr(x, NAME, 1)",
        "import torch; patch.setattr('torch._name', 1)",
        "_name = 1; import torch; torch._name",
    ],
)
@pytest.mark.parametrize("path", ["rows.py", "tests/test_rows.py"])
def test_a_private_name_of_another_library_is_named(tmp_path: Path, path: str, text: str) -> None:
    last = 2 + text.count("\n")
    found = offences("private names of libraries", tmp_path, {path: f"NAME = '_name'\n{text}"})
    assert found == [f"{path}:{last}: _name is private to another library"]
    (tmp_path / path).rename((tmp_path / path).with_name("torch_private.py"))
    assert offences("private names of libraries", tmp_path, {}) == []


@pytest.mark.parametrize(
    "text",
    [
        "class A:\n def f(self, other): self._name = other._name",
        "class A:\n __slots__ = ('_name',)\ndef f(a): return a._name",
        "class A(Base):\n def f(self): return self._base",
        "row._replace(x=1)._asdict()",
        "import os; os._exit(1)",
        "getattr(x, '__name__')",
        "from .shelf.book import _read",
    ],
)
def test_own_and_documented_names_are_not_private_to_another_library(
    tmp_path: Path, text: str
) -> None:
    base = {"base.py": "class Base:\n def _base(self): ..."}
    assert offences("private names of libraries", tmp_path, {**base, "rows.py": text}) == []


def test_a_name_that_another_module_of_ours_has_too_is_own_on_self_alone(tmp_path: Path) -> None:
    files = {"a.py": "class A:\n def f(self): self._name = 1", "b.py": "self._name\nmodule._name"}
    found = offences("private names of libraries", tmp_path, files)
    assert found == ["b.py:2: _name is private to another library"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x" * 71, "81 columns, 0 colons and semicolons"),
        ("It reads: all.", "24 columns, 1 colons and semicolons"),
        ("It reads; it writes.", "30 columns, 1 colons and semicolons"),
    ],
)
def test_a_long_or_divided_first_docstring_line_is_named(
    tmp_path: Path, line: str, said: str
) -> None:
    text = f"class A:\n def f(self):\n    '''{line}'''\n def _g(self):\n    '''{line}'''"
    found = offences("first docstring lines", tmp_path, {"a.py": text, "tests/test_a.py": text})
    assert found == [f"a.py:3: first docstring line of {said}"]


@pytest.mark.parametrize("line", ["x" * 70, "It reads `a:b`.", "It reads.\n\n    All; or: none."])
def test_a_short_whole_first_docstring_line_passes(tmp_path: Path, line: str) -> None:
    assert (
        offences("first docstring lines", tmp_path, {"a.py": f"def f():\n    '''{line}'''"}) == []
    )


def test_a_line_of_101_columns_is_named(tmp_path: Path) -> None:
    files = {"tests/test_a.py": "#" * 100 + "\n" + "#" * 101, "shelf/__init__.pyi": "#" * 101}
    found = offences("lines over 100 columns", tmp_path, files)
    assert found == ["shelf/__init__.pyi:1: 101 columns", "tests/test_a.py:2: 101 columns"]


def test_a_run_files_name_stands_in_its_layout_alone(tmp_path: Path) -> None:
    layout = {"runs/__init__.py": "'''Runs.'''", "runs/layout.py": "NEW = 'x/new.json'"}
    text = "'''recipe.yaml'''\nopen(f'{run}/recipe.yaml')\nopen('other.yaml')\nopen('new.json')"
    found = offences(
        "literal names of run files", tmp_path, {**layout, "a.py": text, "tests/test_a.py": text}
    )
    assert found == ["a.py:2: recipe.yaml as a literal", "a.py:4: new.json as a literal"]
    (tmp_path / "runs/layout.py").unlink()
    assert offences("literal names of run files", tmp_path, {}) == [
        "a.py:2: recipe.yaml as a literal"
    ]


def test_the_command_fails_where_a_limit_is_passed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = checkout(
        tmp_path, {"a.py": "".join(f"def f{number}(run_dir): ...\n" for number in range(8))}
    )
    assert main(["--root", str(root)]) == 0
    assert "parameters called run_dir" in (table := capsys.readouterr().out)
    assert "a.py" not in table
    checkout(root, {"b.py": "def f(run_dir): ..."})
    assert main(["--root", str(root)]) == 1
    printed = capsys.readouterr().out.splitlines()
    row = [cell.strip() for cell in printed[10].split("|")]
    assert row == ["parameters called run_dir", "112", "9", "8"]
    assert printed[-9:] == [
        *(f"a.py:{line}: takes a run_dir; take a Run" for line in range(1, 9)),
        "b.py:1: takes a run_dir; take a Run",
    ]
    assert main(["--root", str(root), "--report"]) == 0
    assert capsys.readouterr().out.splitlines() == printed


def test_a_figure_that_is_above_its_limit_still_must_not_grow(tmp_path: Path) -> None:
    takes = "".join(f"def f{number}(run_dir): ...\n" for number in range(10))
    root = checkout(tmp_path, {"a.py": takes})
    (not_yet := root / NOT_YET).parent.mkdir(parents=True)
    for most, code in ((10, 0), (9, 1)):
        not_yet.write_text(json.dumps({"parameters called run_dir": most}))
        assert main(["--root", str(root)]) == code


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no checkout of torchrelay"):
        main(["--root", str(tmp_path)])

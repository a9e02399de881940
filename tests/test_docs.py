"""What README, docs and docstrings name is there: files, folders, links, targets, commands."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from torchrelay.cli import commands
from torchrelay.recipe import load_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ROOMS = sorted(face.parent.relative_to(ROOT).parts[0] for face in ROOT.glob("*/__init__.py"))
SOURCES = sorted(
    path
    for folder in (*ROOMS, "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py*")
    if path.suffix in (".py", ".pyi")
) + sorted(ROOT.glob("*.py"))

# Such as `engine/loop.py`, `docs/tour.md` and `engine/optim/`. Every package has these two.
EVERYWHERE = ("__init__.py", "__init__.pyi", "_private.py")
QUOTED_PATH = re.compile(r"`([\w./-]+(?:\.pyi?|\.md|\.yaml|/))`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"(?:`|^    (?:\S+ && )?)make ([a-z][a-z-]*)", re.MULTILINE)
COMMAND = re.compile(r"(?:`|^ {4}(?:\$ )?)torchrelay ([a-z][a-z-]*)([^`\n#]*)", re.MULTILINE)


# A version, the name of its constant and the file that has it, as docs/versions.md says them.
VERSION = re.compile(r"(?:\| |\()(\d+)(?: \| |, )`(\w+)` of `([\w./]+)`")


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def find_missing_paths(text: str, places: list[Path]) -> list[str]:
    """Quoted paths of code and of pages that lie in none of some folders."""
    return [
        quoted
        for quoted in QUOTED_PATH.findall(text)
        if quoted.endswith((".py", ".pyi", ".md")) or quoted.split("/")[0] in (*ROOMS, "tests")
        if quoted not in EVERYWHERE and not any((place / quoted).exists() for place in places)
    ]


def slug(heading: str) -> str:
    """The anchor that GitHub and MkDocs make of a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower()))


def find_broken_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        if "://" not in link and not (target.exists() and (not anchor or has(target, anchor))):
            yield link


def has(page: Path, anchor: str) -> bool:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return anchor in {slug(heading) for heading in headings}


def words_of(source: Path) -> str:
    """The docstrings and comments of a file of code."""
    text = source.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, documented)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*docstrings, *(one.string for one in tokens if one.type == tokenize.COMMENT)])


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_a_page_names_files_links_and_targets_that_are_there(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert find_missing_paths(text, [ROOT]) == []
    assert list(find_broken_links(page)) == []
    assert [target for target in MAKE.findall(text) if target not in targets] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_a_page_names_commands_and_options_that_are_there(page: Path) -> None:
    context = click.Context(commands)
    for name, rest in COMMAND.findall(page.read_text()):
        command = commands.get_command(context, name)
        assert command is not None, f"torchrelay {name}"
        if isinstance(command, click.Group) and rest.strip():
            inner, _, rest = rest.strip().partition(" ")
            command = command.get_command(context, inner)
            assert command is not None, f"torchrelay {name} {inner}"
        known = {"--help", *(option for one in command.params for option in one.opts)}
        known |= {option for one in command.params for option in one.secondary_opts}
        said = re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)
        assert [option for option in said if option not in known] == [], f"torchrelay {name}"


def test_docstrings_and_comments_name_files_that_are_there() -> None:
    missing = {
        names(source): found
        for source in SOURCES
        if (found := find_missing_paths(words_of(source), [source.parent, ROOT]))
    }
    assert missing == {}


def test_the_page_of_versions_says_each_version_as_the_code_has_it() -> None:
    said = {
        (path, name): int(version)
        for version, name, path in VERSION.findall((ROOT / "docs/versions.md").read_text())
    }
    found = {
        (names(source), name): int(version)
        for source in SOURCES
        if source.parts[len(ROOT.parts)] not in ("tests", "benchmarks")
        for name, version in re.findall(
            r"^(?:\w+, )?(\w*_VERSION) = (?:\S+, )?(\d+)$", source.read_text(), re.MULTILINE
        )
    }
    assert said == found


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = tmp_path / "cells.yaml"
    path.write_text(block)
    assert load_recipe(path).name == "cells"

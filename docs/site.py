"""Adds pages to the site that stand elsewhere.

The README and its neighbours, and a page of reference for each package, made from its face.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
# Pages of the root, and what the site calls them.
MOVED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
REFERENCE = "reference"
# Where mkdocstrings finds the package without environments, data and tests beside it; see
# mkdocs.yml.
SOURCES = ROOT / ".venv-docs" / "src" / "torchrelay"
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
# mkdocstrings wants an empty line above each section of a docstring.
SECTION = re.compile(r"(?<!\n)\n( +)(Args|Attributes|Returns|Raises|Yields):\n")
OPTIONS = "\n    options: {heading_level: 2}\n"


class Listed(NamedTuple):
    """A name in a face.

    Attributes:
        name: as others import it.
        home: the module that defines it, dotted below the package.
        comment: what the face says of it.
    """

    name: str
    home: str
    comment: str


def on_startup(command: str, dirty: bool) -> None:
    """Copy the sources, before mkdocstrings looks whether their folder is there."""
    shutil.rmtree(SOURCES, ignore_errors=True)
    # Without faces, in which a function may hide the file that has its name.
    within = (source for room in find_rooms() for source in room.rglob("*.py"))
    for source in [*ROOT.glob("*.py"), *within]:
        copy = SOURCES / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(SECTION.sub(r"\n\n\1\2:\n", source.read_text("utf-8")), "utf-8")


def on_config(config: Any) -> Any:
    """List the pages of reference in the navigation."""
    pages: dict[str, list[Any]] = {}
    for package in find_packages():
        room = package.partition("/")[0]
        pages.setdefault(room, []).append(
            {package.removeprefix(f"{room}/") if package != room else room: page_of(package)}
        )
    nested = [
        found[0] if len(found) == 1 else {room: [page_of(room), *found[1:]]}
        for room, found in pages.items()
    ]
    config.nav.append({"Reference": [f"{REFERENCE}/index.md", *nested]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are no files of docs/."""
    from mkdocs.structure.files import File  # pyright: ignore[reportMissingImports]

    texts = {name: (ROOT / source).read_text("utf-8") for source, name in MOVED.items()}
    texts |= {page_of(package): describe_package(package) for package in find_packages()}
    texts[f"{REFERENCE}/index.md"] = describe_packages()
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Let links lead to pages of the site; a link to a file that is none becomes its name."""
    name = page.file.src_uri
    root = dict.fromkeys(MOVED.values(), ROOT)
    folder = root.get(name, ROOT / "docs")

    def relink(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if "://" in target or name.startswith(f"{REFERENCE}/"):
            return found[0]
        path = Path(os.path.normpath(folder / target)).relative_to(ROOT).as_posix()
        page = MOVED.get(path) or (path.removeprefix("docs/") if path.endswith(".md") else "")
        if page:
            return f"[{text.removeprefix('docs/')}]({page}{anchor})"
        return f"`{path}`" if text == path else text

    return LINK.sub(relink, markdown)


def find_rooms() -> list[Path]:
    """The packages below the root."""
    return sorted(face.parent for face in ROOT.glob("*/__init__.py"))


def find_packages() -> list[str]:
    """The packages that have a face, as paths, each before those within it."""
    faces = (face for room in find_rooms() for face in room.rglob("__init__.pyi"))
    return sorted(face.parent.relative_to(ROOT).as_posix() for face in faces)


def page_of(package: str) -> str:
    """The page of a package."""
    return f"{REFERENCE}/{package}/index.md"


def read_face(package: str) -> Iterator[Listed]:
    """The names that a package lists, in its order."""
    text = (ROOT / package / "__init__.pyi").read_text("utf-8")
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        above = node.lineno - 1
        while above and lines[above - 1].startswith("#"):
            above -= 1
        said = [line.lstrip("# ") for line in lines[above : node.lineno - 1]]
        for one in node.names:
            home = find_home(package, node.module or "", one.name)
            yield Listed(one.asname or one.name, home, " ".join(said))


def find_home(package: str, module: str, name: str) -> str:
    """The module that defines a name, through the faces of rooms within."""
    below = f"{package}/{module.replace('.', '/')}"
    if (ROOT / below / "__init__.pyi").exists():
        return next((one.home for one in read_face(below) if one.name == name), below)
    return below


def describe_package(package: str) -> str:
    """A package's page: what it is, and each name of its face."""
    dotted = package.replace("/", ".")
    doc = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text("utf-8")))
    blocks = [f"# {dotted}\n\n{doc or ''}\n\n    from torchrelay.{dotted} import …\n"]
    for one in read_face(package):
        if has_docstring(one):
            blocks.append(f"::: torchrelay.{one.home.replace('/', '.')}.{one.name}{OPTIONS}")
        else:
            blocks.append(f"## {one.name}\n\n{one.comment}")
    return "\n\n".join(blocks) + "\n"


def has_docstring(listed: Listed) -> bool:
    """Whether a name is a function or class, which says itself what it is."""
    path = ROOT / f"{listed.home}.py"
    tree = ast.parse(path.read_text("utf-8")) if path.exists() else ast.Module([], [])
    return any(
        ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == listed.name
    )


def describe_packages() -> str:
    """The first page of the reference: every package in a line."""
    lines = ["# Reference\n", "What each package lists for others.\n", "| package | |", "|---|---|"]
    for package in find_packages():
        doc = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text("utf-8")))
        first = (doc or "").partition("\n")[0]
        lines.append(f"| [{package.replace('/', '.')}]({package}/index.md) | {first} |")
    return "\n".join(lines) + "\n"

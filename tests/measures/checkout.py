"""Reads and parses the files of a checkout: those of the package, of tests and of benchmarks."""

from __future__ import annotations

import ast
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = "torchrelay"
FROM_IMPORT = re.compile(rf"from ({PACKAGE}[\w.]*) import ([\w, ]+)")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# These begin with an underscore, and Python documents them.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_field_defaults", "_make", "_exit", "_getframe"}


class Offence(NamedTuple):
    path: str
    line: int
    what: str


class Module:
    """A parsed file; its home is its package, of a test the package that its folder mirrors."""

    def __init__(self, root: Path, path: Path, name: str, home: str) -> None:
        text = path.read_text(encoding="utf-8")
        self.path, self.name, self.home = path.relative_to(root).as_posix(), name, home
        self.package = home if is_in(name, PACKAGE) else name.rpartition(".")[0]
        self.lines, self.tree = text.splitlines(), ast.parse(text)
        self.is_package, self.is_ours = path.name == "__init__.py", is_in(name, PACKAGE)
        self.nodes: dict[type[ast.AST], list[Any]] = defaultdict(list)
        for node in walk(self.tree):
            self.nodes[type(node)].append(node)
        self.functions = [node for kind in FUNCTIONS for node in self.nodes[kind]]
        docstrings = {id(node.value) for node in self.nodes[ast.Expr]}
        texts = [one for one in self.nodes[ast.Constant] if isinstance(one.value, str)]
        self.strings = [one for one in texts if id(one) not in docstrings]

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """Line, local name and full name of whatever is imported."""
        found = []
        for node in self.nodes[ast.Import]:
            found += [(node.lineno, one.asname or one.name, one.name) for one in node.names]
        for node in self.nodes[ast.ImportFrom]:
            base = node.module or ""
            if node.level:
                above = self.package.rsplit(".", node.level - 1)[0]
                base = f"{above}.{base}" if base else above
            for one in node.names:
                found.append((node.lineno, one.asname or one.name, f"{base}.{one.name}"))
        return found

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Full names by local names; `import a.b` gives a."""
        return {
            local.partition(".")[0]: local.partition(".")[0] if "." in local else full
            for _, local, full in self.imports
        }

    def full_name(self, node: ast.expr) -> tuple[str, str]:
        """What local stands for in `local.b.c`, and the whole; empty where it was not imported."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        local = self.aliases.get(last_name(node), "")
        return local, ".".join([local, *names]) if local else ""

    @cached_property
    def asked(self) -> list[tuple[int, ast.expr, str]]:
        """Line, first argument and name of what getattr and its like are asked for."""
        tops = [node for node in self.tree.body if isinstance(node, ast.Assign)]
        values = {last_name(node.targets[0]): node.value for node in tops}
        found = []
        for node in self.nodes[ast.Call]:
            if last_name(node.func) in ("getattr", "setattr", "hasattr", "delattr"):
                for given in node.args[:2]:
                    named = values.get(last_name(given), given)
                    if isinstance(named, ast.Constant) and isinstance(named.value, str):
                        found.append((node.lineno, node.args[0], named.value))
        return found

    @cached_property
    def uses(self) -> list[tuple[int, str, str]]:
        """What imports, attributes and texts take from the package.

        Each with its line, the import that an attribute begins with, if any, and its full name.
        """
        found = [(line, "", full) for line, _, full in self.imports]
        found += [(node.lineno, *self.full_name(node)) for node in self.nodes[ast.Attribute]]
        for line, owner, name in self.asked:
            local, full = self.full_name(owner)
            found.append((line, local, f"{full}.{name}"))
        for text in self.strings:
            if PACKAGE in text.value:
                names = re.findall(rf"\b{PACKAGE}(?:\.\w+)+", text.value)
                for base, more in FROM_IMPORT.findall(text.value):
                    names += [f"{base}.{name.strip()}" for name in more.split(",")]
                found += [(text.lineno, "", name) for name in names]
        return [use for use in found if is_in(use[2], PACKAGE)]


class House:
    """All files of a checkout, those of the package, of tests and of benchmarks."""

    def __init__(self, root: Path) -> None:
        self.root, self.folders = root, defaultdict[str, int](int)
        self.modules: dict[str, Module] = {}
        self.stubs: dict[str, Module] = {}
        if not (root / "__init__.py").exists():
            raise SystemExit(f"{root} is no checkout of {PACKAGE}: it has no __init__.py")
        self._read_package(root, PACKAGE)
        for path in sorted([*root.glob("tests/**/*.py"), *root.glob("benchmarks/**/*.py")]):
            parts = path.relative_to(root).with_suffix("").parts
            is_mirror = parts[0] == "tests" and len(parts) > 2
            home = ".".join([PACKAGE, *parts[1:-1]]) if is_mirror else ""
            self._read(path, ".".join(parts), home)
        self.ours = [module for module in self.modules.values() if module.is_ours]

    def _read_package(self, folder: Path, name: str) -> None:
        for path in sorted(folder.glob("*.py")):
            self._read(path, name if path.stem == "__init__" else f"{name}.{path.stem}", name)
        if (stub := folder / "__init__.pyi").exists():
            self.stubs[name] = Module(self.root, stub, name, name)
        for init in sorted(folder.glob("[!.]*/__init__.py")):
            if init.parent.name not in ("tests", "benchmarks", "build", "dist"):
                self._read_package(init.parent, f"{name}.{init.parent.name}")

    def _read(self, path: Path, name: str, home: str) -> None:
        self.modules[name] = Module(self.root, path, name, home)
        self.folders[path.parent.relative_to(self.root).as_posix()] += 1

    def module_of(self, full: str) -> Module:
        """The module that a full name of the package lies in."""
        while full not in self.modules:
            full = full.rpartition(".")[0]
        return self.modules[full]

    def outside_uses(self, package: str) -> set[str]:
        """Full names that others take from a package, without its own tests."""
        others = [one for one in self.modules.values() if not is_in(one.home, package)]
        others += [stub for name, stub in self.stubs.items() if not is_in(name, package)]
        return {full for one in others for _, _, full in one.uses if is_in(full, package)}

    @cached_property
    def words(self) -> set[str]:
        """Names that README and docs write as code."""
        paths = [*self.root.glob("README.md"), *self.root.glob("docs/**/*.md")]
        texts = [path.read_text(encoding="utf-8") for path in paths]
        spans = [re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL) for text in texts]
        return set(re.findall(r"\w+", " ".join(itertools.chain(*spans))))


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes; `ast.walk` takes twice as long."""
    todo = [tree]
    while todo:
        yield (node := todo.pop())
        for name in node._fields:
            value = getattr(node, name, None)
            values = value if isinstance(value, list) else [value]
            todo += [one for one in values if isinstance(one, ast.AST)]


def is_in(name: str, package: str) -> bool:
    """Whether a full name is the package or lies below it."""
    return name == package or name.startswith(f"{package}.")


def is_private(name: str) -> bool:
    return len(name) > 1 and name[0] == "_" != name[1] and name not in DOCUMENTED


def last_name(node: ast.AST) -> str:
    """The last part of a dotted name."""
    return getattr(node, "attr", getattr(node, "id", ""))

"""Finds packages that do not list what others may use, and imports that go past such a list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from checkout import (
    FUNCTIONS,
    PACKAGE,
    House,
    Module,
    Offence,
    is_in,
    is_private,
    last_name,
    walk,
)


def find_faceless(house: House) -> Iterator[Offence]:
    rooms = {module.home for module in house.ours if not module.is_package}
    for package in (module for module in house.ours if module.is_package):
        names = [*package.nodes[ast.Attribute], *package.nodes[ast.Name]]
        is_lazy = any(last_name(one) == "attach_stub" for one in names)
        is_eager = any(
            (isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name[0] != "_")
            or (isinstance(node, ast.ImportFrom) and node.level == 1)
            for node in package.tree.body
        )
        if not ast.get_docstring(package.tree):
            yield Offence(package.path, 1, "no docstring")
        if is_lazy != (package.name in house.stubs):
            yield Offence(package.path, 1, "has one of attach_stub and __init__.pyi alone")
        elif is_lazy or is_eager or package.name not in rooms:
            continue
        elif house.outside_uses(package.name):
            yield Offence(package.path, 1, "others import from here, and there is no face")


def find_face_faults(house: House) -> Iterator[Offence]:
    for package, stub in house.stubs.items():
        uses = house.outside_uses(package) - {package}
        used = {full.removeprefix(f"{package}.").partition(".")[0] for full in uses}
        for node in stub.nodes[ast.ImportFrom]:
            base = ".".join(filter(None, [package if node.level == 1 else "", node.module]))
            for one in node.names:
                above, line = ["", *stub.lines][one.lineno - 1 : one.lineno + 1]
                is_said = "#" in line or above.lstrip().startswith("#")
                faults = {
                    f"{one.name} has no comment": not is_said,
                    f"{one.name} is not written `{one.name} as {one.name}`": one.asname != one.name,
                    f"{one.name} is not in {base}": one.name not in names_in(house, base),
                    f"{one.name} is used by nobody else": one.name not in used | house.words,
                }
                found = [what for what, holds in faults.items() if holds]
                yield from (Offence(stub.path, one.lineno, what) for what in found)


def names_in(house: House, module: str) -> set[str]:
    """Names at the top of a module, or in the face of a package."""
    parts = filter(None, [house.modules.get(module), house.stubs.get(module)])
    todo: list[Any] = [node for part in parts for node in part.tree.body]
    names: set[str] = set()
    for node in todo:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {one.asname or one.name for one in node.names}
        elif isinstance(node, (ast.If, ast.Try)):
            todo += [*node.body, *node.orelse]
            todo += [one for handler in getattr(node, "handlers", []) for one in handler.body]
        else:
            inner = [one for one in walk(node) if isinstance(one, ast.Name)]
            names |= {one.id for one in inner if isinstance(one.ctx, ast.Store)}
    return names


def is_listed(house: House, target: Module) -> bool:
    """Whether the face of a module's package lists the module's own name."""
    stub = house.stubs.get(target.home)
    nodes = [] if stub is None else stub.nodes[ast.ImportFrom]
    return any(one.name == last_part(target.name) for node in nodes for one in node.names)


def may_enter(module: Module, target: Module) -> bool:
    """Whether a module may use a file of another package past its face.

    It may use those of its own package and of those above. A test may use those of what it mirrors
    as well, and of what lies below. The tests of faults break the code in its middle.
    """
    if module.path.startswith("tests/faults/"):
        return True
    above = bool(target.home) and is_in(module.home, target.home)
    below = bool(module.home) and not module.is_ours and is_in(target.home, module.home)
    return above or below


def last_part(name: str) -> str:
    return name.rpartition(".")[2]


def find_imports_past_faces(house: House) -> Iterator[Offence]:
    for module in [*house.modules.values(), *house.stubs.values()]:
        for line, local, full in module.uses:
            target = house.module_of(full)
            name = full.removeprefix(target.name).lstrip(".").partition(".")[0]
            if target is not module and is_private(name):
                yield Offence(module.path, line, f"{name} of {target.name} is private")
            is_open = target.is_package or target.home == PACKAGE
            is_open |= house.module_of(local or PACKAGE) is target  # its import was counted
            # A face may list a name that a file of its package has too (lazy_loader >= 0.6).
            is_open |= full == target.name and is_listed(house, target)
            if not is_open and not may_enter(module, target):
                what = f"{target.name} lies behind the face of {target.home}"
                yield Offence(module.path, line, what)

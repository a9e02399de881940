"""Finds private names of other libraries outside of the files that are made for them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from checkout import PACKAGE, House, Module, Offence, is_private, last_name, walk

SELF = ("self", "cls")


def find_private_names(house: House) -> Iterator[Offence]:
    modules = house.modules.values()
    ours = {name for module in house.ours for name in own_names(module)}
    names_of_tests = [part for one in modules if not one.is_ours for part in one.name.split(".")]
    own_heads = {"", PACKAGE, *names_of_tests}
    heads = {full.partition(".")[0] for one in modules for _, _, full in one.imports} - own_heads
    for module in modules:
        if not module.path.endswith("_private.py"):
            for line, name in private_names(module, heads, ours):
                yield Offence(module.path, line, f"{name} is private to another library")


def own_names(module: Module) -> set[str]:
    """Names of a module's functions and classes, their attributes, and its own values."""
    stored = [one for one in module.nodes[ast.Attribute] if isinstance(one.ctx, ast.Store)]
    bodies = [module.tree.body, *(node.body for node in module.nodes[ast.ClassDef])]
    tops = [one for body in bodies for one in body if isinstance(one, (ast.Assign, ast.AnnAssign))]
    inner = [one for node in tops for one in walk(node)]
    named = [one for one in inner if isinstance(one, ast.Name)]
    values = {one.id for one in named if isinstance(one.ctx, ast.Store)}
    slots = [one for one in inner if isinstance(one, ast.Constant)] if "__slots__" in values else []
    return {
        *values,
        *(one.name for one in [*module.functions, *module.nodes[ast.ClassDef]]),
        *(one.attr for one in stored if last_name(one.value) in SELF),
        *(str(one.value) for one in slots),
    }


def private_names(module: Module, heads: set[str], ours: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of what is imported, is an attribute, or is a text that getattr is given.

    An attribute is foreign where its module is, and where no class of ours has it. A module of the
    package knows the private names of its own classes alone, and on self those of their bases.
    """
    for line, _, full in module.imports:
        if full.partition(".")[0] in heads:
            yield from ((line, name) for name in full.split(".") if is_private(name))
    here = own_names(module)
    for node in module.nodes[ast.Attribute]:
        if is_private(node.attr):
            may_be_ours = not module.is_ours or last_name(node.value) in SELF
            is_own = node.attr in here or (may_be_ours and node.attr in ours)
            if not is_own or module.full_name(node)[0].partition(".")[0] in heads:
                yield node.lineno, node.attr
    for line, _, text in module.asked:
        path, _, name = text.rpartition(".")
        is_foreign = path.partition(".")[0] in heads if path else name not in ours | here
        if is_private(name) and is_foreign:
            yield line, name

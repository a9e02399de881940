"""Finds what is too large: folders, functions, lines, and the first lines of docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from checkout import FUNCTIONS, House, Offence, last_name

MOST_FILES, MOST_PARAMETERS, MOST_LINES, MOST_COLUMNS, MOST_SUMMARY_COLUMNS = 12, 7, 60, 100, 80

# A command of click and a flow of Prefect take an option, or a field of a form, for each parameter.
FORMS = {"command", "flow"}
# A recipe names the arguments of these one by one.
NAMED_IN_RECIPES = {("engine/optim/schedules.py", "plateau")}


def find_crowded_folders(house: House) -> Iterator[Offence]:
    for folder, number in house.folders.items():
        if number > MOST_FILES:
            yield Offence(folder, 1, f"{number} Python files")


def find_wide_functions(house: House) -> Iterator[Offence]:
    for module in house.modules.values():
        for function in module.functions:
            decorators = [one.func for one in function.decorator_list if isinstance(one, ast.Call)]
            number = sum(one.arg not in ("self", "cls") for one in parameters_of(function.args))
            may_be_wide = (module.path, function.name) in NAMED_IN_RECIPES or not FORMS.isdisjoint(
                map(last_name, decorators)
            )
            if number > MOST_PARAMETERS and not may_be_wide:
                what = f"{function.name} has {number} parameters"
                yield Offence(module.path, function.lineno, what)


def parameters_of(arguments: ast.arguments) -> list[ast.arg]:
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [*named, *filter(None, [arguments.vararg, arguments.kwarg])]


def find_long_functions(house: House) -> Iterator[Offence]:
    for module in house.modules.values():
        for function in module.functions:
            if (number := function.end_lineno - function.lineno + 1) > MOST_LINES:
                yield Offence(module.path, function.lineno, f"{function.name} has {number} lines")


def find_summaries(house: House) -> Iterator[Offence]:
    for module in house.ours:
        for node in public_parts(module.tree):
            if ast.get_docstring(node) is not None:
                text = node.body[0].value
                first = module.lines[text.lineno - 1].rstrip()
                said = re.sub("`[^`]*`", "", text.value.lstrip().partition("\n")[0])
                if len(first) > MOST_SUMMARY_COLUMNS or ":" in said or ";" in said:
                    signs = said.count(":") + said.count(";")
                    what = f"{len(first)} columns, {signs} colons and semicolons"
                    yield Offence(module.path, text.lineno, f"first docstring line of {what}")


def public_parts(node: Any) -> Iterator[Any]:
    """A module or class, and its public functions, classes and methods."""
    yield node
    for one in node.body:
        if isinstance(one, (*FUNCTIONS, ast.ClassDef)) and one.name[0] != "_":
            yield from public_parts(one) if isinstance(one, ast.ClassDef) else [one]


def find_wide_lines(house: House) -> Iterator[Offence]:
    for module in [*house.modules.values(), *house.stubs.values()]:
        for number, line in enumerate(module.lines, 1):
            if len(line) > MOST_COLUMNS:
                yield Offence(module.path, number, f"{len(line)} columns")

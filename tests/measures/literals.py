"""Finds kinds, run folders and their files that are named where one object should answer."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from checkout import PACKAGE, House, Module, Offence, last_name, walk
from shape import parameters_of

KINDS = {"image", "text", "number", "category", "labels", "points", "triples"}
# Where a kind may be asked for: in its own room, and where it is a branch of the mathematics.
KIND_ROOMS = (
    *("datasets/kinds/", "engine/metrics/", "engine/metrics.py", "engine/losses.py"),
    *(f"figures/{name}.py" for name in ("classes", "curves", "numbers", "points", "ranks")),
)
SET_OPERATORS = (ast.BitAnd, ast.BitOr, ast.Sub)
# What lies in a run's folder; and whatever `LAYOUT` adds. A split has a schema of its own.
LAYOUT = "runs/layout.py"
LAYOUT_OF_DATA = "datasets/layout.py"
RUN_FILES = {
    *("recipe.yaml", "schema.json", "run.json", "journal.jsonl", "shipped.json", "ship.lock"),
    *("set_aside.jsonl", "error.txt", "transfer.csv", "predictions.parquet"),
    *("best.pt", "last.pt", "start.pt", "optimizer.pt"),
}


def find_kind_tests(house: House) -> Iterator[Offence]:
    constants = {
        last_name(node.targets[0])
        for module in house.ours
        for node in module.tree.body
        if isinstance(node, ast.Assign) and is_kind_literal(node.value)
    } - {""}
    classes = {  # of features, one a kind
        node.name
        for module in house.ours
        if re.match(rf"{PACKAGE}\.(recipe|schema)", module.name)
        for node in module.nodes[ast.ClassDef]
        if any(last_name(base) in ("Feature", "FeatureSchema") for base in node.bases)
    }
    for module in house.ours:
        if not module.path.startswith(KIND_ROOMS):
            for line in lines_of_kind_tests(module, constants, classes):
                yield Offence(module.path, line, "asks for a kind")


def lines_of_kind_tests(module: Module, constants: set[str], classes: set[str]) -> Iterator[int]:
    sets = [node for node in module.nodes[ast.BinOp] if isinstance(node.op, SET_OPERATORS)]
    pairs = [(node.left, node.right) for node in sets]
    for node in module.nodes[ast.Compare]:
        pairs += itertools.pairwise([node.left, *node.comparators])
    for one, other in [*pairs, *((right, left) for left, right in pairs)]:
        if (is_kind_literal(other) or last_name(other) in constants) and is_kind(one):
            yield one.lineno
    asked = [(node.cls.lineno, node.cls) for node in module.nodes[ast.MatchClass]]
    asked += [
        (node.lineno, node.args[1])
        for node in module.nodes[ast.Call]
        if last_name(node.func) == "isinstance" and len(node.args) == 2
    ]
    for line, what in asked:
        if any(last_name(one) in classes for one in walk(what)):
            yield line
    for node in module.nodes[ast.Match]:
        patterns = [one for case in node.cases for one in walk(case.pattern)]
        for one in patterns if is_kind(node.subject) else []:
            if isinstance(one, ast.MatchValue) and is_kind_literal(one.value):
                yield one.lineno


def is_kind_literal(node: ast.expr) -> bool:
    """Whether an expression is the name of a kind, or several such names."""
    values = node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node]
    return any(isinstance(one, ast.Constant) and str(one.value) in KINDS for one in values)


def is_kind(node: ast.expr) -> bool:
    """Whether an expression is a kind, or several, by its name."""
    return re.search(r"""(^|[._'"])kinds?(['"][\])])?$""", ast.unparse(node)) is not None


def find_run_dirs(house: House) -> Iterator[Offence]:
    for module in house.ours:
        for arguments in module.nodes[ast.arguments]:
            found = [one for one in parameters_of(arguments) if one.arg == "run_dir"]
            yield from (Offence(module.path, one.lineno, "takes a run_dir") for one in found)


def find_run_files(house: House) -> Iterator[Offence]:
    texts = [text.value for one in house.ours if one.path == LAYOUT for text in one.strings]
    texts = [text for text in texts if re.fullmatch(r"[\w/]+\.\w+", text)]
    names = RUN_FILES | {text.rpartition("/")[2] for text in texts}
    for module in (one for one in house.ours if one.path not in (LAYOUT, LAYOUT_OF_DATA)):
        for text in module.strings:
            if (name := text.value.rpartition("/")[2]) in names:
                yield Offence(module.path, text.lineno, f"{name} as a literal")

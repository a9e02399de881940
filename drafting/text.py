"""Writes a draft as a YAML recipe whose comments say what was guessed and
why, and checks it before it is there.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..console import saying_still
from ..disk import write_atomic
from ..errors import RecipeError
from ..recipe import Dialect, Recipe, dump_value, load_recipe, parse_yaml
from ..tasks.assembly import check_recipe
from .choice import Choice
from .draft import Draft, default_path, draft_recipe
from .survey import Survey, survey_table

WIDTH = 116

EXPLANATION = """\
torchrelay init TABLE looks at a CSV, TSV or Parquet file and writes a recipe beside it, \
or to --out FILE,
that trains as it is.

One row is one sample; the first line names the columns. For example flowers.csv

    image,label
    tulips/0001.jpg,tulip
    roses/0001.jpg,rose

with the pictures in images/ beside it. Then

    torchrelay init flowers.csv
    torchrelay train flowers.yaml

Columns may be paths of pictures (relative ones), texts, numbers, categories, \
tags (several in a cell), x and y of
points (NAME_x, NAME_y) on a picture, and a column that says train, valid or test; \
or head, relation and tail, the
triples of a knowledge graph. No table at hand? torchrelay fetch digits writes one.
"""


def init_recipe(
    table: Path,
    *,
    files: Path | None,
    target: str,
    force: bool,
    out: Path | None = None,
    dialect: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Path, Draft]:
    """Write a recipe for a table.

    Args:
        table: CSV, TSV or Parquet file.
        files: root of its file paths; looked for where it is None.
        target: column to learn; guessed where it is empty.
        force: write over a recipe that is there.
        out: where the recipe goes; beside the table, under its name, where it is None.
        dialect: how the table is written, as far as the user says it; the rest is looked for.
    Returns:
        Its path, and what was guessed.
    Raises:
        RecipeError: a recipe is there already, or none can be written there.
        DataError: the table cannot be read, or it does not say what to learn from what.
    """
    path = out or default_path(table)
    _check_out(path, table, force=force)
    with saying_still(f"looking at {table.name}"):
        draft = draft_recipe(survey_table(table, files, dialect), target)
    text = write_draft(draft, path)
    check_recipe(parse_draft(text, path))
    write_atomic(path, text)
    return path, draft


def _check_out(path: Path, table: Path, *, force: bool) -> None:
    if path.is_dir():
        raise RecipeError(
            f"{path} is a folder; name a file with --out, such as {path / default_path(table).name}"
        )
    if not path.parent.is_dir():
        raise RecipeError(
            f"the folder {path.parent} is not there; make it, or name another place with --out"
        )
    if path.exists() and table.exists() and path.samefile(table):
        raise RecipeError(f"{path} is the table that is read; name another file with --out")
    if path.exists() and not force:
        raise RecipeError(f"{path} is there already; --force writes over it")


def parse_draft(text: str, path: Path) -> Recipe:
    """The recipe that a text at a path would be.

    Its relative paths start at the path's folder.
    """
    values = parse_yaml(text, str(path))
    data = values["data"]
    data |= {
        key: str(path.absolute().parent / data[key]) for key in ("table", "files") if key in data
    }
    data |= {
        key: [str(path.absolute().parent / one) for one in data[key]]
        for key in ("links",)
        if key in data
    }
    return load_recipe("", None, values)


def write_draft(draft: Draft, path: Path) -> str:
    """The recipe as YAML with comments."""
    survey, folder = draft.survey, path.absolute().parent
    lines = [
        f"# Drafted by torchrelay init from {survey.table.name}: {_size(draft)}.",
        "# The comments say what was guessed and why; change what is wrong. It trains as it is:",
        "#",
        f"#   torchrelay train {path.name}",
        f"#   torchrelay recipe {path.name}    prints all keys with their defaults",
    ]
    lines += ["format_version: 1", f"name: {dump_value(draft.name)}", "data:"]
    lines.append(f"  table: {dump_value(_relative(survey.table, folder))}")
    if survey.files is not None:
        found = survey.num_rows - survey.num_bad_files
        lines += _comment(f"{found:,} of {survey.num_rows:,} files are there.", 2)
        lines.append(f"  files: {dump_value(_relative(survey.files, folder))}")
        if survey.links:
            lines += _comment(
                "Files there are links that lead into these folders; no other link is followed.", 2
            )
            lines.append(
                f"  links: {dump_value([_relative(Path(one), folder) for one in survey.links])}"
            )
    for key, choice in dialect_of(survey).items():
        lines += _field(key, choice, 2)
    if draft.key:
        lines += _field("key", Choice(draft.key, _why_key(draft)), 2)
    for part, features in (("inputs", draft.inputs), ("target", draft.target)):
        lines.append(f"  {part}:")
        for name, choice in features.items():
            lines += [*_comment(_sentence(choice.why), 4), *_feature(name, choice.value)]
    lines += _field("split", draft.split, 2)
    if draft.missing_values:
        lines += _field(
            "missing_values", Choice(draft.missing_values, "what cells say that have no number"), 2
        )
    if draft.rare_classes is not None:
        lines += _field("rare_classes", draft.rare_classes, 2)
    if draft.max_bad_rows is not None:
        lines += _field("max_bad_rows", draft.max_bad_rows, 2)
    if draft.unused:
        lines += _comment("Not used: " + "; ".join(_unused(draft)) + ".", 2)
    lines += _field("model", draft.model, 0)
    lines += ["train:", *_field("epochs", draft.epochs, 2), f"  batch_size: {draft.batch_size}"]
    lines += [*_field("optimizer", draft.optimizer, 2), f"  schedule: {dump_value(draft.schedule)}"]
    if draft.augment.why:
        lines += _field("augment", draft.augment, 2)
    for hint in draft.hints:
        lines += _comment(hint, 2)
    return "\n".join(lines) + "\n"


def dialect_of(survey: Survey) -> dict[str, Choice]:
    """How the table is written, where that is not the default, by the
    recipe's keys.
    """
    default = Dialect()
    changed = {key: getattr(survey.dialect, key) for key in Dialect.model_fields}
    return {
        key: Choice(value, survey.dialect_whys.get(key, ""))
        for key, value in changed.items()
        if value != getattr(default, key)
    }


def describe_draft(draft: Draft) -> list[tuple[str, str]]:
    """What was guessed, for people.

    The part of the recipe, and a sentence.
    """
    said = [("warning", text) for text in draft.survey.warnings]
    for key, choice in dialect_of(draft.survey).items():
        said.append(("table", f"{key}: {dump_value(choice.value)}, {choice.why}"))
    said += [("input", f"{name}: {choice.why}") for name, choice in draft.inputs.items()]
    said += [("target", f"{name}: {choice.why}") for name, choice in draft.target.items()]
    if draft.key_why and draft.key:
        said.append(("key", f"{draft.key}: {_why_key(draft)}"))
    said += [("split", draft.split.why)]
    if draft.survey.files is not None:
        said.append(("files", str(draft.survey.files)))
    if draft.survey.links:
        said.append(
            (
                "links",
                f"files there are links into {', '.join(draft.survey.links)}, which data.links "
                "allows",
            )
        )
    if draft.rare_classes is not None:
        said.append(
            ("classes", f"rare_classes: {draft.rare_classes.value}, as {draft.rare_classes.why}")
        )
    if draft.max_bad_rows is not None:
        said.append(("bad rows", draft.max_bad_rows.why))
    said.append(("model", f"{draft.model.value['name']}: {draft.model.why}"))
    said.append(("epochs", f"{draft.epochs.value}: {draft.epochs.why}"))
    said += [("unused", text) for text in _unused(draft)]
    said += [("hint", text) for text in draft.hints]
    return said


def _why_key(draft: Draft) -> str:
    return f"column {draft.key!r} names each row once" + (
        f"; {draft.key_why}" if draft.key_why else ""
    )


def _relative(path: Path, folder: Path) -> str:
    """A path as seen from a folder.

    Where the folder is a link, `..` leads out of what it points at.
    """
    shown = os.path.relpath(path, folder)
    at = folder / shown
    return (
        shown
        if at.exists() and at.samefile(path)
        else os.path.relpath(path.resolve(), folder.resolve())
    )


def _size(draft: Draft) -> str:
    return f"{draft.survey.num_rows:,} rows, {len(draft.survey.columns):,} columns"


def _unused(draft: Draft) -> list[str]:
    """Columns that nothing reads, those with one reason together."""
    by_reason: dict[str, list[str]] = {}
    for name, why in draft.unused.items():
        by_reason.setdefault(why, []).append(name)
    return [
        f"{', '.join(names[:8])}{', …' if len(names) > 8 else ''} ({why})"
        for why, names in by_reason.items()
    ]


def _field(key: str, choice: Choice, indent: int) -> list[str]:
    comment = _comment(_sentence(choice.why), indent) if choice.why else []
    return [*comment, f"{' ' * indent}{key}: {dump_value(choice.value)}"]


def _feature(name: str, feature: dict[str, Any]) -> list[str]:
    """On one line where it is short.

    Else one key a line, long lists wrapped.
    """
    line = f"    {dump_value(name)}: {dump_value(feature)}"
    if len(line) <= WIDTH:
        return [line]
    lines = [f"    {dump_value(name)}:"]
    for key, value in feature.items():
        # Lists wrap between their items, not inside of them.
        text = re.sub(
            r"\[[^][]*\]", lambda found: found[0].replace(" ", "\0"), f"{key}: {dump_value(value)}"
        )
        wrapped = textwrap.fill(
            text,
            WIDTH,
            initial_indent=" " * 6,
            subsequent_indent=" " * 8,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += wrapped.replace("\0", " ").split("\n")
    return lines


def _comment(text: str, indent: int) -> list[str]:
    before = f"{' ' * indent}# "
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=before,
        subsequent_indent=before,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""

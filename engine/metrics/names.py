"""Names of metrics which every store of MLflow takes.

Parts of names out of labels, and what older runs called them.

The metric of one class, column, tag or direction is `accuracy_of/<class>`, `rmse_of/<column>` and
so on. A store of files keeps `valid/accuracy` as a file, so that nothing may stand below that name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence

# More classes or columns than these get no metric of their own.
MAX_PARTS = 100
# MLflow takes names of 250 characters, file systems 255 bytes between slashes; this leaves room for
# "_std" behind.
MAX_PART_BYTES = 200
OF = "_of"
DEVIATION = "_std"
SPLITS = ("train", "valid", "test")


def name_part(metric: str, part: str) -> str:
    """The name of a metric of one class, column, tag or direction alone."""
    return f"{metric}{OF}/{part}"


def base_of(name: str) -> str:
    """Which metric a name without split and target is of.

    `rmse` of `rmse_of/a`, and of the `rmse/a` of older runs.
    """
    return name.split("/")[0].removesuffix(OF)


def legal_parts(names: Sequence[str], reserved: Iterable[str] = ()) -> list[str]:
    """Turn labels into parts of metric names that any store takes, different
    ones for different labels.

    A label that is legal keeps its name. In others, what is no letter, digit or one of `_-. `
    becomes `_`, as do dots and spaces at the ends; where that is taken, a number follows. Names
    that differ in capitals or accents alone are taken too, as they are one file or one key in some
    stores, and so is the name of another's deviation (`_std`).

    Args:
        names: the labels.
        reserved: names that none may have.
    """
    wanted = [_legal(name) for name in names]
    taken = {_folded(one + end) for one in reserved for end in ("", DEVIATION)}
    parts = dict[int, str]()
    is_changed = [name != part for name, part in zip(names, wanted, strict=True)]
    # Those that keep their names come first.
    for at in sorted(range(len(names)), key=lambda at: (is_changed[at], at)):
        part, number = wanted[at], 1
        while {_folded(part), _folded(part + DEVIATION)} & taken:
            number += 1
            part = f"{_cut(wanted[at], MAX_PART_BYTES - 8)}_{number}"
        taken |= {_folded(part), _folded(part + DEVIATION)}
        parts[at] = part
    return [parts[at] for at in range(len(names))]


def parts_of(labels: Sequence[str]) -> list[str]:
    """Parts of names for labels.

    None where they are too many for metrics of their own.
    """
    return legal_parts(labels) if len(labels) <= MAX_PARTS else []


def former_names(metrics: Iterable[str], prefix: str, labels: Sequence[str]) -> dict[str, str]:
    """What runs of an older version call the metrics of parts.

    By today's name, both without the split.

    Args:
        metrics: those that each part has.
        prefix: before the names, of several targets.
        labels: classes, columns, tags or directions.
    """
    parts = zip(parts_of(labels), _former_parts(labels), strict=False)
    return {
        f"{prefix}{name_part(name, new)}": f"{prefix}{name}/{old}"
        for new, old in parts
        for name in metrics
    }


def names_kept(former: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """The names that a run goes on with, by today's.

    None where it has today's.

    Args:
        former: today's names to older ones, without the split.
        known: names of the metrics that the run has, with the split.
    """
    pairs = {f"{split}/{new}": f"{split}/{old}" for split in SPLITS for new, old in former.items()}
    return pairs if any(old in known for old in pairs.values()) else {}


def _legal(name: str) -> str:
    clean = re.sub(r"[^\w\-. ]", "_", unicodedata.normalize("NFC", name))
    clean = _cut(clean, MAX_PART_BYTES)
    return re.sub(r"^[ .]+|[ .]+$", lambda found: "_" * len(found[0]), clean) or "_"


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")


def _folded(part: str) -> str:
    """What is one name to a file system or a database that heeds neither
    capitals nor accents.
    """
    return "".join(
        one
        for one in unicodedata.normalize("NFKD", part.casefold())
        if not unicodedata.combining(one)
    )


def _former_parts(names: Sequence[str]) -> list[str]:
    """What older versions made of labels.

    Where this is taken, runs of theirs have a number behind it.
    """
    wanted = [_formerly_legal(name) for name in names]
    taken = {name for name, part in zip(names, wanted, strict=True) if name == part}
    parts = []
    for name, part in zip(names, wanted, strict=True):
        unique, number = part, 1
        while name != part and unique in taken:
            number += 1
            unique = part[: MAX_PART_BYTES - len(f"_{number}")] + f"_{number}"
        taken.add(unique)
        parts.append(unique)
    return parts


def _formerly_legal(name: str) -> str:
    clean = re.sub(r"[^\w\-. :/]", "_", name)[:MAX_PART_BYTES]
    illegal = ("", ".", "..")
    if any(part in illegal for part in clean.split("/")):
        clean = clean.replace("/", "_")
    return "_" * max(1, len(clean)) if clean in illegal else clean

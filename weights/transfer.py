"""Which tensor of a source goes where in a new model, row by row where rows
have names; the report of it.

Pure: tensors by key in, tensors by key out. Where the source comes from and what its rows are is
the caller's to say.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..errors import SourceError
from ..recipe import WarmStart
from ..schema import AxisLabels
from .keys import MOST_NAMED, check_patterns, first_keys, fits, match_keys
from .values import check_state, class_of

What = Literal["loaded", "renamed", "grown", "fresh", "missing", "surplus", "mismatch", "excluded"]
ARRIVED: tuple[What, ...] = ("loaded", "renamed", "grown")
# A number of batches that every batch norm has, which teaches nothing.
COUNTER = "num_batches_tracked"

Labels = Mapping[str, Mapping[int, AxisLabels]]


class Entry(NamedTuple):
    """One line of the report.

    Attributes:
        key: of the model; empty for what the source has and the model does not.
        source_key: empty where the source has nothing for it.
        shape, source_shape: None where there is none.
        what: loaded, or renamed: the whole tensor came; grown: the rows that both have, by their
            names; fresh: no row has a name that both have, or none could be told; missing from the
            source; surplus in it; mismatch of shapes; excluded by the recipe. Whatever did not come
            is as the model was built.
        note: how many rows came, or why nothing did.
        frozen: whether it is not trained.
    """

    key: str
    source_key: str
    shape: tuple[int, ...] | None
    source_shape: tuple[int, ...] | None
    what: What
    note: str
    frozen: bool


class Transfer(NamedTuple):
    """What a model begins with.

    All its tensors by key, and where they are from.
    """

    state: dict[str, Tensor]
    entries: list[Entry]


def plan_transfer(
    own: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    settings: WarmStart,
    labels: Labels,
    place: str,
) -> Transfer:
    """Put a source's tensors in the place of a new model's, as far as they fit.

    Args:
        own: the model as it was built.
        source: what it begins from.
        settings: the recipe's part: rename, exclude, freeze.
        labels: by key and dimension, what stands at each position where that is not the same in
            both.
        place: the source, for messages.
    Raises:
        RecipeError: a pattern fits no key.
        SourceError: nothing of the source has a place in the model, or what has one is not finite
            or of another class of number than the model's.
    """
    check_patterns("warm_start.exclude", settings.exclude, own)
    check_patterns("warm_start.freeze", settings.freeze, own)
    matches = match_keys(own, source, settings.rename)
    state: dict[str, Tensor] = {}
    entries: list[Entry] = []
    for key, mine in own.items():
        name = matches.source_of.get(key, "")
        theirs = source[name] if name else None
        what, note, state[key] = "missing", "", mine
        if fits(key, settings.exclude):
            what = "excluded"
        elif theirs is not None:
            what, note, state[key] = _transfer(mine, theirs, labels.get(key, {}))
        if what == "loaded" and key in matches.renamed:
            what = "renamed"
        source_shape = None if theirs is None else tuple(theirs.shape)
        entries.append(
            Entry(
                key, name, tuple(mine.shape), source_shape, what, note, fits(key, settings.freeze)
            )
        )
    entries += [
        Entry("", name, None, tuple(source[name].shape), "surplus", "", frozen=False)
        for name in matches.surplus
    ]
    if not any(entry.what in ARRIVED and not entry.key.endswith(COUNTER) for entry in entries):
        raise SourceError(
            f"nothing of {place} fits the model: {_why_nothing(own, source, entries)}"
        )
    _check_values(own, source, state, entries, place)
    return Transfer(state, entries)


def _check_values(
    own: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    entries: Sequence[Entry],
    place: str,
) -> None:
    """Refuse what arrived and cannot be a model's.

    What was left out, or has no place, may be anything.

    Raises:
        SourceError: names the source's keys and what is wrong with them.
    """
    arrived = [one for one in entries if one.what in ARRIVED]
    # Of what grew, the rows that came: they have the shape of the model's.
    theirs = {
        one.source_key: state[one.key] if one.what == "grown" else source[one.source_key]
        for one in arrived
    }
    remedy = (
        "leave the keys out with warm_start.exclude, or begin from an intact copy or another source"
    )
    check_state({one.source_key: own[one.key] for one in arrived}, theirs, place, remedy)


def tabulate(entries: Sequence[Entry]) -> str:
    """The report as CSV, a line a key, shapes as 8x3x5x5."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Entry._fields)
    for entry in entries:
        shapes = _shape_text(entry.shape), _shape_text(entry.source_shape)
        frozen = "true" if entry.frozen else "false"
        writer.writerow((entry.key, entry.source_key, *shapes, entry.what, entry.note, frozen))
    return text.getvalue()


def describe(entries: Sequence[Entry], place: str, most: int = 30) -> list[str]:
    """The report for people.

    A summary, then what was not simply loaded.

    Args:
        entries: of a transfer.
        place: the source.
        most: lines for single keys.
    """
    counts = Counter(entry.what for entry in entries)
    said = ", ".join(f"{counts[what]} {what}" for what in get_args(What) if counts[what])
    frozen = sum(entry.frozen for entry in entries)
    own = sum(bool(entry.key) for entry in entries)
    came = sum(counts[what] for what in ARRIVED)
    lines = [
        f"warm start: {came} of {own} keys from {place}: "
        f"{said}{f'; {frozen} frozen' if frozen else ''}"
    ]
    special = [entry for entry in entries if entry.what not in ("loaded", "renamed")]
    rows = [
        (entry.what, entry.key or entry.source_key, _shapes(entry), entry.note)
        for entry in special[:most]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        lines.append(f"  {'  '.join([*cells, row[3]])}".rstrip())
    if len(special) > most:
        lines.append(f"  and {len(special) - most} more, see transfer.csv")
    return lines


def _why_nothing(
    own: Mapping[str, Tensor], source: Mapping[str, Tensor], entries: Sequence[Entry]
) -> str:
    """The ending of the message.

    Tensors of other shapes, else what both have.
    """
    odd = [
        one
        for one in entries
        if one.what in ("mismatch", "fresh") and not one.key.endswith(COUNTER)
    ]
    if odd:
        shown = "; ".join(
            f"{one.key} is {_shape_text(one.shape)}, there {_shape_text(one.source_shape)}"
            + (f" ({one.note})" if one.what == "fresh" else "")
            for one in odd[:MOST_NAMED]
        )
        more = f"; … ({len(odd)} keys)" if len(odd) > MOST_NAMED else ""
        return f"{shown}{more}; take the source's model and its arguments, or another source"
    if any(one.what == "excluded" and one.source_key for one in entries):
        return "warm_start.exclude leaves out all that both have; make its patterns narrower"
    return (
        f"it has {first_keys(source)}; the model has {first_keys(own)}. "
        f"warm_start.rename says what is called how, for example {{'backbone.*': '*'}}"
    )


def _transfer(
    mine: Tensor, theirs: Tensor, labels: Mapping[int, AxisLabels]
) -> tuple[What, str, Tensor]:
    """What comes of one tensor.

    What to call it, a note, and the tensor of the model.
    """
    if class_of(theirs) != class_of(mine):
        return "loaded", "", mine  # not cast, and refused by `_check_values`
    if not labels:
        if mine.shape != theirs.shape:
            return "mismatch", "another shape", mine
        return "loaded", "", theirs.to(mine.dtype).clone()
    if any(not axis.own for axis in labels.values()):
        return "fresh", "it cannot be told which of its positions are which", mine
    if any(not axis.source for axis in labels.values()):
        if mine.shape == theirs.shape:
            return (
                "loaded",
                "by position: the source does not say what its rows are",
                theirs.to(mine.dtype).clone(),
            )
        return "mismatch", "another size, and the source does not say what its rows are", mine
    return _grow(mine, theirs, labels)


def _grow(
    mine: Tensor, theirs: Tensor, labels: Mapping[int, AxisLabels]
) -> tuple[What, str, Tensor]:
    """Copy what stands under the same labels."""
    fits_source = mine.ndim == theirs.ndim and all(
        theirs.shape[dim] == (len(labels[dim].source) if dim in labels else mine.shape[dim])
        for dim in range(theirs.ndim)
    )
    if not fits_source:
        return "mismatch", "another shape, which the source's classes do not explain", mine
    here, there, notes = [], [], []
    for dim in range(mine.ndim):
        if dim not in labels:
            here.append(torch.arange(mine.shape[dim]))
            there.append(torch.arange(mine.shape[dim]))
            continue
        at = {label: position for position, label in enumerate(labels[dim].source)}
        common = [position for position, label in enumerate(labels[dim].own) if label in at]
        here.append(torch.tensor(common, dtype=torch.int64))
        there.append(
            torch.tensor([at[labels[dim].own[position]] for position in common], dtype=torch.int64)
        )
        notes.append(_note(labels[dim], len(common), "rows" if dim == 0 else "columns"))
    if any(not len(positions) for positions in here):
        return "fresh", f"the source has nothing of the same name ({'; '.join(notes)})", mine
    result = mine.clone()
    into, out_of = (torch.meshgrid(*positions, indexing="ij") for positions in (here, there))
    result[into] = theirs[out_of].to(mine.dtype)
    return "grown", "; ".join(notes), result


def _note(axis: AxisLabels, num_common: int, unit: str) -> str:
    known = set(axis.own)
    lost = [label for label in axis.source if label not in known]
    text = f"{num_common} of {len(axis.own)} {unit}"
    return f"{text}, {len(lost)} of the source's {len(axis.source)} left" if lost else text


def _shapes(entry: Entry) -> str:
    own, source = _shape_text(entry.shape), _shape_text(entry.source_shape)
    return own if own == source or not source else f"{source} -> {own}" if own else source


def _shape_text(shape: tuple[int, ...] | None) -> str:
    """Such as 8x3x5x5.

    One number has the shape ().
    """
    if shape is None:
        return ""
    return "x".join(map(str, shape)) or "()"

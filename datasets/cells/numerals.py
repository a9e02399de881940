"""How people write numbers.

Decimal comma, thousands, currency, percent; reads them, and finds out how they do it.

A percentage is read as the number that stands before its sign, 27.4% as 27.4: models standardise,
and reports keep the table's own unit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ...recipe import Dialect

# What a cell says that has no number, in any case; of a label it may be the name.
MISSING_WORDS = frozenset(
    {
        "",
        "na",
        "n/a",
        "n.a.",
        "nan",
        "+nan",
        "-nan",
        "null",
        "nil",
        "none",
        "nat",
        "<na>",
        "#na",
        "#n/a",
        "#n/a n/a",
    }
    | {
        "1.#ind",
        "-1.#ind",
        "1.#qnan",
        "-1.#qnan",
        "?",
        ".",
        "..",
        "-",
        "--",
        "\u2013",
        "\u2014",
        "\u2026",
    }
)
# Of a column's distinct cells so many may say something else, and it still holds numbers that are
# written so.
MOST_OTHERS = 0.02
PERCENT = ("%", "‰")
_MINUS = "−"
_SPACES = " \u00a0\u2009\u202f"
_SIGNS_OF = {",": ",", ".": r"\.", " ": f"[{_SPACES}]", "'": "['’]"}
_CODES = "USD|EUR|GBP|CHF|JPY|CNY|INR|RUB|BRL|SEK|NOK|DKK|PLN|CZK|HUF|AUD|CAD|NZD|MXN|ZAR|KRW|TRY"
_UNIT = rf"(?:(?:US|CA|AU|NZ|HK|[ACR])?\$|[¢£¥֏৳฿₠-₿]|{_CODES}|kr\.?|zł|Kč|Ft|Fr\.|руб\.?|[%‰])"
_CELL = re.compile(
    rf"\(?[+−-]?\s*(?P<before>{_UNIT})?\s*[+−-]?(?P<body>\d[\d.,'’{_SPACES}]*|[.,]\d+)(?:[eE][+-]?\d+)?"
    rf"\s*(?P<after>{_UNIT})?\)?"
)


class Notation(NamedTuple):
    """How the numbers of a table are written.

    The fields are those of the recipe's `data`.
    """

    decimal: str = "."
    thousands: str = ""
    units: tuple[str, ...] = ()


PLAIN = Notation()


class Finding(NamedTuple):
    """How the numbers of a column are written.

    Attributes:
        notation: what reads them.
        examples: cells that need it, with what they are read as.
        is_ambiguous: they would be read by a decimal comma, too, as other numbers.
        has_point: some have a decimal point.
    """

    notation: Notation
    examples: dict[str, float]
    is_ambiguous: bool = False
    has_point: bool = False


def notation_of(dialect: Dialect) -> Notation:
    """How a recipe says that numbers are written."""
    return Notation(dialect.decimal, dialect.thousands, tuple(dialect.units))


def parse_numbers(cells: pd.Series | Sequence[str], notation: Notation = PLAIN) -> np.ndarray:
    """Texts as float64, shape (rows,), correctly rounded.

    NaN where one is no number.
    """
    plain = cells
    if notation.decimal == ",":  # a point beside it parts thousands, or is a mistake
        series = pd.Series(cells, dtype="str")
        plain = (
            None
            if series.str.contains(".", regex=False).any()
            else series.str.replace(",", ".", regex=False)
        )
    try:
        if plain is not None:
            return pc.cast(_as_texts(plain), pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # at least one cell is not a plain number: look at each distinct one
        pass
    ids, values = distinct_cells(cells)
    return np.array([parse_cell(value, notation) for value in values], dtype=np.float64)[ids]


def distinct_cells(cells: pd.Series | Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """The number of each text's value, int32, and the distinct values in the
    order of their first place.

    What pandas' `factorize` says, without what that costs for each column, which those of a wide
    table feel.
    """
    encoded = _as_texts(cells).dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _as_texts(cells: pd.Series | Sequence[str]) -> pa.Array:
    array = pa.array(cells.array if isinstance(cells, pd.Series) else cells, pa.large_string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def parse_cell(cell: str, notation: Notation = PLAIN) -> float:
    """One text as a number.

    NaN where it is none.
    """
    text = cell.strip().replace(_MINUS, "-")
    sign = ""
    if text.startswith("(") and text.endswith(")"):  # as accountants write what is below zero
        sign, text = "-", text[1:-1].strip()
    text = sign + (text if notation == PLAIN else _make_plain(text, notation))
    try:
        return float("nan" if "_" in text else text)
    except ValueError:
        return float("nan")


def unit_of(cell: str, units: Sequence[str]) -> str:
    """Which of these signs stands before or after the number in a cell.

    Empty where none does.
    """
    return _take_unit(cell.strip().replace(_MINUS, "-").removeprefix("(").removesuffix(")"), units)[
        1
    ]


def find_other_units(cells: pd.Series, units: Sequence[str]) -> dict[int, str]:
    """The cells of a column that count in another unit than most, by their row,
    with what to say of them.

    A number without a unit counts in the column's, unless that is percent: 0.5 beside 50% may be
    the same.
    """
    if not units:
        return {}
    ids, values = pd.factorize(cells)
    each = [unit_of(str(value), units) for value in values]
    counts = Counter[str]()
    for number, count in enumerate(np.bincount(ids, minlength=len(each))):
        counts[each[number]] += int(count)
    usual = max((unit for unit in counts if unit), key=lambda unit: counts[unit], default="")
    if usual in PERCENT and counts[""] > counts[usual]:
        usual = ""
    wrong = {
        number: f"another unit than {usual!r}" if usual else "a unit where most have none"
        for number, unit in enumerate(each)
        if unit != usual
        and (unit or usual in PERCENT)
        and str(values[number]).strip().lower() not in MISSING_WORDS
    }
    return {int(row): wrong[int(ids[row])] for row in np.flatnonzero(np.isin(ids, list(wrong)))}


def find_notation(texts: Iterable[str], given: Notation = PLAIN) -> Finding | None:
    """How the numbers of a column are written.

    None where most are none, or two ways contradict each other.

    Args:
        texts: its distinct cells.
        given: a notation that reads some of them, so that the others are examples.
    """
    said = [text.strip() for text in texts]
    said = [text for text in said if text.lower() not in MISSING_WORDS]
    forms = {text: _form_of(text) for text in said}
    known = {text: form for text, form in forms.items() if form is not None}
    if not known or len(known) < (1 - MOST_OTHERS) * len(said):
        return None
    seen = Counter(form.sign for form in known.values())
    units = tuple(sorted({form.unit for form in known.values()} - {""}))
    chosen = _choose_signs(seen)
    if chosen is None:
        return None
    notation = Notation(chosen[0], chosen[1], units)
    unusual = [text for text in known if np.isnan(parse_cell(text, given))]
    unusual.sort(key=lambda text: known[text].sign == "")  # those with a sign first
    examples = {text: parse_cell(text, notation) for text in unusual[:2]}
    return Finding(notation, examples, is_ambiguous=chosen[2], has_point=seen["decimal ."] > 0)


def name_notation(finding: Finding) -> str:
    """What is unusual about numbers, for example `with a decimal comma`."""
    said = ["a decimal comma"] if finding.notation.decimal == "," else []
    if parts := finding.notation.thousands:
        said.append(f"thousands parted by {'spaces' if parts == ' ' else repr(parts)}")
    said += [f"the unit {unit!r}" for unit in finding.notation.units]
    return f"with {' and '.join(said)}" if said else "with a decimal point"


def describe_notation(finding: Finding, given: Notation = PLAIN) -> str:
    """What to set so that such numbers are read, as the recipe writes it.

    Empty where `given` reads them.
    """
    found = finding.notation
    keys = [f'data.decimal: "{found.decimal}"'] if found.decimal != given.decimal else []
    if found.thousands not in ("", given.thousands) or given.thousands == found.decimal:
        keys.append(f'data.thousands: "{found.thousands}"')
    if units := [unit for unit in found.units if unit not in given.units]:
        keys.append(
            "data.units: [" + ", ".join(f'"{unit}"' for unit in [*given.units, *units]) + "]"
        )
    if not keys or not finding.examples:
        return ""
    read = " and ".join(
        f"{cell!r} is then {value:.12g}" for cell, value in finding.examples.items()
    )
    doubt = '; with data.decimal: "," it would be a fraction' if finding.is_ambiguous else ""
    return f"set {' and '.join(keys)} ({read}{doubt})"


class _Form(NamedTuple):
    """How one number is written.

    What its commas, points and spaces are, and its unit.
    """

    sign: str
    unit: str


def _make_plain(text: str, notation: Notation) -> str:
    """The number of a text as Python writes it.

    Something that is no number where it is none.
    """
    text = _take_unit(text, notation.units)[0]
    if notation.thousands:
        parts, fraction = _SIGNS_OF[notation.thousands], re.escape(notation.decimal)
        if re.search(parts, text):
            if not re.fullmatch(
                rf"[+-]?\d{{1,3}}(?:{parts}\d{{2,3}})*{parts}\d{{3}}(?:{fraction}\d*)?", text
            ):
                return "none"
            text = re.sub(parts, "", text)
    if notation.decimal != ".":
        text = "none" if "." in text else text.replace(notation.decimal, ".")
    return text


def _take_unit(text: str, units: Sequence[str]) -> tuple[str, str]:
    """A text without its unit, and the unit.

    `-$5`, `$-5`, `5 $`.
    """
    sign = text[:1] if text[:1] in ("+", "-") else ""
    rest = text[len(sign) :].strip()
    for unit in sorted(units, key=len, reverse=True):
        if rest.startswith(unit):
            return sign + rest.removeprefix(unit).strip(), unit
        if rest.endswith(unit):
            return sign + rest.removesuffix(unit).strip(), unit
    return text, ""


def _form_of(text: str) -> _Form | None:
    found = _CELL.fullmatch(text)
    if found is None:
        return None
    before, after, body = found["before"] or "", found["after"] or "", found["body"].strip()
    if (before and after) or text.startswith("(") != text.endswith(")"):
        return None
    sign = _sign_of(body)
    return None if sign is None else _Form(sign, before or after)


def _sign_of(body: str) -> str | None:
    """What parts the digits of a number.

    Decimal or thousands, or one comma or point that could be either.
    """
    for name, parts in ((" ", f"[{_SPACES}]"), ("'", "['’]")):
        if re.search(parts, body):
            whole = re.fullmatch(rf"\d{{1,3}}(?:{parts}\d{{3}})+(?P<decimal>[.,])?\d*", body)
            return whole and f"{name} {whole['decimal'] or ''}"
    if not re.search("[.,]", body):
        return "small" if len(body) <= 3 else "large"
    for parts, decimal in ((",", "."), (".", ",")):
        one = re.escape(parts)
        if body.count(parts) == 1 and decimal not in body:
            is_group = re.fullmatch(rf"[1-9]\d{{0,2}}{one}\d{{3}}", body)
            return f"either {parts}" if is_group else f"decimal {parts}"
        grouped = rf"\d{{1,3}}(?:{one}\d{{2,3}})*{one}\d{{3}}"
        if body.count(parts) > 1 and re.fullmatch(grouped, body):
            return f"thousands {parts}"
        if re.fullmatch(rf"{grouped}{re.escape(decimal)}\d*", body):
            return f"both {parts}{decimal}"
    return None


def _choose_signs(seen: Counter[str]) -> tuple[str, str, bool] | None:
    """Decimal sign, sign of thousands, and whether another choice would read
    the same cells; None: a contradiction.
    """
    has = {sign for sign, count in seen.items() if count}
    grouped = [name for name in (" ", "'") if any(sign.startswith(f"{name} ") for sign in has)]
    comma_fraction = bool(has & {"decimal ,", "both .,", "  ,", "' ,"})
    point_fraction = bool(has & {"decimal .", "both ,.", "  .", "' ."})
    comma_groups, point_groups = (
        bool(has & {"thousands ,", "both ,."}),
        bool(has & {"thousands .", "both .,"}),
    )
    if (
        (comma_fraction and (point_fraction or comma_groups))
        or (point_groups and point_fraction)
        or len(grouped) > 1
    ):
        return None
    if comma_groups and point_groups:
        return None
    if comma_fraction or point_groups:
        groups = grouped[0] if grouped else "." if point_groups or "either ." in has else ""
        return ",", groups, False
    if comma_groups:
        return ".", ",", False
    if "either ," not in has:
        return ".", grouped[0] if grouped else "", False
    if grouped:
        return ",", grouped[0], False
    return ".", ",", not (point_fraction or ("small" in has and "large" not in has))

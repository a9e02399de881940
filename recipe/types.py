"""Bounds on a recipe's numbers and texts, and marks of its settings.

`recipe/model.py` says what they mean. A bound is not what is sensible, but what the machine, or the
libraries that get the value, can take. A mark says whether a run that goes on may change the
setting.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

# Text codecs of Python that read no tables: for names of hosts and for Python's own source, or that
# refuse everything.
NO_ENCODINGS = ("idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape")
MOST_CHARACTERS = 250  # of a name: what MLflow takes
MOST_CHANNELS = 65_536


@dataclass(frozen=True)
class Fixed:
    """Mark of a setting that only a new run can change."""


@dataclass(frozen=True)
class MayChange:
    """Mark of a setting that a run may change when it goes on.

    Attributes:
        args: of something that has variants, the arguments that may change; none means all of it.
        beside_curves: whether a step gives the same points with another value.
    """

    args: tuple[str, ...] = ()
    beside_curves: bool = False


FIXED, MAY_CHANGE, BESIDE_CURVES = Fixed(), MayChange(), MayChange(beside_curves=True)


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(
            "expected characters that can be printed: no line ends, no NUL, none that steer a "
            "terminal"
        )
    return text


def _check_encoding(encoding: str) -> str:
    """Refuse codecs that no table can have.

    Whether a codec of this name exists is checked when the table is read.
    """
    try:
        name = codecs.lookup(encoding).name.replace("_", "-")
    except (LookupError, ValueError):
        return encoding
    if name in NO_ENCODINGS:
        raise ValueError(
            "no encoding that a table is written in; utf-8, cp1252 and shift_jis are some"
        )
    return encoding


def _check_delimiter(delimiter: str) -> str:
    """Refuse signs that end a line or quote.

    How many characters are allowed is checked when the table is read.
    """
    if delimiter == '"' or not delimiter.replace("\t", "").isprintable():
        raise ValueError(
            'expected one character that can be printed and is no quote, or a tab, "\\t"'
        )
    return delimiter


def _as_text(value: object) -> object:
    is_short = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18
    return str(value) if is_short else value


def _check_channels(channels: str) -> str:
    if channels in ("rgb", "gray"):
        return channels
    if not re.fullmatch(r"0*[1-9][0-9]{0,4}", channels, re.ASCII) or int(channels) > MOST_CHANNELS:
        raise ValueError(f"expected rgb, gray or a number of channels up to {MOST_CHANNELS:,}")
    return channels


Text = Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(_check_printable)]
"""A name or a word that people read."""
Encoding = Annotated[Text, AfterValidator(_check_encoding)]
"""An encoding of text that Python has."""
Delimiter = Annotated[str, AfterValidator(_check_delimiter)]
"""What stands between the fields of a line; empty where the file's suffix says it."""
Channels = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_channels)]
"""rgb, gray, or how many."""
Pixels = Annotated[int, Field(ge=1, le=65_536)]
"""Pixels of an image's side."""
Place = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A position in a list that the table decides, or a number of entries of one."""
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""How many epochs, rows, steps, batches."""
CountOrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""The same, where 0 says that there are none or no limit."""
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""What torch's generators take."""
Workers = Annotated[int, Field(ge=0, le=256)]
"""Processes beside this one."""
Words = Annotated[int, Field(ge=1, le=100)]
"""Words or characters in a row."""

"""The spelling of classes, categories and tags.

Which texts are one, and what the one is called; reads no table.

Unicode's composed form (NFC) is always one spelling. What else counts is the recipe's to say
(`Spelling`); what a model knows already is found again in a few more spellings (`match_known`),
those of other kinds of files among them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

import pandas as pd

from ...recipe import Spelling

# What is not seen at all: zero-width space, word joiner, byte order mark, soft hyphen, marks of
# direction. Joiners of letters (U+200C, U+200D) are none: they make other letters and other emoji.
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f"))
_SPACES = re.compile(r"\s+")
_NUMBER = re.compile(r"[+-]?([0-9]{1,200}\.?[0-9]{0,200}|\.[0-9]{1,200})([eE][+-]?[0-9]{1,3})?")
_CODE = re.compile(r"\s*[+-]?0[0-9].*", re.DOTALL)
_AS_NUMBERS = {"true": "1", "false": "0"}
_MOST_ZEROS = 30
_LOOSEST = Spelling(strip=True, fold_case=True, numbers=True)
# The fewest settings that make texts one come first.
_SETTINGS = tuple(
    Spelling(strip=strip, fold_case=fold_case, numbers=numbers)
    for strip, fold_case, numbers in (
        (True, False, False),
        (False, False, True),
        (False, True, False),
        (True, False, True),
        (True, True, False),
        (False, True, True),
        (True, True, True),
    )
)


class LookAlikes(NamedTuple):
    """Texts of one column that a rule of spelling would make one.

    Attributes:
        groups: the texts, two or more that look alike each.
        rule: what the recipe could say.
    """

    groups: list[list[str]]
    rule: Spelling


def compose(text: str) -> str:
    """The text in Unicode's composed form, in which é is one letter however
    it was typed.
    """
    return unicodedata.normalize("NFC", text)


def compose_cells(cells: pd.Series) -> pd.Series:
    """Text cells in the composed form."""
    return cells if all(map(str.isascii, cells)) else cells.str.normalize("NFC")


def strip_unseen(text: str) -> str:
    """The text without white space of any kind at its ends, and without what is
    not seen; inner white space is one space.
    """
    return _SPACES.sub(" ", text.translate(_UNSEEN)).strip()


def spell(text: str, rule: Spelling) -> str:
    """The one spelling of all texts that a rule takes for the same.

    Args:
        text: of a cell, a class or a tag.
        rule: what does not count.
    Returns:
        In the composed form; with `numbers` a number as short as it can be written, and true or
        false in small letters.
    """
    text = compose(text)
    if rule.strip:
        text = strip_unseen(text)
    if rule.numbers:
        text = _spell_value(text)
    if rule.fold_case:
        text = compose(unicodedata.normalize("NFKC", text).casefold())
    return text


def find_look_alikes(texts: Sequence[str], rule: Spelling) -> LookAlikes | None:
    """The texts that differ by capitals, white space, or how a number is
    written, and no more; None where none do.

    Args:
        texts: distinct, as `rule` spells them.
        rule: of the recipe; what it makes one is one already.
    """
    groups = _group(texts, _LOOSEST)
    if not groups:
        return None
    alike = [text for group in groups for text in group]
    wanted = next(
        one for one in _SETTINGS if len({spell(text, one) for text in alike}) == len(groups)
    )
    merged = {name: getattr(rule, name) or getattr(wanted, name) for name in Spelling.model_fields}
    return LookAlikes(groups, Spelling(**merged))


def match_known(texts: Sequence[str], known: Sequence[str], rule: Spelling) -> list[str]:
    """Each text in the spelling of a model that knows it.

    Others stay as they are.

    A text is known that is written as a class of the model, or else that is one with a single class
    by the rule, by what a number or true and false is written like in other files, or by white
    space. Where the model's classes are 0 and 1, true is 1 and false is 0, and the other way round.
    Where 7 or 07 stands in the table, too, 007 is no number but a code, and stays as it is.

    Args:
        texts: distinct, of a new table.
        known: the model's classes.
        rule: of the recipe that the table is read by.
    """
    exact = set(known)
    found = {text: text for text in texts if text in exact}
    written = Spelling(strip=True, fold_case=rule.fold_case, numbers=True)
    for level in (
        lambda one: spell(one, rule),
        lambda one: spell(one, written),
        _as_bit(known, written),
    ):
        left = [text for text in texts if text not in found]
        if not left or level is None:
            break
        name_of = _unique({one: level(one) for one in known})
        matched = {text: name_of[spelt] for text in left if (spelt := level(text)) in name_of}
        num_of = Counter([*found.values(), *matched.values()])
        found |= {
            text: name
            for text, name in matched.items()
            if num_of[name] == 1 or not _CODE.fullmatch(text)
        }
    return [found.get(text, text) for text in texts]


def _as_bit(known: Sequence[str], rule: Spelling) -> Callable[[str], str] | None:
    """What spells true as 1 and false as 0, where the known texts are no
    others.

    Else None.
    """
    if len(known) > len(_AS_NUMBERS):
        return None
    values = {spell(one, rule) for one in known}
    if not (values <= set(_AS_NUMBERS.values()) or values <= set(_AS_NUMBERS)):
        return None
    return lambda text: _AS_NUMBERS.get(spell(text, rule), spell(text, rule))


def _spell_value(text: str) -> str:
    """A number as short as it can be written, true and false in small letters.

    Any other text as it is.
    """
    bare = text.strip()
    if bare.lower() in _AS_NUMBERS:
        return bare.lower()
    if not _NUMBER.fullmatch(bare):
        return text
    number = Decimal(bare)
    if not number:
        return "0"
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    trimmed = "".join(map(str, digits)).lstrip("0")
    short = trimmed.rstrip("0")
    exponent += len(trimmed) - len(short)
    minus = "-" if sign else ""
    if 0 <= exponent <= _MOST_ZEROS:
        return f"{minus}{short}{'0' * exponent}"
    if -_MOST_ZEROS <= exponent + len(short) <= 0:
        return f"{minus}0.{'0' * -(exponent + len(short))}{short}"
    if exponent < 0 < exponent + len(short):
        return f"{minus}{short[:exponent]}.{short[exponent:]}"
    return f"{minus}{short}e{exponent}"


def _group(texts: Sequence[str], rule: Spelling) -> list[list[str]]:
    """Those texts that the rule makes one with others, together."""
    found: dict[str, list[str]] = {}
    for text in texts:
        found.setdefault(spell(text, rule), []).append(text)
    return [group for group in found.values() if len(group) > 1]


def _unique(spelt: dict[str, str]) -> dict[str, str]:
    """From a spelling to the one class that has it.

    Of several nothing is known.
    """
    counts: dict[str, int] = {}
    for value in spelt.values():
        counts[value] = counts.get(value, 0) + 1
    return {value: name for name, value in spelt.items() if counts[value] == 1}

"""What the draft of a recipe says of points in a mirror.

Which of them change places, and by what it was told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# The 68 points of iBUG 300-W (Sagonas et al. 2013, "300 Faces in-the-Wild Challenge", figure 1),
# counted from 0: jaw 0 to 16, brows 17 to 26, nose 27 to 35, eyes 36 to 47, mouth 48 to 67. Pairs
# that change places in a mirror; the points on the middle line are in none.
FACE_POINTS = 68
FACE_SWAP = [
    *([left, 16 - left] for left in range(8)),
    *([left, 43 - left] for left in range(17, 22)),
    [31, 35], [32, 34],
    [36, 45], [37, 44], [38, 43], [39, 42], [40, 47], [41, 46],
    [48, 54], [49, 53], [50, 52], [55, 59], [56, 58],
    [60, 64], [61, 63], [65, 67],
]  # fmt: skip
# The outer corners of the eyes, whose distance is the unit of the challenge's error.
FACE_NORMALISE_BY = [36, 45]

# A side in a name: the word, anywhere; the letter alone, or set off as camel case does it (lEye,
# eyeL).
_LETTER = r"[^\W\d_]"
_WORD = r"(?i:left|right)"
_SIDE = re.compile(
    rf"{_WORD}|(?<!{_LETTER})[lrLR](?!{_LETTER})|(?<!{_LETTER})[lrLR](?=[A-Z][a-z])|(?<=[a-z])[LR](?!{_LETTER})"
)
# A word within another (bright, upright) is a side only where its mate is there.
_WITHIN = re.compile(rf"(?<={_LETTER}){_WORD}")
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
# What may stand where others have l or r: middle, centre, top, bottom, up, down. Any other letter
# is one of a series.
_PLACES = frozenset("lrmctbud")


class Mirror(NamedTuple):
    """What the recipe says of points in a mirror.

    Attributes:
        settings: of the feature, as the recipe writes them; empty where nothing is known.
        why: what they were told by; empty as well.
        augment_why: why pictures may be mirrored; empty where they may not.
    """

    settings: dict[str, Any]
    why: str
    augment_why: str


def choose_mirror(columns: Sequence[str]) -> Mirror:
    """Tell the pairs that change places by the names of the columns, or by
    their number.

    Args:
        columns: x and y of each point, by turns.
    """
    names = [_name_point(first) for first in columns[::2]]
    swap = pair_sides(names)
    if swap:
        alone = [name for at, name in enumerate(names) if not any(at in pair for pair in swap)]
        first, second = (names[at] for at in swap[0])
        why = (
            f"swap are those whose names differ by left and right alone, such as {first} and "
            f"{second}"
        )
        if alone:
            some = ", ".join(alone[:4]) + (", …" if len(alone) > 4 else "")
            why += f"; the others ({some}) are taken to lie in the middle"
        mirrored = (
            "a mirrored picture is one as well, where the points in swap change places; if not, "
            "take flip out"
        )
        return Mirror({"swap": swap}, why, mirrored)
    if len(names) != FACE_POINTS:
        return Mirror({}, "", "")
    why = (
        "68 are taken for the face of iBUG 300-W (Sagonas et al. 2013): swap are its pairs of left "
        "and right, "
        "normalise_by the outer corners of the eyes"
    )
    settings = {"swap": FACE_SWAP, "normalise_by": FACE_NORMALISE_BY}
    return Mirror(settings, why, "mirrored faces are faces: the points in swap change places")


def pair_sides(names: Sequence[str]) -> list[list[int]]:
    """Positions of points whose names differ by left and right alone.

    None where one of a side has no mate.
    """
    at_of = {name: at for at, name in enumerate(names)}
    pairs = []
    for name in names:
        if not _SIDE.search(name) or _counts_letters(name, names):
            continue
        mate = _SIDE.sub(_other_side, name)
        if mate in at_of:
            pairs.append(sorted((at_of[name], at_of[mate])))
        elif not _WITHIN.search(name):
            return []
    return sorted(pair for at, pair in enumerate(pairs) if pair not in pairs[:at])


def _name_point(column: str) -> str:
    """NAME of a column NAME_x or x_NAME."""
    return column[:-2] if column[-2:].lower() == "_x" else column[1:].lstrip("_")


def _other_side(side: re.Match[str]) -> str:
    other = _OTHER[side[0].lower()]
    return (
        other.upper()
        if side[0].isupper()
        else other.capitalize()
        if side[0][0].isupper()
        else other
    )


def _counts_letters(name: str, names: Sequence[str]) -> bool:
    """Whether a single l or r in a name is one letter of a series, as in
    point_a, point_b, …
    """
    for side in _SIDE.finditer(name):
        before, after = name[: side.start()], name[side.end() :]
        alike = {
            one[len(before)]
            for one in names
            if len(one) == len(name) and one == before + one[len(before)] + after
        }
        if len(side[0]) == 1 and any(
            letter.isalpha() and letter.lower() not in _PLACES for letter in alike
        ):
            return True
    return False

"""Other spellings of a file's name.

Those that mean the same file, and the nearest that exist. Follows no path.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import re
import unicodedata
import urllib.parse
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

# In larger folders, and for more names than these, a nearest name is looked for by its letters'
# case and stem alone.
MOST_NAMES = 5_000
MOST_GUESSES = 20
MOST_NEAREST = 3
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_QUOTES = ('""', "''", "“”", "‘’", "``")

# What lies in a folder in the place of a file, by its name, and what to do.
_STAND_INS = {
    ".{}.icloud": "download it from iCloud",
    "{}.dvc": "dvc pull",
    "{}.crdownload": "finish that download",
    "{}.part": "finish that download",
    "{}.partial": "finish that download",
    "{}.download": "finish that download",
    "{}.gz": "unpack it first",
    "{}.gpg": "decrypt it first",
}

BACKSLASH, UNICODE = "\\ for /", "another Unicode form"


def is_windows(cell: str) -> bool:
    """Whether a cell is an absolute path of Windows."""
    return _WINDOWS.match(_strip(cell)) is not None


def respell(cell: str) -> Iterator[tuple[str, str]]:
    """What a cell may mean that names no file as it stands.

    Each with how it is read, the least changed first.
    """
    text = cell
    hows: list[str] = []
    for how, change in _CHANGES:
        if (changed := change(text)) != text:
            text = changed
            hows.append(how)
            yield ", ".join(hows), text


def _strip(cell: str) -> str:
    text = cell.strip()
    while len(text) > 2 and text[0] + text[-1] in _QUOTES:
        text = text[1:-1].strip()
    return text


def _unquote(cell: str) -> str:
    if not re.search(r"%[0-9A-Fa-f]{2}", cell):
        return cell
    try:
        return urllib.parse.unquote(cell, errors="strict")
    except UnicodeDecodeError:
        return cell


_CHANGES = (
    ("spaces or quotes around it", _strip),
    ("file:// before it", lambda cell: re.sub(r"^file://(?!/)", "", cell, flags=re.IGNORECASE)),
    (BACKSLASH, lambda cell: cell.replace("\\", "/")),
    ("%20 and the like", _unquote),
)


class Listing(NamedTuple):
    """The names in a folder.

    Attributes:
        names: as they are.
        composed: by their letters in Unicode's composed form.
        folded: by these in small letters.
        stems: by these without a suffix.
    """

    names: list[str]
    composed: dict[str, list[str]]
    folded: dict[str, list[str]]
    stems: dict[str, list[str]]


class StandIn(NamedTuple):
    """A file in another's place, and what puts that there."""

    name: str
    remedy: str


class Folders:
    """Lists each folder once."""

    def __init__(self, num_guesses: int = MOST_GUESSES) -> None:
        self.list = functools.cache(_list)
        self._num_guesses = num_guesses

    def same_letters(self, folder: str, name: str) -> list[str]:
        """The names in a folder that are this one in another Unicode form."""
        return [] if name.isascii() else self.list(folder).composed.get(_compose(name), [])

    def stand_in(self, folder: str, name: str) -> StandIn | None:
        """What a tool has put in the place of a file that is elsewhere or
        not whole.
        """
        for pattern, remedy in _STAND_INS.items():
            if os.path.lexists(f"{folder}/{pattern.format(name)}"):
                return StandIn(pattern.format(name), remedy)
        return None

    def nearest(self, folder: str, name: str) -> list[str]:
        """The names in a folder that differ by case or suffix, else the most
        similar ones; sorted, a few.
        """
        listing = self.list(folder)
        folded = fold(name)
        found = listing.folded.get(folded) or listing.stems.get(PurePosixPath(folded).stem)
        if (
            found is None
            and len(listing.names) <= MOST_NAMES
            and self._num_guesses > 0
            and len(name) < 256
        ):
            self._num_guesses -= 1
            found = difflib.get_close_matches(name, listing.names, 1, 0.8)
        return sorted(found or [])[:MOST_NEAREST]


def fold(name: str) -> str:
    """A name as a disk that knows neither case nor Unicode form compares it."""
    return _compose(_compose(name).casefold())


def _compose(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _list(folder: str) -> Listing:
    names: list[str] = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    listing = Listing(names, {}, {}, {})
    for name in names:
        folded = fold(name)
        listing.composed.setdefault(_compose(name), []).append(name)
        listing.folded.setdefault(folded, []).append(name)
        listing.stems.setdefault(PurePosixPath(folded).stem, []).append(name)
    return listing

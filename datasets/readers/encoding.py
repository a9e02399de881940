"""What the bytes of a text table are.

Its encoding, broken bytes, text that was decoded wrongly before; parses no CSV.

Encodings other than Unicode's leave no mark in a file. `charset-normalizer` finds those whose text
looks like a language; what they would read otherwise is shown, and never settled in silence.
"""

from __future__ import annotations

import codecs
import encodings.aliases
import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import charset_normalizer

from ...errors import DataError
from ...recipe import nearest

_BLOCK = 1 << 20
# Of those that read the same the first is named.
_CANDIDATES = (
    *(
        "latin_1",
        "cp1252",
        "gb18030",
        "big5",
        "cp932",
        "euc_jp",
        "euc_kr",
        "cp949",
        "cp1251",
        "koi8_r",
        "iso8859_2",
    ),
    *(
        "cp1250",
        "cp1253",
        "iso8859_7",
        "cp1254",
        "iso8859_9",
        "cp1255",
        "iso8859_8",
        "cp1256",
        "iso8859_6",
        "cp1257",
    ),
    *("iso8859_13", "iso8859_15", "iso8859_5", "tis_620", "cp866", "cp850", "cp437", "mac_roman"),
)
_WRITTEN = {
    "latin_1": "latin-1",
    "koi8_r": "koi8-r",
    "cp932": "shift-jis",
    "euc_jp": "euc-jp",
    "euc_kr": "euc-kr",
}
# Scores that lie closer than this do not tell two encodings apart.
_MARGIN = 0.1
_SAMPLE_BYTES, _FEWEST_BYTES = 1 << 16, 1024
# What parts cells; that a cell is beyond ASCII is asked afterwards, as a pattern that asks is slow
# on long cells. The byte of | ends letters of several bytes, too.
_BETWEEN, _BETWEEN_BYTES = (
    re.compile(r'[,;\t|"\r\n]+'),
    re.compile(rb'(?:[,;\t"\r\n]|(?<![\x80-\xff])\|)+'),
)
# Signs that no word has: before or after a letter they are letters of another encoding.
_ODD = "¡¤¦§¨©ª¬¯±²³´¶¸¹º¼½¾¿×÷ˇ˘˙˛˝†‡ˆ˜‰¢¥ƒ"
_SYMBOL = re.compile(
    rf"(?<=[^\W\d_])[{_ODD}]|[{_ODD.replace('¿', '').replace('¡', '')}](?=[^\W\d_])"
)
_WORD = re.compile(r"[^\W\d_]+")
_LATIN = re.compile("[A-Za-z][\u0080-\u024f]|[\u0080-\u024f][A-Za-z]")
_LETTERS = re.compile(r"[A-Za-z\x80-\U0010ffff]+")
_BEYOND = re.compile(r"[^\x00-\x7f]+")
# Of fewer letters than these nothing can be learned: then the more common encoding is taken.
_FEWEST_LETTERS = 4
# Of fewer bytes beyond ASCII than these nothing is sure: what is common is said, too.
_FEWEST_SIGNS = 12
# Bytes that no text of the encoding has are kept as characters of a private plane, so that their
# rows can be found.
_MARK = 0x10F700
MARKS = re.compile(f"[{chr(_MARK)}-{chr(_MARK + 255)}]")
MARKING = "torchrelay.mark"


class Guess(NamedTuple):
    """What a file's encoding seems to be.

    Attributes:
        encoding: as the recipe writes it.
        examples: some of its cells beyond ASCII, decoded.
        others: what else it could be, with how the first cell that differs would read; empty where
            nothing else fits.
        differs: that cell as `encoding` reads it.
    """

    encoding: str
    examples: list[str]
    others: dict[str, str]
    differs: str = ""

    def describe(self) -> str:
        """What was found, by examples, and what else it could be."""
        read = (
            f"it reads {', '.join(map(repr, self.examples))}" if self.examples else "by its bytes"
        )
        if not self.others:
            return read
        rest = ", ".join(f"{text!r} by {name}" for name, text in self.others.items())
        return f"{read}; not sure: {self.differs!r} would be {rest}"


class Broken(NamedTuple):
    """Bytes that an encoding does not have.

    Attributes:
        byte: the first.
        position, line: where it stands; the position is counted from 0, the line from 1.
        is_few: most characters beyond ASCII are right, so that the encoding is, too.
    """

    byte: int
    position: int
    line: int
    is_few: bool


def check_encoding(path: Path, encoding: str) -> None:
    """Refuse what is no text encoding of Python's.

    Raises:
        DataError: names the nearest.
    """
    if not _is_text(encoding):
        known = {
            name.replace("_", "-")
            for name in {*encodings.aliases.aliases.values(), "latin_1"}
            if _is_text(name)
        }
        shown = encoding if len(encoding) <= 40 else f"{encoding[:39]}…"
        raise DataError(
            f"{path}: data.encoding {shown!r} is not a text encoding; "
            f"{nearest(shown.lower(), known)}"
        )


def _is_text(encoding: str) -> bool:
    """Whether bytes become text by it on this machine."""
    try:
        b"-".decode(encoding, errors="ignore")
    except (LookupError, ValueError):
        return False
    return True


def guess_encoding(path: Path) -> Guess:
    """Find the encoding of a file.

    A few broken bytes do not make another of UTF-8.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return Guess("utf-32", [], {})
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return Guess("utf-16", [], {})
    if start.startswith(codecs.BOM_UTF8):
        return Guess("utf-8", [], {})
    zeros = [at for at, byte in enumerate(start) if not byte]
    for parity, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if (
            len(zeros) > len(start) // 16
            and all(at % 2 == parity for at in zeros)
            and _decodes_to_end(path, name)
        ):
            return Guess(name, _cells_in(path, name, []), {})
    broken = find_broken(path, "utf-8")
    if broken is None or broken.is_few:
        return Guess("utf-8", [], {})
    return _guess_national(path)


def find_broken(path: Path, encoding: str) -> Broken | None:
    """The first byte that is not of an encoding, and whether such bytes are
    few.

    None where there is none.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line = 0, 1
    for block in _blocks(path):
        pending = decoder.getstate()[0]
        try:
            decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n") - pending.count(b"\n")
            position = offset - len(pending) + error.start
            return Broken(
                error.object[error.start], position, line, _has_few_broken(path, encoding)
            )
        except UnicodeError:  # a mark of the byte order is missing
            return Broken(block[0] if block else 0, offset, line, is_few=False)
        line += block.count(b"\n")
        offset += len(block)
    return None


def find_utf8(path: Path) -> list[str]:
    """Some cells beyond ASCII of a file that is UTF-8 but for few bytes.

    None where it could be so by chance.
    """
    num_right, num_broken = _count_broken(path, "utf-8")
    if num_right < _FEWEST_LETTERS or 2 * num_broken > num_right:
        return []
    return [_short(piece.decode()) for piece in _sample(path) if _is_utf8(piece)][:3]


def find_mixed(path: Path, encoding: str) -> list[str]:
    """Some cells of a file in an encoding of one byte a letter that are
    UTF-8, such as `GrÃ¼n`, beside others.
    """
    if len(bytes(range(128, 256)).decode(encoding, "replace")) != 128:
        return []
    found = _utf8_among(_sample(path))
    return [
        f"{_short(_text(piece, encoding))!r} for {_short(piece.decode())!r}" for piece in found[:3]
    ]


def find_mojibake(path: Path) -> list[str]:
    """Some pieces of UTF-8 text that look as if UTF-8 had been read as
    Windows-1252 before, such as `GrÃ¼n`.
    """
    found: dict[str, None] = {}
    for block in _blocks(path):
        if block.isascii():
            continue
        for piece in _cells_of(block.decode("utf-8", "ignore")):
            if (right := unmix(piece)) and len(found) < 3:
                found[f"{_short(piece)!r} for {_short(right)!r}"] = None
        if len(found) == 3:
            break
    return list(found)


def unmix(text: str) -> str:
    """A text as it was before its UTF-8 was read as Windows-1252.

    Empty where it was not.
    """
    if not re.search("[ÂÃâÐÑãäåæçèé][^\x00-\x7f]", text):
        return ""
    try:
        raw = b"".join(_to_byte(sign) for sign in text)
        return raw.decode("utf-8")
    except UnicodeError:
        return ""


def describe_mark(text: str) -> str:
    """The first marked byte of a text, in hexadecimal.

    Empty where it has none.
    """
    found = MARKS.search(text)
    return f"0x{ord(found[0]) - _MARK:02x}" if found else ""


def mark(byte: int) -> str:
    """The character that stands for a byte that is no text."""
    return chr(_MARK + byte)


def _mark_errors(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(mark(byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(MARKING, _mark_errors)


def _guess_national(path: Path) -> Guess:
    """The encoding of a file that is none of Unicode's."""
    pieces = _sample(path)
    mixed = set(_utf8_among(pieces))
    pieces = [piece for piece in pieces if piece not in mixed] or pieces
    text = b"\n".join(pieces) + b"\n"
    text *= -(-_FEWEST_BYTES // len(text))  # the detector trusts a short text too little
    found = charset_normalizer.from_bytes(
        text, cp_isolation=list(_CANDIDATES), threshold=0.5, language_threshold=0.1
    )
    scores: dict[str, float] = {}
    for match in found:
        for name in match.could_be_from_charset:
            scores[name] = _score(name, match, pieces)
    names = [name for name in _CANDIDATES if name in scores and _decodes(path, name)]
    has_controls = any(re.search(rb"[\x80-\x9f]", piece) for piece in pieces)
    common = "cp1252" if has_controls and _decodes(path, "cp1252") else "latin_1"
    if not names or _count_letters(pieces) < _FEWEST_LETTERS:
        names = [common, *(name for name in names if name != common)]
        scores[common] = min(scores.values(), default=0.0)
    best = min(names, key=lambda name: scores[name])
    names = sorted((name for name in names if name != best), key=lambda name: scores[name])
    likely = [name for name in names if scores[name] <= scores[best] + _MARGIN]
    is_thin = len({byte for piece in pieces for byte in piece if byte > 0x7F}) < _FEWEST_SIGNS
    usual = ["gb18030", *(() if has_controls and common == "latin_1" else (common,))]
    always = [name for name in usual if is_thin and _decodes(path, name)]
    others, differs = _compare(pieces, best, likely, always)
    return Guess(_written(best), _cells_in(path, best, pieces), others, differs)


def _count_letters(pieces: Sequence[bytes]) -> int:
    """Letters beyond ASCII of distinct words, from which the encoding can be
    learned; signs such as € are none.

    Of words without a plain letter only different letters count: nothing tells what they are.
    """
    text = b"\n".join(pieces).decode("cp1252", "replace")
    odd = {found.start() for found in _SYMBOL.finditer(text)}

    def drop_sign(found: re.Match[str]) -> str:
        return found[0] if len(found[0]) > 1 or found[0].isalpha() or found.start() in odd else " "

    words = set(_LETTERS.findall(_BEYOND.sub(drop_sign, text)))
    mixed = [word for word in words if re.search("[A-Za-z]", word)]
    others = {sign for word in words.difference(mixed) for sign in word}
    return sum(sign > "\x7f" for word in mixed for sign in word) + len(others)


def _compare(
    pieces: Sequence[bytes], best: str, names: Sequence[str], always: Sequence[str]
) -> tuple[dict[str, str], str]:
    """How the first cell that differs would read by each of the others, and how
    it does by the best.

    Args:
        pieces: of the file.
        best: its encoding.
        names: of the others, of which three are named.
        always: those that are named, too.
    """
    others: dict[str, str] = {}
    differs = ""
    reads = [b"\n".join(pieces).decode(best, "replace")]
    for name in [*names, *always]:
        read = b"\n".join(pieces).decode(name, "replace")
        if read in reads or (len(others) >= 3 and name not in always):
            continue
        reads.append(read)
        at = next(
            at
            for at, piece in enumerate(pieces)
            if piece.decode(name, "replace") != _text(piece, best)
        )
        differs = differs or _short(_text(pieces[at], best))
        others[_written(name)] = _short(_text(pieces[at], name))
    return others, differs


def _score(name: str, match: charset_normalizer.CharsetMatch, pieces: Sequence[bytes]) -> float:
    """How unlikely it is that texts are of an encoding.

    The detector's mess, and signs that words do not have.
    """
    text = b"\n".join(pieces).decode(name, "replace")
    beyond = sum(sign > "\x7f" for sign in text)
    odd = len(_SYMBOL.findall(text)) + sum(
        one.islower() and other.isupper() and not (one + other).isascii()
        for one, other in itertools.pairwise(text)
    )
    half = sum("\uff61" <= sign <= "\uff9f" for sign in text) / max(
        1, beyond
    )  # katakana of old terminals: rare
    controls = sum("\x80" <= sign <= "\x9f" for sign in text) / max(1, beyond)
    rare = 0.1 if name == "cp949" and "euc_kr" not in match.could_be_from_charset else 0.0
    words = [word for word in _WORD.findall(text) if not word.isascii()]
    mixed = sum(_is_odd_mixture(word) for word in words) / max(1, len(words))
    return (
        match.chaos
        + mixed / 2
        + 3 * odd / max(1, beyond)
        + controls
        + rare
        + half / 50
        - 0.3 * match.coherence
    )


def _is_odd_mixture(word: str) -> bool:
    """Whether a word of Latin letters has no plain one, or one of another
    script has some.
    """
    is_latin = any(unicodedata.name(sign, "").startswith("LATIN") for sign in word if sign > "\x7f")
    has_plain = any(sign < "\x80" for sign in word)
    return (is_latin and not has_plain and len(word) > 2) or (has_plain and not is_latin)


def _utf8_among(pieces: Sequence[bytes]) -> list[bytes]:
    """The pieces that are UTF-8, and not by chance.

    Latin with plain letters, or a third of all.
    """
    found = [piece for piece in pieces if _is_utf8(piece)]
    if len(found) >= max(_FEWEST_LETTERS, len(pieces) / 3):
        return found
    return [piece for piece in found if _LATIN.search(piece.decode())]


def _is_utf8(piece: bytes) -> bool:
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return False
    return not any(_is_odd_mixture(word) for word in _WORD.findall(text) if not word.isascii())


def _sample(path: Path) -> list[bytes]:
    """Distinct pieces of a file's cells beyond ASCII."""
    found: dict[bytes, None] = {}
    size = 0
    for block in _blocks(path):
        for piece in () if block.isascii() else _BETWEEN_BYTES.split(block):
            if not piece.isascii() and piece.strip() not in found:
                found[piece.strip()] = None
                size += len(piece)
            if size > _SAMPLE_BYTES:
                return list(found)
    return list(found)


def _cells_of(text: str) -> list[str]:
    """The cells beyond ASCII of a part of a table."""
    return [cell for cell in _BETWEEN.split(text) if not cell.isascii()]


def _cells_in(path: Path, encoding: str, pieces: Sequence[bytes]) -> list[str]:
    """Some cells as an encoding reads them, at most three."""
    if not pieces:
        with path.open(encoding=encoding, errors="replace") as file:
            return [_short(cell) for cell in dict.fromkeys(_cells_of(file.read(1 << 16)))][:3]
    return [
        _short(cell) for cell in dict.fromkeys(_text(piece, encoding) for piece in pieces[:20])
    ][:3]


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in _blocks(path):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True


def _decodes_to_end(path: Path, encoding: str) -> bool:
    """Whether a file is of an encoding, but perhaps for a last character
    that was cut.
    """
    broken = find_broken(path, encoding)
    return broken is None or broken.position + 4 > path.stat().st_size


def _has_few_broken(path: Path, encoding: str) -> bool:
    """Whether at most half as many bytes are broken as there are characters
    beyond ASCII that are not.
    """
    num_right, num_broken = _count_broken(path, encoding)
    return 2 * num_broken <= num_right


def _count_broken(path: Path, encoding: str) -> tuple[int, float]:
    """How many characters beyond ASCII are of an encoding, and how many
    bytes are not; of hopeless files the start.
    """
    decoder = codecs.getincrementaldecoder(encoding)(MARKING)
    num_broken = num_right = 0
    for block in _blocks(path):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeError:  # what cannot go on behind a broken byte, as UTF-32 without its mark
            return num_right, math.inf
        if not text.isascii():
            broken = len(MARKS.findall(text))
            num_broken += broken
            num_right += len(re.findall("[^\x00-\x7f]", text)) - broken
        if num_broken > 10_000 + num_right:  # marking is slow, and this will not turn
            break
    return num_right, num_broken


def _blocks(path: Path) -> Iterator[bytes]:
    """A file's bytes in parts, and an empty one at its end."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
    yield b""


def _to_byte(sign: str) -> bytes:
    """The byte that Windows-1252, as browsers read it, makes a character of."""
    try:
        return sign.encode("cp1252")
    except UnicodeEncodeError:
        return sign.encode("latin-1")


def _text(piece: bytes, encoding: str) -> str:
    return piece.decode(encoding, "replace").strip()


def _written(name: str) -> str:
    return _WRITTEN.get(name, name.replace("_", "-"))


def _short(text: str) -> str:
    return text.strip() if len(text.strip()) <= 40 else f"{text.strip()[:39]}…"

"""What a file really is, by its first bytes, whatever its name says.

Of those that are no picture or no table.

For messages alone: what is read decides by its own signs. Knows no recipe.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import NamedTuple

from ...errors import DataError

# Bytes from a file's beginning that are enough to tell.
HEAD_BYTES = 4096
SAVE_PICTURE = "save it as PNG, JPEG or TIFF"
SAVE_TABLE = "save it as CSV or Parquet"
_CONTROLS = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")
_UNPACK = "unpack it first"
_FETCH = "get it whole again"
_DECRYPT = "decrypt it first"


class Contents(NamedTuple):
    """What a file is.

    Attributes:
        what: in words, as the end of "it is".
        remedy: what to do whatever the file was to be; empty where it is to be saved in another
            format.
    """

    what: str
    remedy: str = ""

    @property
    def is_picture(self) -> bool:
        """Whether it is of a format that is read."""
        return self.what.startswith("a picture")


def name_contents(head: bytes) -> Contents | None:
    """What a file is that begins so.

    None where that is not known.

    Args:
        head: its first `HEAD_BYTES`, or all of them.
    """
    if not head:
        return Contents(
            "an empty file",
            f"{_FETCH}: a cloud's placeholder has no bytes before it is opened there",
        )
    if not head.strip(b"\0"):
        return Contents("nothing but zero bytes", f"{_FETCH}: a download or a copy was cut off")
    if (text := _decode(head)) is not None:
        return _name_text(text, is_whole=len(head) < HEAD_BYTES)
    is_binary = (
        _CONTROLS.search(head.decode("latin-1")) is not None
    )  # else letters of another encoding than UTF-8
    for offset, sign, contents in _SIGNS:
        if head.startswith(sign, offset) and (is_binary or not sign.isascii()):
            return contents
    return _name_box(head) or _name_zip(head)


def check_table_file(path: Path) -> None:
    """Refuse a table's file that is not what its suffix says.

    Raises:
        DataError: says what it is, and what to do.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    contents, suffix = name_contents(head), path.suffix.lower()
    is_parquet = head.startswith(b"PAR1")
    if (
        not head
        or contents is None
        or (is_parquet if suffix == ".parquet" else contents in (TEXT, _SCRIPT))
    ):
        return
    if suffix == ".parquet" and contents == TEXT:
        raise DataError(
            f"{path} is named {suffix}, but it is a text file; name it .csv if it is a table"
        )
    raise DataError(
        f"{path} is named {suffix}, but it is {contents.what}; {contents.remedy or SAVE_TABLE}"
    )


def _name_box(head: bytes) -> Contents | None:
    """Files of the ISO base media format.

    A box `ftyp` that names a brand.
    """
    if head[4:8] != b"ftyp":
        return Contents("a QuickTime film") if head[4:8] in (b"moov", b"mdat", b"wide") else None
    brands = head[8 : int.from_bytes(head[:4], "big")]
    if any(brand in brands for brand in (b"avif", b"avis")):
        return Contents("AVIF")
    if any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1")):
        return Contents("HEIC", "convert it to JPEG or PNG, for example with heif-convert")
    return Contents("a Canon raw picture" if b"crx " in brands else "a film (MP4 or MOV)")


def _name_zip(head: bytes) -> Contents | None:
    if not head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return None
    for sign, contents in _IN_ZIP:
        if sign in head:
            return contents
    flags = int.from_bytes(head[6:8], "little")
    return (
        Contents("an encrypted ZIP archive", "decrypt and unpack it first") if flags & 1 else _ZIP
    )


def _name_text(text: str, *, is_whole: bool) -> Contents:
    """Pages, pointers and other text."""
    start = text.lstrip("\ufeff \t\r\n")
    for pattern, contents in _TEXTS:
        if pattern.match(start):
            return contents
    if start.startswith(("{", "[")) and _is_json(start, is_whole=is_whole):
        return Contents("JSON", "look into it: a server may have answered with an error")
    return TEXT


def _decode(head: bytes) -> str | None:
    """The bytes as text.

    None where they are none.
    """
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        if len(head) < HEAD_BYTES or error.start < len(head) - 3:  # else a letter is cut in two
            return None
        text = head[: error.start].decode(encoding, "ignore")
    return None if _CONTROLS.search(text) else text


def _is_json(text: str, *, is_whole: bool) -> bool:
    try:
        json.loads(text if is_whole else text.partition("\n")[0])
    except ValueError:
        return not is_whole and re.match(r'[\[{]\s*[\[{"]', text) is not None
    except RecursionError:
        return True
    return True


def is_camera_raw(data: bytes) -> bool:
    """Whether a TIFF is a camera's raw picture (DNG, NEF, CR2, ARW), whose
    first page is a small preview.
    """
    if data[8:10] == b"CR" or data[:4] not in (b"II*\0", b"MM\0*"):
        return data[8:10] == b"CR"
    order = "<" if data[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(f"{order}I", data, 4)
        (num,) = struct.unpack_from(f"{order}H", data, at)
        tags = dict(
            struct.unpack_from(f"{order}H6xI", data, at + 2 + 12 * number) for number in range(num)
        )
    except struct.error:
        return False
    is_preview = tags.get(_NEW_SUBFILE_TYPE) == 1
    return _DNG_VERSION in tags or (is_preview and _SUB_IFDS in tags and _MAKE in tags)


TEXT, _SCRIPT = Contents("a text file"), Contents("a script")
_NEW_SUBFILE_TYPE, _MAKE, _SUB_IFDS, _DNG_VERSION = 254, 271, 330, 50706
_ZIP = Contents("a ZIP archive", _UNPACK)
_IN_ZIP = (
    (b"xl/", Contents("an Excel workbook")),
    (b"word/", Contents("a Word document")),
    (b"ppt/", Contents("a PowerPoint presentation")),
    (
        b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet",
        Contents("an OpenDocument spreadsheet"),
    ),
    (b"mimetypeapplication/vnd.oasis.opendocument", Contents("an OpenDocument file")),
    (b"[Content_Types].xml", Contents("an Office document")),
    (b"data.pkl", Contents("a file of torch.save")),
    (b".npy", Contents("an archive of arrays (npz)", "save each array as .npy")),
)
_POINTERS = (
    (r"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer", "git lfs pull"),
    (r"version https://hawser\.github\.com/spec/", "a Git LFS pointer", "git lfs pull"),
    (r"/annex/objects/|(\.\./)*\.git/annex/objects/", "a pointer of git-annex", "git annex get"),
    (r"outs:\s*\n\s*- *(md5|etag|hash|path|size):", "a pointer of DVC", "dvc pull"),
    (r"-----BEGIN PGP MESSAGE-----", "an encrypted file (PGP)", _DECRYPT),
    (r"age-encryption\.org/v1", "an encrypted file (age)", _DECRYPT),
    (r"\$ANSIBLE_VAULT;", "an encrypted file (Ansible)", _DECRYPT),
)
_PAGE = Contents("a web page (HTML)", "download the file itself: a server answered with a page")
_TEXTS: tuple[tuple[re.Pattern[str], Contents], ...] = (
    *((re.compile(pattern), Contents(what, remedy)) for pattern, what, remedy in _POINTERS),
    (
        re.compile(
            r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg[\s>]", re.I | re.S
        ),
        Contents("SVG"),
    ),
    (
        re.compile(
            r"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body)[\s>]", re.I | re.S
        ),
        _PAGE,
    ),
    (
        re.compile(r"<\?xml\s"),
        Contents("XML", "look into it: a server may have answered with an error"),
    ),
    (
        re.compile(r"\[InternetShortcut\]", re.I),
        Contents("an internet shortcut", "download what it leads to"),
    ),
    (re.compile(r"#!"), _SCRIPT),
    (re.compile(r"%!PS"), Contents("PostScript")),
    (re.compile(r"%PDF-"), Contents("PDF")),
    (re.compile(r"SIMPLE  ="), Contents("FITS")),
    (
        re.compile(r"XSym\n"),
        Contents("a link that Samba wrote as a file", "name the file that it leads to"),
    ),
    (re.compile(r"\{\\rtf"), Contents("RTF")),
)
_OLE = Contents("an old Office document")
# Where a sign stands, the sign, and what it says. Signs of two letters come with what must follow.
_SIGNS: tuple[tuple[int, bytes, Contents], ...] = (
    (0, b"%PDF", Contents("PDF")),
    (0, b"PAR1", Contents("Parquet", "name it .parquet")),
    (0, b"PARE", Contents("encrypted Parquet", _DECRYPT)),
    (0, b"ARROW1", Contents("Arrow (Feather)")),
    (0, b"ORC", Contents("ORC")),
    (0, b"SQLite format 3\0", Contents("an SQLite database")),
    (0, b"\x89HDF\r\n\x1a\n", Contents("HDF5 (also NetCDF and MAT files)")),
    (0, b"CDF\x01", Contents("NetCDF")),
    (0, b"CDF\x02", Contents("NetCDF")),
    (0, b"MATLAB 5.0 MAT-file", Contents("a MAT file")),
    (0, b"SIMPLE  =", Contents("FITS")),
    (128, b"DICM", Contents("DICOM")),
    (0, b"8BPS", Contents("a Photoshop file (PSD)")),
    (0, b"gimp xcf", Contents("a GIMP file (XCF)")),
    (0, b"FUJIFILMCCD-RAW", Contents("a raw picture of a camera")),
    (0, b"FOVb", Contents("a raw picture of a camera")),
    (0, b"IIU\0", Contents("a raw picture of a camera")),
    (0, b"IIRO", Contents("a raw picture of a camera")),
    (0, b"\0MRM", Contents("a raw picture of a camera")),
    (0, b"II\xbc\x01", Contents("JPEG XR")),
    (0, b"\xff\x0a", Contents("JPEG XL")),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", Contents("JPEG XL")),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", Contents("JPEG 2000")),
    (0, b"\xff\x4f\xff\x51", Contents("JPEG 2000")),
    (0, b"v/1\x01", Contents("OpenEXR")),
    (0, b"#?RADIANCE", Contents("a Radiance picture (HDR)")),
    (0, b"DDS ", Contents("a DirectDraw texture (DDS)")),
    (0, b"\0\0\x01\0", Contents("an icon (ICO)")),
    (0, b"icns", Contents("an icon (ICNS)")),
    (0, b"AT&TFORM", Contents("DjVu")),
    (0, b"\xc5\xd0\xd3\xc6", Contents("PostScript")),
    (0, b"\x1f\x8b", Contents("a gzip archive", _UNPACK)),
    (0, b"BZh", Contents("a bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ\0", Contents("an xz archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Contents("a zstd archive", _UNPACK)),
    (0, b"\x04\x22\x4d\x18", Contents("an lz4 archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Contents("a 7-Zip archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", Contents("a RAR archive", _UNPACK)),
    (257, b"ustar", Contents("a tar archive", _UNPACK)),
    (
        0,
        b"\0\x05\x16\x07",
        Contents("a side file of macOS (AppleDouble, ._NAME)", "leave it out of the table"),
    ),
    (
        0,
        b"\0\x05\x16\0",
        Contents("a side file of macOS (AppleSingle)", "leave it out of the table"),
    ),
    (
        0,
        b"book\0\0\0\0mark\0\0\0\0",
        Contents("an alias of macOS", "name the file that it leads to"),
    ),
    (
        0,
        b"L\0\0\0\x01\x14\x02\0",
        Contents("a Windows shortcut (.lnk)", "name the file that it leads to"),
    ),
    (
        0,
        b"bplist00",
        Contents(
            "a property list of macOS, as iCloud puts it in a file's place", "download the file"
        ),
    ),
    (
        0,
        b"IntxLNK\x01",
        Contents("a link of Cygwin or Services for Unix", "name the file that it leads to"),
    ),
    (0, b"!<symlink>", Contents("a link of Cygwin", "name the file that it leads to")),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OLE),
    (0, b"\x7fELF", Contents("a program")),
    (0, b"\xcf\xfa\xed\xfe", Contents("a program")),
    (0, b"\xca\xfe\xba\xbe", Contents("a program")),
    (0, b"MZ", Contents("a program")),
    (0, b"\x1aE\xdf\xa3", Contents("a film (Matroska or WebM)")),
    (0, b"FLV\x01", Contents("a film (FLV)")),
    (0, b"\0\0\x01\xba", Contents("a film (MPEG)")),
    (0, b"\0\0\x01\xb3", Contents("a film (MPEG)")),
    (8, b"AVI LIST", Contents("a film (AVI)")),
    (8, b"WAVE", Contents("sound (WAV)")),
    (0, b"ID3", Contents("sound (MP3)")),
    (0, b"OggS", Contents("sound or a film (Ogg)")),
    (0, b"fLaC", Contents("sound (FLAC)")),
    (0, b"\x93NUMPY", Contents("an array (npy)")),
    (0, b"\x80\x02", Contents("a pickle, which is not read because it could run a program")),
    (0, b"\x80\x03", Contents("a pickle, which is not read because it could run a program")),
    (0, b"\x80\x04\x95", Contents("a pickle, which is not read because it could run a program")),
    (0, b"\x80\x05\x95", Contents("a pickle, which is not read because it could run a program")),
    (0, b"LUKS\xba\xbe", Contents("an encrypted disk", _DECRYPT)),
    (0, b"Salted__", Contents("an encrypted file (OpenSSL)", _DECRYPT)),
    (0, b"\x85\x01", Contents("an encrypted file (PGP)", _DECRYPT)),
    (0, b"\x84\x8c", Contents("an encrypted file (PGP)", _DECRYPT)),
    (0, b"\x84\x5e", Contents("an encrypted file (PGP)", _DECRYPT)),
    (0, b"\x89PNG\r\n\x1a\n", Contents("a picture (PNG)")),
    (0, b"\xff\xd8\xff", Contents("a picture (JPEG)")),
    (0, b"GIF8", Contents("a picture (GIF)")),
    (0, b"II*\0", Contents("a picture (TIFF)")),
    (0, b"MM\0*", Contents("a picture (TIFF)")),
    (8, b"WEBP", Contents("a picture (WebP)")),
)

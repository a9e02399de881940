"""Files that are not what their names say: named for what they are, as pictures and as tables."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import plistlib
import struct
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from torchrelay.datasets.files.contents import HEAD_BYTES, name_contents
from torchrelay.datasets.images import decode_image
from torchrelay.datasets.images.formats import BadImage
from torchrelay.datasets.ingest import prepare_data
from torchrelay.datasets.table import read_table
from torchrelay.datasets.verdicts import read_verdicts
from torchrelay.drafting.survey import survey_table
from torchrelay.errors import DataError
from torchrelay.recipe import Data, Feature
from torchrelay.settings import Home

from ..conftest import MakeData, WritePictures, WriteTable


def zipped(**files: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame({"x": [1, 2]}).to_parquet(buffer)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros(3))
    return buffer.getvalue()


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
PAGE = b"<!DOCTYPE html><html>not found</html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FILES: dict[str, tuple[bytes, str, str]] = {
    "heic": (HEIC, "HEIC", "convert it to JPEG or PNG"),
    "page": (PAGE, "a web page (HTML)", "download the file itself"),
    "page after a comment": (b"\n<!-- saved -->\n<HTML lang=en>", "a web page (HTML)", "download"),
    "xhtml": (b'<?xml version="1.0"?>\n<html xmlns="x">', "a web page (HTML)", "download"),
    "lfs": (POINTER, "a Git LFS pointer", "git lfs pull"),
    "annex": (b"/annex/objects/SHA256E-s5--ab.jpg\n", "a pointer of git-annex", "git annex get"),
    "dvc": (
        b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: a.jpg\n",
        "a pointer of DVC",
        "dvc pull",
    ),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\0", "PDF", "save it as"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG", "save it as"),
    "xml": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "XML",
        "answered with an error",
    ),
    "json": (json.dumps({"error": "not found"}).encode(), "JSON", "answered with an error"),
    "zip": (zipped(a="x"), "a ZIP archive", "unpack it first"),
    "xlsx": (
        zipped(**{"[Content_Types].xml": "", "xl__workbook.xml": ""}),
        "an Excel workbook",
        "save it as",
    ),
    "docx": (
        zipped(**{"[Content_Types].xml": "", "word__document.xml": ""}),
        "a Word document",
        "save it as",
    ),
    "npz": (npz(), "an archive of arrays (npz)", "save each array"),
    "gzip": (gzip.compress(b"x"), "a gzip archive", "unpack it first"),
    "tar": (b"a.png".ljust(257, b"\0") + b"ustar\x0000", "a tar archive", "unpack it first"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isommp42", "a film (MP4 or MOV)", "save it as"),
    "mov": (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "a film (MP4 or MOV)", "save it as"),
    "cr3": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a Canon raw picture", "save it as"),
    "psd": (b"8BPS\0\1\0\0\0\0\0\0", "a Photoshop file (PSD)", "save it as"),
    "dicom": (bytes(128) + b"DICM\2\0", "DICOM", "save it as"),
    "fits": (b"SIMPLE  =                    T".ljust(2880), "FITS", "save it as"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0\0", "HDF5 (also NetCDF and MAT files)", "save it as"),
    "parquet": (parquet(), "Parquet", "name it .parquet"),
    "sqlite": (b"SQLite format 3\0\x10\0", "an SQLite database", "save it as"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "an old Office document", "save it as"),
    "pickle": (
        pickle.dumps({"a": 1}, 4),
        "a pickle, which is not read because it could run a program",
        "save it as",
    ),
    "program": (b"\x7fELF\2\1\1\0", "a program", "save it as"),
    "AppleDouble": (
        b"\0\x05\x16\x07\0\2\0\0Mac OS X",
        "a side file of macOS (AppleDouble, ._NAME)",
        "leave it out",
    ),
    "alias": (b"book\0\0\0\0mark\0\0\0\0", "an alias of macOS", "name the file that it leads to"),
    "lnk": (
        b"L\0\0\0\x01\x14\2\0\0\0\0\0\xc0",
        "a Windows shortcut (.lnk)",
        "name the file that it leads to",
    ),
    "icloud": (
        plistlib.dumps({"NSURLNameKey": "a.jpg"}, fmt=plistlib.FMT_BINARY),
        "a property list of macOS, as iCloud puts it in a file's place",
        "download the file",
    ),
    "zeros": (bytes(500), "nothing but zero bytes", "get it whole again"),
    "pgp": (b"-----BEGIN PGP MESSAGE-----\n\nhQ\n", "an encrypted file (PGP)", "decrypt it first"),
    "openssl": (b"Salted__\1\2\3\x99\xff", "an encrypted file (OpenSSL)", "decrypt it first"),
    "text": ("Grüße, kein Bild\n".encode(), "a text file", "save it as"),
    "long text cut in a letter": (b"x" + "é".encode() * HEAD_BYTES, "a text file", "save it as"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_picture_is_named_for_what_it_is(name: str) -> None:
    data, what, remedy = FILES[name]
    with pytest.raises(BadImage) as caught:
        decode_image(data, Feature(kind="image"), 1_000_000)
    assert caught.value.reason.kind == what
    assert remedy in caught.value.reason.remedy
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(("text", "letter"))])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_that_is_none_is_named_for_what_it_is(
    tmp_path: Path, name: str, suffix: str
) -> None:
    data, what, remedy = FILES[name]
    path = tmp_path / f"table{suffix}"
    path.write_bytes(data)
    remedy = remedy if remedy != "save it as" else "save it as CSV or Parquet"
    with pytest.raises(DataError) as caught:
        read_table(Data(table=str(path)))
    assert str(caught.value).startswith(f"{path} is named {suffix}, but it is {what}; ")
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "MZ,größe\n1,2\n",
        "ID3,x\n1,2\n",
        "BZh,x\n1,2\n",
        "PAR1,x\n1,2\n",
        "#!comment,x\n1,2\n",
        '"{a}",x\n1,2\n',
        "<0.5,x\n1,2\n",
        "[1],x\n1,2\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_a_table_whose_header_begins_like_another_format_is_read(
    tmp_path: Path, text: str, encoding: str
) -> None:
    (tmp_path / "table.csv").write_text(text, encoding)
    assert len(read_table(Data(table=str(tmp_path / "table.csv"), encoding=encoding))) == 1


def test_a_text_that_is_named_parquet_is_called_text(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_text("a,b\n1,2\n")
    with pytest.raises(
        DataError, match=r"is named \.parquet, but it is a text file; name it \.csv"
    ):
        read_table(Data(table=str(tmp_path / "table.parquet")))


def test_a_cameras_raw_picture_is_not_read_as_its_preview() -> None:
    buffer = io.BytesIO()
    preview = np.zeros((8, 8, 3), np.uint8)
    tifffile.imwrite(
        buffer, preview, photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)]
    )
    with pytest.raises(BadImage, match="a raw picture of a camera; save it as PNG"):
        decode_image(buffer.getvalue(), Feature(kind="image"), 1_000_000)
    canon = b"II*\0\x10\0\0\0CR\2\0" + bytes(50)
    with pytest.raises(BadImage, match="a raw picture of a camera"):
        decode_image(canon, Feature(kind="image"), 1_000_000)


def test_unknown_bytes_and_no_bytes_are_called_so() -> None:
    assert name_contents(struct.pack("<8d", *np.random.default_rng(0).random(8))) is None
    empty = name_contents(b"")
    assert empty is not None
    assert empty.what == "an empty file"


def test_a_table_of_files_that_are_none_is_counted_by_what_they_are(
    tmp_path: Path,
    home: Home,
    write_table: WriteTable,
    write_pictures: WritePictures,
    image_data: MakeData,
) -> None:
    write_pictures([f"{number}.png" for number in range(8)])
    for name, data in {
        "heic.jpg": HEIC,
        "page.jpg": PAGE,
        "lfs.jpg": POINTER,
        "lfs2.jpg": POINTER * 2,
    }.items():
        (tmp_path / "images" / name).write_bytes(data)
    rows = [
        f"{number}.png,{'ab'[number % 2]},{('train', 'test')[number // 4]}" for number in range(8)
    ]
    rows += [f"{name}.jpg,a,train" for name in ("heic", "page", "lfs", "lfs2")]
    prepared = prepare_data(
        image_data(write_table(["image,label,split", *rows]), max_bad_rows=0.5), home
    )
    assert [str(reason) for reason in read_verdicts(prepared.split_dir).values()] == [
        "bad image, HEIC: heic.jpg; convert it to JPEG or PNG, for example with heif-convert",
        "bad image, a web page (HTML): page.jpg; download the file itself: a server answered with "
        "a page",
        "bad image, a Git LFS pointer: lfs.jpg; git lfs pull",
        "bad image, a Git LFS pointer: lfs2.jpg; git lfs pull",
    ]


def test_init_says_what_the_files_are(tmp_path: Path, write_table: WriteTable) -> None:
    (tmp_path / "images").mkdir()
    for number in range(4):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(POINTER)
    table = write_table(
        ["file,label", *(f"{number}.jpg,{'ab'[number % 2]}" for number in range(4))]
    )
    with pytest.raises(
        DataError,
        match=r"no file that was looked at is a picture; .*a Git LFS pointer; git lfs pull",
    ):
        survey_table(Path(table))


def test_a_webp_named_csv_is_called_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.webp")
    (tmp_path / "a.webp").rename(tmp_path / "table.csv")
    with pytest.raises(DataError, match=r"but it is a picture \(WebP\)"):
        read_table(Data(table=str(tmp_path / "table.csv")))

"""Files that are made to harm whoever loads them: each is refused with its reason, and nothing
of it happens.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torchrelay.errors import SourceError
from torchrelay.weights.file import read_weights_file
from torchrelay.weights.safetensors import write_safetensors
from torchrelay.weights.state import sha256_of
from torchrelay.weights.torch_format import LEGACY_MAGIC

MOST_SECONDS = 60  # the machine may be busy; what explodes takes for ever
MOST_MEGABYTES = 400
HUGE = 10**12
# What torch writes into a file as the function that builds a tensor.
REBUILD = torch.zeros(1).__reduce_ex__(2)[0]


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class StorageId(tuple):
    """Is pickled as a persistent id."""


def dump(value: Any, protocol: int = 2) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return tuple(obj) if type(obj) is StorageId else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def storage(count: int = 4, key: str = "0") -> StorageId:
    return StorageId(("storage", torch.FloatStorage, key, "cpu", count))


def tensor(
    offset: int = 0, shape: tuple = (4,), stride: tuple = (1,), count: int = 4, hooks: Any = None
) -> Call:
    hooks = OrderedDict() if hooks is None else hooks
    return Call(REBUILD, storage(count), offset, shape, stride, False, hooks)


def archive(path: Path, pickled: bytes, *more: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """A zip archive as torch.save lays it out, with one storage of four floats, and records
    beside them.
    """
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", b"little")
        file.writestr("archive/data/0", bytes(16))
        file.writestr("archive/version", b"3\n")
        for name, content in more:
            file.writestr(name, content)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def good(path: Path, **more: Any) -> Path:
    torch.save({"weight": torch.arange(300.0), **more}, path)
    return path


def legacy(
    path: Path, *, info: Any = None, value: Any = None, keys: Any = None, blocks: bytes = b""
) -> Path:
    parts = [LEGACY_MAGIC, dump(1001), dump(info), dump(value), dump([] if keys is None else keys)]
    path.write_bytes(b"".join(parts) + blocks)
    return path


def safetensors(path: Path, header: Any, data: bytes = bytes(16)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(start: int, end: int, shape: tuple = (2,)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}


def edit(path: Path, old: bytes, new: bytes, *, last: bool = False) -> Path:
    content = path.read_bytes()
    at = content.rindex(old) if last else content.index(old)
    path.write_bytes(content[:at] + new + content[at + len(old) :])
    return path


def symlink(path: Path, target: str) -> Path:
    info = zipfile.ZipInfo("archive/data/1")
    info.external_attr = 0o120777 << 16
    return archive(path, dump({"w": tensor()}), (info, target.encode()))


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        pickled = dump({"w": tensor(count=1 << 24, shape=(1 << 24,))})
        file.writestr("archive/data.pkl", pickled, zipfile.ZIP_STORED)
        file.writestr("archive/data/0", bytes(1 << 26))
    return path


def declared_bomb(path: Path) -> Path:
    """A record that says of itself that it has four gigabytes, in the directory at the end."""
    content = bytearray(archive(path, dump({"w": tensor()})).read_bytes())
    at = content.rindex(b"archive/data/0") - 46
    content[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
    path.write_bytes(content)
    return path


def overlapping(path: Path) -> Path:
    """The bytes of one record contain another one's header, to which the directory points."""
    inner = (
        struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 0, 0, 0x21, 0, 4, 4, 14, 0)
        + b"archive/data/1"
        + b"DATA"
    )
    archive(path, dump({"w": tensor()}), ("archive/data/2", inner), ("archive/data/1", b"DATA"))
    content = bytearray(path.read_bytes())
    at = content.rindex(b"archive/data/1") - 46
    content[at + 42 : at + 46] = struct.pack("<I", content.index(inner))
    path.write_bytes(content)
    return path


def renamed_inside(path: Path) -> Path:
    """The name before the bytes is another than the directory's, so that two readers see two
    archives.
    """
    return edit(archive(path, dump({"w": tensor()})), b"archive/data/0", b"archive/../../")


def many_records(path: Path) -> Path:
    """A directory that says that it has sixty thousand records in 30 MB."""
    archive(path, dump({"w": tensor()}))
    content = path.read_bytes()
    end = content.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", content[end + 16 : end + 20])[0]
    directory = content[start:end] + bytes(30_000_000)
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 60_000, 60_000, len(directory), start, 0)
    path.write_bytes(content[:start] + directory + tail)
    return path


def truncated(path: Path, share: float) -> Path:
    content = good(path).read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def flipped(path: Path) -> Path:
    """One bit of one weight."""
    floats = torch.arange(300.0).numpy().tobytes()
    return edit(good(path), floats[400:404], bytes([floats[400] ^ 1, *floats[401:404]]))


def torn_legacy(path: Path) -> Path:
    torch.save({"weight": torch.arange(300.0)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def deep(path: Path) -> Path:
    return archive(path, b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")


def deep_key(path: Path) -> Path:
    """A tuple in a tuple, and so on, as a key: hashing it would overflow the C stack."""
    return archive(path, b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.")


def doubling(path: Path) -> Path:
    """A list of two lists that are the same, forty times over: a million million values from 200
    bytes.
    """
    step = b"".join(
        b"]q" + bytes([n + 1]) + b"(h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(40)
    )
    return archive(path, b"\x80\x02]q\x00" + step + b".")


def endless(path: Path) -> Path:
    return archive(path, b"\x80\x02]q\x00h\x00a.")


def tar(path: Path) -> Path:
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("../../storages")
        info.size = 4
        file.addfile(info, io.BytesIO(b"evil"))
    return path


def scripted(path: Path) -> Path:
    return archive(
        path, dump({}), ("archive/constants.pkl", dump(())), ("archive/code/net.py", b"import os")
    )


# Each by name: how to write it, given its path and a command that would make the canary, and what
# the refusal says.
Build = Callable[[Path, str], Path]
HOSTILE: dict[str, tuple[Build, str]] = {
    # Code in the pickle of a zip archive.
    "system": (
        lambda p, c: archive(p, dump({"w": Call(os.system, c)})),
        r"would run or build posix\.system, and",
    ),
    "eval": (
        lambda p, c: archive(p, dump(Call(eval, f"__import__('os').system({c!r})"))),
        r"builtins\.eval",
    ),
    "nested": (
        lambda p, c: good(p, more={"a": [{"b": (Call(builtins.exec, c),)}]}),
        r"builtins\.exec",
    ),
    "protocol 0": (lambda p, c: archive(p, dump(Call(os.system, c), 0)), r"posix\.system"),
    "protocol 4": (lambda p, c: archive(p, dump(Call(os.system, c), 4)), r"posix\.system"),
    "instance": (lambda p, c: archive(p, f"(S'{c}'\nios\nsystem\n.".encode()), r"os\.system"),
    "object": (lambda p, c: archive(p, f"(cos\nsystem\nS'{c}'\no.".encode()), r"os\.system"),
    "extension": (lambda p, c: archive(p, b"\x80\x02\x82\x01)R."), r"extension 1 of copyreg"),
    "reconstructor": (
        lambda p, c: archive(
            p, f"ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nS'{c}'\nNtR.".encode()
        ),
        r"copyreg\._reconstructor, subprocess\.Popen",
    ),
    "attribute": (
        lambda p, c: archive(p, b"cbuiltins\ngetattr\n(ctorch\nhub\nS'load'\ntR."),
        r"builtins\.getattr, torch\.hub, and",
    ),
    "download": (
        lambda p, c: archive(p, dump(Call(torch.hub.load, "a/b", "c"))),
        r"torch\.hub\.load",
    ),
    "persistent id": (
        lambda p, c: archive(p, dump(StorageId(("storage", Call(os.system, c), "0", "cpu", 4)))),
        r"posix\.system",
    ),
    "whole model": (
        lambda p, c: good(p, net=nn.Linear(2, 2)),
        r"torch\.nn\.modules\.linear\.Linear",
    ),
    # What torch's own list of safe globals allows, misused.
    "huge tensor": (lambda p, c: archive(p, dump(Call(torch.Tensor, HUGE))), r"torch\.Tensor, and"),
    "huge storage": (
        lambda p, c: archive(p, dump(Call(torch.storage.UntypedStorage, HUGE))),
        r"calls torch\.storage\.UntypedStorage",
    ),
    "huge bytes": (lambda p, c: archive(p, dump(Call(bytearray, HUGE))), r"builtins\.bytearray"),
    "hooks": (
        lambda p, c: archive(p, dump({"w": tensor(hooks=OrderedDict(a=REBUILD))})),
        r"gets hooks",
    ),
    "method": (
        lambda p, c: archive(
            p, b"\x80\x02ccollections\nOrderedDict\n)R}U\x05itemsccollections\nOrderedDict\nsb."
        ),
        r"sets attributes",
    ),
    # Code in the format before zip: in each of its pickles.
    "legacy facts": (lambda p, c: legacy(p, info=Call(os.system, c)), r"posix\.system"),
    "legacy value": (lambda p, c: legacy(p, value={"w": Call(os.system, c)}), r"posix\.system"),
    "legacy keys": (lambda p, c: legacy(p, value={}, keys=[Call(os.system, c)]), r"posix\.system"),
    "legacy module": (
        lambda p, c: legacy(p, value=StorageId(("module", OrderedDict, "/etc/passwd", "source"))),
        r"persistent id that is no storage",
    ),
    "legacy declared": (
        lambda p, c: legacy(
            p, value=tensor(count=HUGE), keys=["0"], blocks=struct.pack("<q", HUGE) + bytes(16)
        ),
        r"is torn: .* of 4,000,000,000,000 bytes",
    ),
    "legacy reserves": (
        lambda p, c: written(p, LEGACY_MAGIC + b"\x80\x02\x96" + struct.pack("<Q", HUGE) + b"x."),
        r"its pickle is torn or no pickle",
    ),
    "legacy torn": (
        lambda p, c: torn_legacy(p),
        r"is torn: .* storage '\d+' of 1,200 bytes, of which",
    ),
    "plain pickle": (
        lambda p, c: written(p, dump(Call(os.system, c), 0)),
        r"plain pickle.*posix\.system",
    ),
    # The archive around it.
    "traversal": (
        lambda p, c: archive(p, dump({}), ("../../evil", b"x")),
        r"'\.\./\.\./evil', which leads out",
    ),
    "inner traversal": (
        lambda p, c: archive(p, dump({}), ("archive/../../e", b"x")),
        r"which leads out",
    ),
    "absolute": (
        lambda p, c: archive(p, dump({}), ("/tmp/evil", b"x")),
        r"'/tmp/evil', which leads out",
    ),
    "drive": (lambda p, c: archive(p, dump({}), ("C:/evil", b"x")), r"'C:/evil', which leads out"),
    "backslash": (
        lambda p, c: archive(p, dump({}), ("archive/a\\..\\..\\e", b"x")),
        r"which leads out",
    ),
    "symlink": (lambda p, c: symlink(p, "/etc/passwd"), r"'archive/data/1' is a link"),
    "second folder": (
        lambda p, c: archive(p, dump({}), ("other/data.pkl", b"x")),
        r"lies outside the folder 'archive'",
    ),
    "bomb": (lambda p, c: bomb(p), r"is compressed \([\d,]+ bytes that would become 67,108,864\)"),
    "declared bomb": (lambda p, c: declared_bomb(p), r"reaches beyond the file|overlaps"),
    "many records": (
        lambda p, c: many_records(p),
        r"directory of 30,000,\d+ bytes for 60,000 records",
    ),
    "overlapping": (lambda p, c: overlapping(p), r"overlaps the one before it"),
    "other name": (lambda p, c: renamed_inside(p), r"another name or form where its bytes begin"),
    "case twin": (
        lambda p, c: archive(p, dump({}), ("archive/DATA.pkl", dump({}))),
        r"'archive/DATA.pkl' stands in it twice",
    ),
    "script before": (
        lambda p, c: written(p, b"#!/bin/sh\n" + good(p).read_bytes()),
        r"of no kind|text",
    ),
    "torn early": (lambda p, c: truncated(p, 0.2), r"is torn"),
    "torn late": (lambda p, c: truncated(p, 0.7), r"is torn"),
    "torn at the end": (lambda p, c: truncated(p, 0.995), r"is torn"),
    "one bit": (lambda p, c: flipped(p), r"is damaged: the record '.*/data/0'"),
    "TorchScript": (lambda p, c: scripted(p), r"a TorchScript archive, which carries code"),
    "tar": (lambda p, c: tar(p), r"a tar archive"),
    # Tensors that do not lie in the file.
    "giant shape": (
        lambda p, c: archive(p, dump({"w": tensor(shape=(HUGE,))})),
        r"does not lie in its storage '0' of 4",
    ),
    "no stride": (
        lambda p, c: archive(p, dump({"w": tensor(shape=(HUGE,), stride=(0,))})),
        r"its tensors would take 4,000,000,000,000 bytes, and their storages have 16",
    ),
    "shared": (
        lambda p, c: archive(
            p, dump({str(at): tensor(shape=(4, 1 << 15), stride=(1, 0)) for at in range(1000)})
        ),
        r"its tensors would take 524,288,000 bytes",
    ),
    "overflowing": (
        lambda p, c: archive(p, dump({"w": tensor(shape=(2**33, 2**33), stride=(2**33, 1))})),
        r"does not lie in",
    ),
    "offset": (lambda p, c: archive(p, dump({"w": tensor(offset=2)})), r"offset 2 does not lie in"),
    "negative offset": (lambda p, c: archive(p, dump({"w": tensor(offset=-1)})), r"offset -1"),
    "negative stride": (
        lambda p, c: archive(p, dump({"w": tensor(stride=(-1,))})),
        r"for a shape or a stride",
    ),
    "large storage": (
        lambda p, c: archive(p, dump({"w": tensor(count=HUGE)})),
        r"storage '0' of 4,000,000,000,000 bytes, which has 16",
    ),
    # Pickles that only cost time and memory.
    "deep": (lambda p, c: deep(p), r"nested more than 64 deep"),
    "deep key": (lambda p, c: deep_key(p), r"a key that is neither text nor number"),
    "doubling": (lambda p, c: doubling(p), r"more than 2,000,000 values"),
    "endless": (lambda p, c: endless(p), r"contain themselves"),
    # Safetensors.
    "tensors beyond": (
        lambda p, c: safetensors(p, {"w": entry(0, HUGE, (HUGE // 4,))}),
        r"is torn: its tensors take",
    ),
    "tensors overlap": (
        lambda p, c: safetensors(p, {"a": entry(0, 8), "b": entry(4, 12)}),
        r"'b' overlaps 'a'",
    ),
    "tensors apart": (
        lambda p, c: safetensors(p, {"a": entry(0, 8), "b": entry(12, 20)}),
        r"'b' leaves a hole",
    ),
    "tensor overflows": (
        lambda p, c: safetensors(p, {"w": entry(0, 0, (2**62, 4))}),
        r"does not have the bytes 0 to 0",
    ),
    "long header": (
        lambda p, c: written(p, struct.pack("<Q", 2**63) + b'{"a": 1}'),
        r"header of 9,223,372,036,854,775,808 bytes",
    ),
    "deep header": (
        lambda p, c: safetensors(p, b'{"a":' + b"[" * 200_000),
        r"header of its safetensors is no JSON",
    ),
    "twice": (lambda p, c: safetensors(p, b'{"a": 1, "a": 2}'), r"a key stands twice"),
}


def command(canary: Path) -> str:
    return f"touch {canary}"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason_and_does_nothing(tmp_path, name):
    build, reason = HOSTILE[name]
    canary = tmp_path / "canary"
    path = build(tmp_path / "weights.pt", command(canary))
    before = sorted(tmp_path.rglob("*"))
    started = time.perf_counter()
    with pytest.raises(SourceError, match=reason):
        read_weights_file(path)
    assert time.perf_counter() - started < MOST_SECONDS
    assert sorted(tmp_path.rglob("*")) == before
    assert not canary.exists()


@pytest.mark.parametrize("name", ["system", "protocol 4", "legacy value", "legacy facts"])
def test_the_canary_sings_where_a_file_is_loaded_without_care(tmp_path, name):
    canary = tmp_path / "canary"
    path = HOSTILE[name][0](tmp_path / "weights.pt", command(canary))
    torch.load(path, weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_file_with_some_bytes_changed_is_refused_or_loads(tmp_path, form):
    path, state = tmp_path / "weights.pt", nn.Linear(20, 10).state_dict()
    if form == "safetensors":
        write_safetensors(state, path, {})
    else:
        torch.save(
            {"epoch": 1, "state_dict": state}, path, _use_new_zipfile_serialization=form == "zip"
        )
    content, generator = path.read_bytes(), random.Random(0)
    num_loaded = 0
    for _ in range(300):
        changed, at = bytearray(content), generator.randrange(len(content))
        if generator.random() < 0.6:
            changed[at] ^= 1 << generator.randrange(8)
        elif generator.random() < 0.5:
            changed[at : at + generator.randrange(50)] = generator.randbytes(
                generator.randrange(50)
            )
        else:
            del changed[at:]
        path.write_bytes(changed)
        try:
            found = read_weights_file(path)
        except SourceError:
            continue
        num_loaded += 1
        if form == "zip":  # whose records have checksums
            assert sha256_of(found.state) == sha256_of(state)
    assert 0 < num_loaded < 200


WATCH = """
import json, resource, sys
from pathlib import Path
import torch
from torchrelay.weights import sha256_of
from torchrelay.weights import read_weights_file
from torchrelay.errors import SourceError

def refuse(path):
    try:
        read_weights_file(Path(path))
    except SourceError:
        return True
    return False

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / \
(1e6 if sys.platform == "darwin" else 1e3)

good, *hostile = sys.argv[1:]
# What torch and Python import on the first use is imported before the watch begins.
read_weights_file(Path(good))
refuse(hostile[0])
for codec in ("ascii", "latin-1", "cp437", "raw_unicode_escape"):
    "".encode(codec)
before = megabytes()
events = []
QUIET = ("object.__", "cpython.", "sys._getframe", "code.__new__", "marshal.", \
"builtins.id", "gc.", "mmap.")
sys.addaudithook(lambda event, args: None if event.startswith(QUIET) \
else events.append((event, repr(args[:1]))))
seen = {}
for path in hostile:
    events.clear()
    refused = refuse(path)
    seen[path] = {"refused": refused, "events": sorted({tuple(one) for one in events})}
print(json.dumps({"seen": seen, "megabytes": megabytes() - before}))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_other_file_is_opened_no_process_started_and_memory_stays_bounded(tmp_path):
    canary = tmp_path / "canary"
    files = [
        build(tmp_path / f"{at}.pt", command(canary))
        for at, (build, _) in enumerate(HOSTILE.values())
    ]
    arguments = [sys.executable, "-c", WATCH, good(tmp_path / "good.pt"), *files]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, cwd=tmp_path)
    found = json.loads(done.stdout)
    for path, one in found["seen"].items():
        assert one["refused"], path
        odd = [event for event in one["events"] if event != ["open", f"({path!r},)"]]
        assert odd == [], path
    assert found["megabytes"] < MOST_MEGABYTES
    assert not canary.exists()

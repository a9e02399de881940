"""Flips random bits of every file of a home, and holds what torchrelay then gives against what it
gave before.

    OMP_NUM_THREADS=1 python tests/faults/flips.py --flips 1000

A home is made once: a training with its test metrics, an evaluation, a prediction, a registered
    version, MLflow's
artifacts, what was downloaded of them. Each flip is made in a copy, on which everything is tried
that reads that file:
`show`, `doctor`, predict, evaluate, resume, training again from the pack, the registered version
and the run from MLflow, the number of threads. A flip is

    noticed    each of them whose result would differ says so, or `doctor` names the file
    repaired   noticed, and all results are as before all the same
    harmless   nothing says a word, all results are as before, and `why_harmless` has the reason
    silent     a result differs without a word, or nothing notices a file of which it has none
    crash      it is noticed by an error that is none of torchrelay's, as a traceback

It ends with exit code 1 where one is silent or crashes. Databases are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from home_probes import MORE_PROBES, PROBES, Case, Tried, attempt, make_case

# Read past Python, which does not hear of it.
READ_PAST_PYTHON = (".parquet", ".arrow")
DATABASES = (".db", ".db-wal", ".db-shm", ".db-journal")
# Whose values count, and not the space between them.
JSON_FILES = (
    "run.json",
    "manifest.json",
    "shipped.json",
    "threads.json",
    "downloaded.json",
    "files.json",
)
OUTCOMES = ("noticed", "repaired", "harmless", "silent", "crash")


class Flip(NamedTuple):
    """A bit of a file.

    Attributes:
        file: its path in the home.
        bit: counted from the file's first.
    """

    file: str
    bit: int

    def apply(self, content: bytes) -> bytes:
        """The content with it flipped."""
        changed = bytearray(content)
        changed[self.bit // 8] ^= 1 << self.bit % 8
        return bytes(changed)


def why_harmless(file: str, before: bytes, after: bytes) -> str:
    """Why a change that nobody notices does no harm; empty where it may."""
    name = Path(file).name
    if name == "lock" or name.endswith(".lock"):
        return "it is held or not whatever stands in it, which says for people who held it last"
    if name.endswith(".png"):
        return "a picture for people, from which nothing is read; PNG has CRCs of its own"
    if name in JSON_FILES and _same_values(before, after):
        return "space between its values"
    return ""


def _same_values(before: bytes, after: bytes) -> bool:
    try:
        return json.loads(before) == json.loads(after)
    except ValueError:
        return False


class Flipper:
    """Flips bits in copies of a home and tries everything that reads the file.

    Args:
        case: whole. Its home is moved away, and each copy stands where it was: databases name
            places.
        probes: what is tried.
    """

    def __init__(self, case: Case, probes: Iterable[str] = (*PROBES, *MORE_PROBES)) -> None:
        self.case = case
        self._kept = case.root.with_name("kept")
        case.root.rename(self._kept)
        self._read_by: dict[str, set[str]] = {}
        self._calm: dict[str, Tried] = {}
        for probe in probes:
            self._calm[probe] = self._watch(probe)
            again = self._in_copy(probe, None)
            if again != self._calm[probe] or not again.result:
                raise RuntimeError(
                    f"{probe} of a whole home gives {self._calm[probe]}, then {again}"
                )
            self._read_by[probe] |= set(self._read_past_python(probe))

    @property
    def files(self) -> list[str]:
        """All files of the home but databases."""
        paths = (
            path.relative_to(self._kept) for path in sorted(self._kept.rglob("*")) if path.is_file()
        )
        return [str(path) for path in paths if not path.name.endswith(DATABASES)]

    def try_flip(self, flip: Flip) -> tuple[str, str]:
        """What becomes of a flip, and the first that was said of it or what went wrong."""
        content = (self._kept / flip.file).read_bytes()
        return self.try_change(flip.file, flip.apply(content))

    def try_change(self, file: str, content: bytes) -> tuple[str, str]:
        """The same of any other content of a file."""
        said: list[str] = []
        is_same = True
        for probe, calm in self._calm.items():
            if file not in self._read_by[probe] and probe != "doctor":
                continue
            tried = self._in_copy(probe, (file, content))
            news = [f"{probe}: {one}" for one in tried.said if one not in calm.said]
            if tried.crash:
                return "crash", news[0]
            if tried.result != calm.result:
                is_same = False
                if not news:
                    return "silent", f"{probe} gives something else"
            said += news
        if said:
            return ("repaired" if is_same else "noticed"), said[0]
        why = why_harmless(file, (self._kept / file).read_bytes(), content)
        return ("harmless", why) if why else ("silent", "nothing notices it")

    def draw(self, number: int, seed: int) -> list[Flip]:
        """Random bits, each file as likely as the other; empty ones have none."""
        generator = random.Random(seed)
        sizes = {file: (self._kept / file).stat().st_size for file in self.files}
        full = [file for file in sizes if sizes[file]]
        drawn = (generator.choice(full) for _ in range(number))
        return [Flip(file, generator.randrange(8 * sizes[file])) for file in drawn]

    def _in_copy(
        self, probe: str, change: tuple[str, bytes] | None, opened: set[str] | None = None
    ) -> Tried:
        shutil.copytree(self._kept, self.case.root)
        try:
            if change is not None:
                (self.case.root / change[0]).write_bytes(change[1])
            _watched[:] = [] if opened is None else [opened]
            return attempt(self.case, probe)
        finally:
            _watched.clear()
            shutil.rmtree(self.case.root)

    def _read_past_python(self, probe: str) -> Iterator[str]:
        """Files that are opened past Python's ears: with all their bits flipped, something else
        comes of the probe.
        """
        for file in self.files:
            if file.endswith(READ_PAST_PYTHON):
                content = bytes(255 - byte for byte in (self._kept / file).read_bytes())
                if self._in_copy(probe, (file, content)) != self._calm[probe]:
                    yield file

    def _watch(self, probe: str) -> Tried:
        """Try something on a whole copy, and keep which files it opens."""
        opened: set[str] = set()
        tried = self._in_copy(probe, None, opened)
        prefix = f"{self.case.root}/"
        self._read_by[probe] = {
            path.removeprefix(prefix) for path in opened if path.startswith(prefix)
        }
        return tried


_watched: list[set[str]] = []


def _hear(event: str, arguments: Any) -> None:
    """Keep what Python opens."""
    path = arguments[0] if _watched and event == "open" else None
    if isinstance(path, str | os.PathLike):
        _watched[-1].add(os.fspath(path))


sys.addaudithook(_hear)


def kind_of(file: str) -> str:
    """What a file is, with names that differ from home to home taken out."""
    parts = Path(file).parts
    if parts[-1].endswith(".png"):
        return f"{parts[0]}/…/*.png"
    if parts[0] == "runs":
        kind = next((one for one in ("evaluate", "predict") if f"-{one}-" in parts[1]), "train")
        named = ("checkpoints", "weights", "tables", "figures")
        return "/".join(
            [f"run ({kind})", *(part for part in parts[2:-1] if part in named), parts[-1]]
        )
    if "splits" in parts:
        return f"split/{parts[-1]}"
    if parts[0] in ("packs", "store"):
        return f"{'shard' if parts[0] == 'store' else 'pack'}/{parts[-1]}"
    if parts[0] == "artifacts":
        return "/".join([f"artifacts of {'models' if parts[1] == 'models' else 'runs'}", parts[-1]])
    return "/".join(dict.fromkeys((parts[0], parts[-1])))


def print_table(counts: dict[str, Counter[str]], reasons: dict[str, str]) -> None:
    """A row for each kind of file."""
    print(f"{'file':<44}{'flips':>6}" + "".join(f"{name:>10}" for name in OUTCOMES))
    total: Counter[str] = Counter()
    for kind in sorted(counts):
        total += counts[kind]
        numbers = "".join(f"{counts[kind][name]:>10}" for name in OUTCOMES)
        print(f"{kind:<44}{counts[kind].total():>6}{numbers}  {reasons.get(kind, '')}".rstrip())
    print(f"{'all':<44}{total.total():>6}" + "".join(f"{total[name]:>10}" for name in OUTCOMES))


def try_flips(flipper: Flipper, flips: Sequence[Flip]) -> list[str]:
    """Try flips and print what came of them; gives those that were silent or crashed."""
    counts: dict[str, Counter[str]] = {}
    reasons: dict[str, str] = {}
    bad: list[str] = []
    for flip in flips:
        outcome, why = flipper.try_flip(flip)
        counts.setdefault(kind_of(flip.file), Counter())[outcome] += 1
        if outcome == "harmless":
            reasons[kind_of(flip.file)] = why
        if outcome in ("silent", "crash"):
            bad.append(f"{outcome}: {flip.file}, bit {flip.bit}: {why}")
            print(bad[-1], file=sys.stderr, flush=True)
    print_table(counts, reasons)
    return bad


def main() -> int:
    """Flip, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        flipper = Flipper(make_case(Path(folder) / "case"))
        started = time.perf_counter()
        bad = try_flips(flipper, flipper.draw(chosen.flips, chosen.seed))
        print(
            f"seed {chosen.seed}, {len(flipper.files)} files, {time.perf_counter() - started:,.0f} "
            "s"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

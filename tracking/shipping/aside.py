"""What a tracker does not take of a run's journal.

Set aside in a file beside it, so that it holds up nothing else.

One JSON object a line, `{"end": …, "kind": …, "keys": […], "reason": …}`: the line of the journal
that ends at that byte, and which of its metrics; all of it where `keys` is empty. `torchrelay sync
RUN` tries again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from ...disk import describe_failure, mode_of_files, write_atomic
from ...errors import TrackingError
from ...runs import ASIDE_FILE, Run

MAX_REASON_LENGTH = 500
# The reason of a line that was not taken together with the one noted before it.
AS_BEFORE = "together with the one before"


class Aside(NamedTuple):
    """A line of the journal, or metrics of one, that the tracker does not take.

    Attributes:
        end: offset of the byte after the line.
        kind: of the line.
        keys: names of the metrics; empty where it is all of the line.
        reason: what the tracker said.
    """

    end: int
    kind: str
    keys: tuple[str, ...]
    reason: str


def set_aside(run: Run, several: Iterable[Aside]) -> None:
    """Note them, durably.

    What is noted twice is read once.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    with open(os.open(run.folder / ASIDE_FILE, flags, mode_of_files(run.folder)), "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        torn = (
            b"\n" if file.read(1) not in (b"", b"\n") else b""
        )  # what a crash cut short stays a line of its own
        file.write(torn + "".join(map(_dump, several)).encode())
        file.flush()
        os.fsync(file.fileno())


def load_aside(run: Run) -> list[Aside]:
    """What is set aside of a run, in the order of the journal.

    A torn line is passed over.
    """
    try:
        lines = (run.folder / ASIDE_FILE).read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TrackingError(
            f"{run.folder / ASIDE_FILE} cannot be read: {describe_failure(error)}"
        ) from error
    found: dict[tuple[int, str, tuple[str, ...]], Aside] = {}
    for line in lines:
        try:
            values = json.loads(line)
            one = Aside(int(values["end"]), values["kind"], tuple(values["keys"]), values["reason"])
            found.setdefault(one[:3], one)
        except (ValueError, KeyError, TypeError):
            continue
    return sorted(found.values())


def save_aside(run: Run, left: Iterable[Aside]) -> None:
    """Write what is left set aside.

    No file where nothing is.

    Raises:
        OSError: it cannot be written.
    """
    if text := "".join(map(_dump, left)):
        write_atomic(run.folder / ASIDE_FILE, text)
    else:
        (run.folder / ASIDE_FILE).unlink(missing_ok=True)


def describe_aside(run: Run) -> str:
    """One sentence on what is set aside.

    Empty where nothing is.
    """
    found = load_aside(run)
    if not found:
        return ""
    keys = list(dict.fromkeys(key for one in found for key in one.keys))
    what = (
        f"metrics {', '.join(keys[:3])}{f' and {len(keys) - 3:,} more' * (len(keys) > 3)}"
        if keys
        else ""
    )
    others = list(dict.fromkeys(one.kind for one in found if not one.keys))
    what = " and ".join(
        part for part in (what, f"lines of kind {', '.join(others)}" if others else "") if part
    )
    reason = next((one.reason for one in found if one.reason != AS_BEFORE), AS_BEFORE)
    return (
        f"{what}: {reason}; they stay in the journal, and torchrelay sync {run.run_id} tries "
        "them again"
    )


def _dump(one: Aside) -> str:
    values = {**one._asdict(), "reason": one.reason[:MAX_REASON_LENGTH]}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"

"""Explains errors that nobody raised on purpose and that are no bugs.

They come from the system, a path, memory, depth or an encoding. Each becomes one line with its
place. Every other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path

import click

from ..addresses import hide_secrets
from ..disk import describe_failure
from ..errors import FAILED_RUN, TorchrelayError, shown

PACKAGE = Path(__file__).resolve().parents[1]
# What the standard library, torch and NumPy say where a path or a number is none, or memory is too
# small.
OF_PATHS = ("embedded null", "symlink loop")
OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "array is too big",
    "std::bad_alloc",
)
OF_NUMBERS = (
    "integer string conversion",
    "int too large",
    "too large to convert",
    "out of range",
    "overflow",
)
# Packages whose errors come from talking to Prefect's server.
OF_PREFECT = ("prefect", "httpx", "httpcore")
# What a machine runs out of.
OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE)
REMEDIES = {
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ELOOP: "its links lead in a circle; mend them",
    errno.ENOTDIR: "a part of that path is a file; correct it",
    errno.ENOENT: "correct that path, or make it",
    errno.EEXIST: "what stands there is neither file nor folder; name another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EISDIR: "it is a folder; name a file",
}
DONE_BADLY, USED_BADLY = 1, 2


def explain(error: BaseException) -> str | None:
    """Say in one line what went wrong and where.

    None for a bug.
    """
    said = " ".join(str(error).split())
    low = said.lower()
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ValueError) and _has(low, OF_MEMORY)
    ):
        return (
            f"{_place_of(error)}: memory is too small for it "
            f"({shown(said) or 'no more to be had'}); make it smaller"
        )
    if isinstance(error, RecursionError):
        return (
            f"{_place_of(error)}: what is to be read is nested too deep; look at the file that was "
            "named"
        )
    if isinstance(error, UnicodeError):
        return f"{_place_of(error)}: text that has no form in the encoding in use: {shown(said)}"
    if isinstance(error, OSError):
        return _explain_system(error)
    if isinstance(error, RuntimeError | ValueError) and _has(low, OF_PATHS):
        return f"{_place_of(error)}: no path: {shown(said)}; correct it"
    if isinstance(error, OverflowError) or (
        isinstance(error, ValueError) and _has(low, OF_NUMBERS)
    ):
        return f"{_place_of(error)}: a number is out of its range: {shown(said)}"
    return _explain_prefect(error) if _is_of_prefect(error) else None


def exit_code_of(error: BaseException) -> int:
    """1 if the error ended a run or Prefect failed around one, else 2.

    A run that it ended is recorded as failed.
    """
    has_run = any(note.startswith(FAILED_RUN) for note in getattr(error, "__notes__", ()))
    return DONE_BADLY if has_run or _is_of_prefect(error) else USED_BADLY


def drop_output() -> None:
    """Flush standard output, or throw away what it cannot take.

    It takes nothing once its reader has gone or its disk is full.
    """
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def accept_all_text() -> None:
    """Write characters that the terminal's encoding lacks as escapes.

    Otherwise they would end the command.
    """
    for stream in (sys.stdout, sys.stderr):
        if (change := getattr(stream, "reconfigure", None)) is not None:
            change(errors="backslashreplace")


def tell_notes(error: BaseException) -> None:
    """Print the notes on an error, such as which run it ended."""
    for note in getattr(error, "__notes__", ()):
        click.echo(hide_secrets(note), err=True)


def _explain_system(error: OSError) -> str:
    names = [
        shown(os.fsdecode(name))
        for name in (error.filename, error.filename2)
        if isinstance(name, str | bytes)
    ]
    place = " and ".join(names) or _place_of(error)
    if error.errno in REMEDIES:
        return f"{place}: {error.strerror}; {REMEDIES[error.errno]}"
    return f"{place}: {describe_failure(error)}"


def _is_of_prefect(error: BaseException) -> bool:
    return (
        type(error).__module__.partition(".")[0] in OF_PREFECT
        or "failed to reach api" in str(error).lower()
    )


def _explain_prefect(error: BaseException) -> str:
    """Explain what Prefect's client raises if its server fails or is gone.

    That error hides the one that ended the run.
    """
    earlier: BaseException | None = error
    while (earlier := earlier.__context__) is not None:
        if isinstance(earlier, TorchrelayError):
            return f"{earlier} (Prefect's server could not be told of it)"
        if isinstance(earlier, OSError) and earlier.errno in OF_THE_MACHINE:
            return f"{_explain_system(earlier)} (Prefect's server could not be told of it)"
    from ..tasks.services import last_error  # where there is an error of Prefect's, it is imported

    said = last_error() or shown(" ".join(str(error).split()) or type(error).__name__)
    return (
        f"Prefect's server fails or is gone: {said}; torchrelay runs shows what is done, "
        "torchrelay doctor what is not"
    )


def _has(text: str, signs: tuple[str, ...]) -> bool:
    return any(sign in text for sign in signs)


def _place_of(error: BaseException) -> str:
    """The innermost function of ours in which the error came up.

    For example `datasets/table/table.py, open_table`.
    """
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame
        for frame in frames
        if Path(frame.filename).is_relative_to(PACKAGE) and "site-packages" not in frame.filename
    ]
    if not ours:
        return "torchrelay"
    return f"{Path(ours[-1].filename).relative_to(PACKAGE)}, {ours[-1].name}"

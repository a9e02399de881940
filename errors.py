"""The errors that torchrelay raises on purpose.

Everything else is a bug.

Each message says what was expected, what came and what to do. The command line prints it without a
traceback.
"""

from __future__ import annotations

import errno
import reprlib
from typing import Any

from .addresses import hide_secrets

# How the note begins that an exception carries once it has ended a run.
FAILED_RUN = "run "
# Characters of a value in a message.
MOST_SHOWN = 200


class TorchrelayError(Exception):
    """Base of all errors that a user can act on.

    Attributes:
        exit_code: what a command that dies of it returns: 2 for bad usage, recipe or data, 1 for a
            run that failed.
    """

    exit_code = 1

    def __str__(self) -> str:
        """The message, without the secrets of addresses that it names."""
        return hide_secrets(super().__str__())


class RecipeError(TorchrelayError):
    """The recipe names something that does not exist or does not fit, seen
    before anything expensive starts.
    """

    exit_code = 2


class DataError(TorchrelayError):
    """The table or its files cannot be trained on."""

    exit_code = 2

    def __str__(self) -> str:
        """The message as it is.

        Verdicts on rows are made of it, which are the same in every environment.
        """
        return Exception.__str__(self)


class SourceError(TorchrelayError):
    """A run, a registered model or a weights file that was named cannot be
    found or does not fit.
    """

    exit_code = 2


class HomeError(TorchrelayError):
    """The folder that holds all of torchrelay's state is none, or cannot be
    read or written.
    """

    exit_code = 2

    @classmethod
    def of(cls, root: object, error: OSError) -> HomeError:
        """What the system said of it, and what to do."""
        said = (
            "it is no folder"
            if error.errno in (errno.EEXIST, errno.ENOTDIR)
            else error.strerror or str(error)
        )
        return cls(
            f"the home {shown(str(root))} cannot be used: {said}; set TORCHRELAY_HOME to a folder "
            f"that can be read and written, or to one that is not there yet"
        )


class ShapeError(TorchrelayError):
    """A batch or a schema does not have the shape that a model was built
    for.
    """

    exit_code = 2


class DeviceError(RecipeError):
    """The recipe asks for a device or a precision that this machine does not
    have.
    """


class TrainingError(TorchrelayError):
    """Training cannot go on, for example because the loss is no longer
    finite. Weights are as before the step.
    """


class CheckpointError(TorchrelayError):
    """No checkpoint can be written, or none that verifies can be read."""


class TrackingError(TorchrelayError):
    """The tracking server refused something or cannot be reached."""


class ServerError(TorchrelayError):
    """A server that the environment names does not answer, seen before
    anything expensive starts.
    """

    exit_code = 2


class GoneError(TrackingError):
    """What a run's journal belongs to was deleted in the tracker, or never
    was there; somebody has to bring it back.
    """


class RunLostError(TorchrelayError):
    """The folder of a run was removed or replaced while this process wrote
    to it.
    """


class BusyError(TorchrelayError):
    """Another living process holds the lock that is needed."""

    exit_code = 2


class LockError(TorchrelayError):
    """The file of a lock cannot be opened or written, so that nobody would
    be kept out.
    """


def shown(text: str, length: int = 120) -> str:
    """A value for a message.

    Of a long one its beginning, and how long it is.
    """
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def check_format(
    what: str, found: object, reads: int, again: str, kind: type[TorchrelayError]
) -> None:
    """Refuse what another version of torchrelay wrote in a format that this one
    does not read.

    Args:
        what: the file, for the message: "pack /…/0123".
        found: its `format_version`; None where it says none.
        reads: the one that this torchrelay reads.
        again: what to do where it is older: "run `torchrelay ingest` again".
        kind: error to raise.
    Raises:
        TorchrelayError: of that kind; says which version is there, which is read, and what to do.
    """
    if found == reads and not isinstance(found, bool):
        return
    is_newer = isinstance(found, int | float) and not isinstance(found, bool) and found > reads
    remedy = "a newer torchrelay wrote it: upgrade this one" if is_newer else again
    raise kind(
        f"{what} has format_version {found!r}, this torchrelay reads format_version {reads}; "
        f"{remedy}"
    )


def shown_value(value: Any) -> str:
    """A value as Python writes it, for a message.

    What is long or deep is shortened.
    """
    try:
        text = _short.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = f"a value of type {type(value).__name__} that is too long to be written"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxlong, _short.maxother = 4, 120, 60, 120
_short.maxlist = _short.maxtuple = _short.maxdict = 12

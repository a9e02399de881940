"""The errors that torchrelay raises on purpose; everything else is a bug.

Each message says what was expected, what came and what to do. The command line prints it without a traceback.
"""

from __future__ import annotations


class TorchrelayError(Exception):
    """Base of all errors that a user can act on.

    Attributes:
        exit_code: what a command that dies of it returns: 2 for bad usage, recipe or data, 1 for a run that failed.
    """

    exit_code = 1


class RecipeError(TorchrelayError):
    """The recipe names something that does not exist or does not fit, seen before anything expensive starts."""

    exit_code = 2


class DataError(TorchrelayError):
    """The table or its files cannot be trained on."""

    exit_code = 2


class SourceError(TorchrelayError):
    """A run, a registered model or a weights file that was named cannot be found or does not fit."""

    exit_code = 2


class ShapeError(TorchrelayError):
    """A batch or a schema does not have the shape that a model was built for."""

    exit_code = 2


class DeviceError(RecipeError):
    """The recipe asks for a device or a precision that this machine does not have."""


class TrainingError(TorchrelayError):
    """Training cannot go on, for example because the loss is no longer finite. Weights are as before the step."""


class CheckpointError(TorchrelayError):
    """No checkpoint can be written, or none that verifies can be read."""


class TrackingError(TorchrelayError):
    """The tracking server refused something or cannot be reached."""


class BusyError(TorchrelayError):
    """Another living process holds the lock that is needed."""

    exit_code = 2

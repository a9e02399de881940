"""Whether what is installed fits together.

Versions, devices, servers, space, the home, the clock.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from packaging.requirements import Requirement

from ..addresses import hide_secrets
from ..engine.hardware import usable_cores
from ..runs import RunRecord
from ..settings import (
    Home,
    prefect_address,
    prefect_is_embedded,
    shown_tracking_uri,
    tracking_is_embedded,
    tracking_uri,
)
from ..tasks.services import ask_prefect, ask_server
from .accelerators import is_nvidia_unused, list_accelerators

LITTLE_SPACE = 1_000_000_000
# Between two clocks that are right.
CLOCK_SECONDS = 300.0


def describe_installation(home: Home) -> list[str]:
    """Lines for people.

    Versions, servers, space; nothing in them is judged.
    """
    names = ("torchrelay", "torch", "torchvision", "prefect", "mlflow")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    mlflow = "embedded" if tracking_is_embedded() else shown_tracking_uri()
    prefect = "embedded" if prefect_is_embedded() else hide_secrets(prefect_address())
    free = shutil.disk_usage(_existing(home.root)).free
    return [
        versions,
        f"MLflow: {mlflow}; Prefect: {prefect}",
        f"home: {home.root}, {free / 1e9:,.1f} GB free",
    ]


def check_installation(home: Home, records: Sequence[RunRecord]) -> Iterator[tuple[str, str]]:
    """What is wrong, each with its remedy."""
    yield from check_versions("torchrelay")
    yield from check_versions("torchvision", ("torch",))
    if not tracking_is_embedded() and (uri := tracking_uri()).startswith("http"):
        yield from _check_server(
            "MLflow", uri, ask_server(f"{uri.rstrip('/')}/health"), "MLFLOW_TRACKING_URI"
        )
    if not prefect_is_embedded():
        yield from _check_server("Prefect", prefect_address(), ask_prefect(), "PREFECT_API_URL")
    yield from _check_disk(home)
    yield from check_clock(records, time.time())


def describe_devices() -> str:
    """A line for people.

    What there is to compute with; waits for torch where there may be an accelerator.
    """
    devices = (f"{name} {of}".rstrip() for name, of in list_accelerators().items())
    return f"devices: {', '.join((f'cpu ({len(usable_cores())} cores)', *devices))}"


def check_devices() -> Iterator[tuple[str, str]]:
    """An accelerator that torch cannot use, with its remedy."""
    if is_nvidia_unused():
        yield (
            "there is an NVIDIA device, and torch cannot use it",
            "install the build of torch for CUDA, or a driver that is new enough for it",
        )


def check_versions(package: str, among: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """The requirements of a package that what is installed does not meet.

    Args:
        among: names of requirements to look at; empty means all, without those of extras.
    """
    for text in importlib.metadata.requires(package) or ():
        needed = Requirement(text)
        if (needed.marker and not needed.marker.evaluate({"extra": ""})) or (
            among and needed.name not in among
        ):
            continue
        bounds = f"{needed.name}{needed.specifier}"
        try:
            found = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            yield (
                f"{needed.name} is not installed, {package} needs {bounds}",
                f"pip install '{bounds}'",
            )
            continue
        if not needed.specifier.contains(found, prereleases=True):
            yield (
                f"{needed.name} {found} is installed, {package} needs {bounds}",
                f"pip install '{bounds}'",
            )


def check_clock(records: Sequence[RunRecord], now: float) -> Iterator[tuple[str, str]]:
    """A run from the future says that the clock is wrong, or was."""
    for record in records:
        began = datetime.fromisoformat(record.created).timestamp()
        if began > now + CLOCK_SECONDS:
            yield (
                f"run {record.run_id} began at {record.created}, in {(began - now) / 60:,.0f} "
                "minutes from now",
                "set this machine's clock; metrics carry its time",
            )
            return


def _check_server(name: str, address: str, reason: str, variable: str) -> Iterator[tuple[str, str]]:
    if reason:
        yield (
            f"the {name} server at {hide_secrets(address)} {reason}",
            f"start it, or unset {variable} to work without one",
        )


def _check_disk(home: Home) -> Iterator[tuple[str, str]]:
    probe = _existing(home.root) / f".{uuid.uuid4().hex[:8]}.tmp"
    try:
        probe.write_bytes(b"torchrelay")
    except OSError as error:
        yield (
            f"the home {home.root} cannot be written: {error}",
            "make it writable, or set TORCHRELAY_HOME",
        )
    with contextlib.suppress(OSError):
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(_existing(home.root)).free
    if free < LITTLE_SPACE:
        yield (
            f"{home.root} has {free / 1e6:,.0f} MB left",
            "torchrelay prune --older-than 30d frees space",
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(one for one in (path, *path.parents) if one.is_dir())

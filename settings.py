"""Where torchrelay keeps its state and which servers it talks to.

Reads the environment, opens nothing.

`TORCHRELAY_HOME` (default `.torchrelay` in the working directory) holds all of it.
`MLFLOW_TRACKING_URI` and `PREFECT_API_URL` are honoured where they are set; else both run embedded,
inside the home.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .addresses import (
    hide_in_process,
    hide_secrets,
    needs_quoting,
    remember_secrets,
    sqlite_address,
)

# A temporary Prefect server takes 6 to 16 s to start on two cores, and Prefect gives up after 20.
PREFECT_STARTUP_SECONDS = 300
# How long `sync` and `doctor` wait for an MLflow server that says nothing.
SYNC_PATIENCE_SECONDS = 20.0
# For all questions to one Prefect server together, before a flow begins.
ANSWER_SECONDS = 4.0


@dataclass(frozen=True)
class Home:
    """The folders of one TORCHRELAY_HOME."""

    root: Path

    @property
    def store(self) -> Path:
        """Decoded pixels, one folder an image specification."""
        return self.root / "store"

    @property
    def packs(self) -> Path:
        """Tables as memory-mapped arrays."""
        return self.root / "packs"

    @property
    def runs(self) -> Path:
        """One folder a run, named by its id."""
        return self.root / "runs"

    @property
    def artifacts(self) -> Path:
        """Artifacts of the embedded MLflow."""
        return self.root / "artifacts"

    @property
    def cache(self) -> Path:
        """What can be made anew.

        Sources downloaded from MLflow, torchvision's weights, matplotlib's fonts.
        """
        return self.root / "cache"


def home() -> Home:
    """The home of this process, absolute.

    The folder need not exist yet.
    """
    return Home(Path(os.environ.get("TORCHRELAY_HOME") or ".torchrelay").absolute())


def make_home() -> Path:
    """Make the home, where it is not there, for its owner alone.

    It may hold addresses with passwords.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    root = home().root
    root.mkdir(0o700, parents=True, exist_ok=True)
    return root


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite database inside the home."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_address(home().root / "mlflow.db")


def shown_tracking_uri() -> str:
    """The same without secrets, for messages."""
    return hide_secrets(tracking_uri())


def tracking_is_embedded() -> bool:
    """Whether MLflow is the database inside the home."""
    return not os.environ.get("MLFLOW_TRACKING_URI")


def prefect_is_embedded() -> bool:
    """Whether neither the environment nor the active Prefect profile names
    an API.
    """
    return not prefect_address()


def prefect_address() -> str:
    """Where the environment or the active Prefect profile says that
    Prefect's API is; empty where it is embedded.
    """
    return prefect_setting("PREFECT_API_URL")


def prefect_setting(name: str) -> str:
    """One of Prefect's settings, from the environment or the active profile.

    Empty where neither has it.
    """
    return os.environ.get(name) or str(_prefect_profile().get(name) or "")


def set_environment() -> None:
    """Point Prefect, MLflow and matplotlib at the home, and keep secrets out of
    what is logged.

    Call it before they are imported; what the user set stays.
    """
    hide_in_process()
    for name, value in _prefect_profile().items():
        if name.startswith("PREFECT_") and (
            "://" in str(value) or name.endswith(("KEY", "AUTH_STRING", "PASSWORD"))
        ):
            remember_secrets(str(value))
    root = home().root
    set_default = os.environ.setdefault
    set_default("MPLCONFIGDIR", str(root / "cache" / "matplotlib"))
    set_default("MPLBACKEND", "Agg")
    set_default("MLFLOW_DISABLE_TELEMETRY", "true")
    if prefect_is_embedded():
        set_default("PREFECT_HOME", str(root / "prefect"))
        set_default(
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", str(PREFECT_STARTUP_SECONDS)
        )
        set_default("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        database = root / "prefect" / "prefect.db"
        if needs_quoting(database) and "PREFECT_API_DATABASE_CONNECTION_URL" not in os.environ:
            set_default(
                "PREFECT_SERVER_DATABASE_CONNECTION_URL", sqlite_address(database, "aiosqlite")
            )


def _prefect_profile() -> dict[str, str]:
    prefect_home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(os.environ.get("PREFECT_PROFILES_PATH") or prefect_home / "profiles.toml")
    try:
        profiles = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return {}
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active", "")
    return profiles.get("profiles", {}).get(active, {})

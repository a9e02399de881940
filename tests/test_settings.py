"""Settings: where state is kept and which servers are talked to; what the user set stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from torchrelay import settings

DEFAULTS = (
    "MPLCONFIGDIR",
    "MPLBACKEND",
    "MLFLOW_DISABLE_TELEMETRY",
    "PREFECT_HOME",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS",
    "PREFECT_SERVER_ANALYTICS_ENABLED",
)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where nothing was set, with an empty home of the user."""
    for name in (
        *DEFAULTS,
        "PREFECT_API_URL",
        "PREFECT_PROFILE",
        "PREFECT_PROFILES_PATH",
        "MLFLOW_TRACKING_URI",
    ):
        monkeypatch.setenv(name, "")  # so that what set_environment sets is taken back
        monkeypatch.delenv(name)
    (tmp_path / "user").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


def write_profiles(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profiles.toml").write_text(text)


PROFILES = """
active = "local"
[profiles.local]
PREFECT_LOGGING_LEVEL = "INFO"
[profiles.team]
PREFECT_API_URL = "http://10.0.0.1:4200/api"
"""


def test_the_home_is_a_folder_of_the_working_directory_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHRELAY_HOME", "elsewhere")
    assert settings.home().root == tmp_path / "elsewhere"
    monkeypatch.setenv("TORCHRELAY_HOME", "")
    assert settings.home().root == tmp_path / ".torchrelay"
    assert not (tmp_path / ".torchrelay").exists()


def test_all_folders_lie_in_the_home() -> None:
    home = settings.home()
    folders = {home.store, home.packs, home.runs, home.artifacts, home.cache}
    assert len(folders) == 5
    assert all(folder.parent == home.root for folder in folders)


def test_mlflow_is_the_database_in_the_home_unless_a_server_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.tracking_is_embedded()
    assert settings.tracking_uri() == f"sqlite:///{settings.home().root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert not settings.tracking_is_embedded()
    assert settings.tracking_uri() == "http://127.0.0.1:5000"


def test_prefect_is_embedded_where_nothing_names_an_api() -> None:
    assert settings.prefect_is_embedded()


def test_an_api_in_the_environment_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    assert not settings.prefect_is_embedded()


def test_an_api_in_the_active_profile_is_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profiles(tmp_path / "user" / ".prefect", PROFILES)
    assert settings.prefect_is_embedded()
    monkeypatch.setenv("PREFECT_PROFILE", "team")
    assert not settings.prefect_is_embedded()
    monkeypatch.setenv("PREFECT_PROFILE", "unknown")
    assert settings.prefect_is_embedded()


def test_profiles_are_found_where_prefect_looks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_PROFILE", "team")
    write_profiles(tmp_path / "a", PROFILES)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "a"))
    assert not settings.prefect_is_embedded()
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "b" / "profiles.toml"))
    assert settings.prefect_is_embedded()


def test_a_torn_profile_file_means_embedded(tmp_path: Path) -> None:
    write_profiles(tmp_path / "user" / ".prefect", "active = 'team\n[profiles")
    assert settings.prefect_is_embedded()


def test_the_libraries_are_pointed_at_the_home() -> None:
    settings.set_environment()
    root = str(settings.home().root)
    assert os.environ["PREFECT_HOME"].startswith(root)
    assert os.environ["MPLCONFIGDIR"].startswith(root)
    assert int(os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"]) >= 300


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.setenv(name, f"mine-{name}")
    settings.set_environment()
    assert all(os.environ[name] == f"mine-{name}" for name in DEFAULTS)


def test_with_a_server_prefects_own_home_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    settings.set_environment()
    assert "PREFECT_HOME" not in os.environ
    assert "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS" not in os.environ


def test_asking_twice_changes_nothing() -> None:
    settings.set_environment()
    before = dict(os.environ)
    settings.set_environment()
    assert dict(os.environ) == before

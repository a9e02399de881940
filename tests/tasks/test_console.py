"""What a person reads while work goes on that has no steps to count."""

from __future__ import annotations

import time

import pytest

from torchrelay import console
from torchrelay.console import Progress, saying_still


def test_long_work_says_that_it_goes_on_until_it_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "STILL_SECONDS", 0.05)
    with saying_still("reading t.csv"):
        time.sleep(0.2)
    said = capsys.readouterr().err
    assert said.startswith("still reading t.csv, 0 s\nstill reading t.csv")
    time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_nothing_is_said_while_steps_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "STILL_SECONDS", 0.1)
    with Progress("ingest", "images") as progress, saying_still("reading t.csv", progress):
        for done in range(6):
            progress.update(done, 1000)
            time.sleep(0.03)
    assert capsys.readouterr().err == ""

"""The run folder that the tests of tasks make."""

from __future__ import annotations

from ..tasks.conftest import make_run as make_run

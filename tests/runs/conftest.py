"""The run folders that the tests of tracking and of tasks make."""

from __future__ import annotations

from ..tasks.conftest import make_run as make_run
from ..tracking.conftest import home as home
from ..tracking.conftest import make_record as make_record

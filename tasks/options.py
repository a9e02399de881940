"""What all tasks share.

Prefect neither hashes their arguments nor keeps their results; the run folder does.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE

UNCACHED: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

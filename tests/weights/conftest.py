"""The tiny job that the tests of the engine train."""

from __future__ import annotations

from ..engine.conftest import make_job as make_job

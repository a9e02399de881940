"""The tables and pictures that the tests of datasets write."""

from __future__ import annotations

from ..datasets.conftest import write_pictures as write_pictures
from ..datasets.conftest import write_table as write_table

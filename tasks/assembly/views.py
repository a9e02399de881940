"""The rows of a run: its split of its pack, opened once a run.

`runs` knows neither packs nor splits, so that a run cannot keep this itself.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

from ...datasets.pack import View, open_view
from ...runs import Run

_views: WeakKeyDictionary[Run, View] = WeakKeyDictionary()


def view_of(run: Run) -> View:
    """The view of a run's split.

    Raises:
        DataError: pack or split are missing or do not belong together, or the split is not as it
            was written.
    """
    if run not in _views:
        _views[run] = open_view(run.pack_dir, run.split_dir)
    return _views[run]

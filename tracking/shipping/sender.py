"""Sends what runs left, one after another, until the tracker is silent.

MLflow is imported when there is something.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ... import settings
from ...runs import Cursor, Run, waiting

if TYPE_CHECKING:
    from .outbox import Registered


class Shipped(NamedTuple):
    """How far the shipping of one run came.

    Attributes:
        run_id: ours.
        mlflow_run_id: MLflow's; empty where it does not have the run yet.
        num_sent: lines of its journal that were sent.
        num_waiting: lines that MLflow does not have yet.
        reason: why they wait; empty where none do.
        is_silent: the reason is the tracker's silence, not this run.
        registered: versions of registered models that were made.
        aside: what the tracker does not take, in a sentence; empty where it takes all.
    """

    run_id: str
    mlflow_run_id: str
    num_sent: int
    num_waiting: int
    reason: str = ""
    is_silent: bool = False
    registered: tuple[Registered, ...] = ()
    aside: str = ""


class Sender:
    """Sends what runs left, one after another.

    After one to which the tracker is silent, the others are not tried.

    Attributes:
        unreachable: why no other is tried; empty while the tracker answers.
    """

    def __init__(self) -> None:
        self.unreachable = ""

    def send(self, run: Run, *, is_asked: bool = False) -> Shipped:
        """Send what a run left, or say why that is not tried.

        Raises what `sync_run` raises.
        """
        if self.unreachable:
            return Shipped(
                run.run_id, Cursor.load(run.folder).mlflow_run_id, 0, waiting(run), self.unreachable
            )
        from .shipper import sync_run

        done = sync_run(run, settings.SYNC_PATIENCE_SECONDS, is_asked=is_asked)
        self.unreachable = done.reason if done.is_silent else ""
        return done

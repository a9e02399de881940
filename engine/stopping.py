"""Why a training ends before its last epoch.

Nothing gets better any more, or its time is over.
"""

from __future__ import annotations

from .job import Job, Progress


def reason_to_stop(job: Job, progress: Progress) -> str:
    """Why no further epoch is begun, in words that name the setting.

    Empty where one is.

    It follows from the state alone, so that a stopped run that is resumed stops again unless the
    setting was changed.
    """
    num_worse = progress.epoch - progress.best_epoch
    if job.early_stop_epochs and num_worse >= job.early_stop_epochs:
        return (
            f"{job.monitor} was best after epoch {progress.best_epoch} "
            f"({progress.best_metric:.4g}) and no better in "
            f"{num_worse} epochs (train.early_stop_epochs: {job.early_stop_epochs})"
        )
    if is_out_of_time(job, progress):
        return (
            f"{progress.seconds / 60:.3g} minutes of training are over (train.max_minutes: "
            f"{job.max_seconds / 60:g})"
        )
    return ""


def is_out_of_time(job: Job, progress: Progress) -> bool:
    """Whether the training has had its time, all resumes together."""
    return 0 < job.max_seconds <= progress.seconds

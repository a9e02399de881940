from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from torchrelay.engine.checkpoints import CheckpointStore
from torchrelay.engine.job import Job, Progress, restore_run
from torchrelay.engine.loop import train
from torchrelay.engine.signals import StopFlag, StopRequested
from torchrelay.schema import Batch
from torchrelay.weights import sha256_of

from .conftest import MakeJob

STEPS_PER_EPOCH = 5


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What the handlers hear that stand before ours."""
    numbers: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def store_in(folder: Path) -> CheckpointStore:
    return CheckpointStore(folder, 3, {"run_id": "tiny"}, {})


def no_report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
    pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_flag_and_means_what_it_meant_after_the_block(
    heard: list[int], number: int
) -> None:
    with StopFlag() as stop:
        assert not stop.requested
        send(number)
        assert stop.requested
        assert heard == []
    assert heard == [number]


def test_a_second_signal_means_at_once_what_it_meant_before(heard: list[int]) -> None:
    with StopFlag():
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert heard == [signal.SIGINT]
        send(signal.SIGINT)
        assert heard == [signal.SIGINT] * 2
    assert heard == [signal.SIGINT, signal.SIGINT, signal.SIGTERM]


def test_a_signal_that_the_process_ignores_stays_ignored(heard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopFlag() as stop:
        send(signal.SIGINT)
        assert not stop.requested
        send(signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    assert heard == [signal.SIGTERM]


def test_an_error_in_the_block_is_not_drowned_by_the_signal(heard: list[int]) -> None:
    with pytest.raises(ValueError, match="mine"), StopFlag():
        send(signal.SIGTERM)
        raise ValueError("mine")
    assert heard == []
    send(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def test_what_is_watched_ends_before_the_next_item_is_fetched(heard: list[int]) -> None:
    fetched: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            fetched.append(number)
            yield number

    with StopFlag() as stop:
        with pytest.raises(StopRequested):
            for item in stop.watch(items()):
                if item == 2:
                    send(signal.SIGTERM)
        assert fetched == [0, 1, 2]
    with StopFlag() as stop:
        assert list(stop.watch(items())) == [0, 1, 2, 3, 4]


def test_outside_the_main_thread_the_handlers_stay_as_they_are(heard: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with StopFlag() as stop:
            seen.extend((signal.getsignal(signal.SIGTERM), stop.requested))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, False]


@pytest.mark.parametrize("every_steps", [0, 1])
def test_a_validation_that_a_signal_interrupts_is_done_again_and_the_bits_are_the_same(
    make_job: MakeJob, tmp_path: Path, heard: list[int], every_steps: int
) -> None:
    whole = make_job(epochs=3)
    reported: list[tuple[int, float]] = []

    def report(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if epoch_ended:
            reported.append((progress.epoch, values["valid/loss"]))

    train(whole, Progress(), store_in(tmp_path / "whole"), report)
    expected, reported[:] = reported.copy(), []

    def interrupted(job: Job) -> Job:
        passes: list[int] = []

        def batches() -> Iterable[Batch]:
            passes.append(len(passes))
            for number, batch in enumerate(job.valid_batches()):
                if len(passes) == 2 and number == 1:  # the second validation, in its second batch
                    send(signal.SIGTERM)
                yield batch

        return replace(job, valid_batches=batches)

    progress = Progress()
    train(
        interrupted(make_job(epochs=3, every_steps=every_steps)),
        progress,
        store_in(tmp_path / "part"),
        report,
    )
    assert heard == [signal.SIGTERM]
    assert (progress.epoch, progress.batch, progress.step) == (
        1,
        STEPS_PER_EPOCH,
        2 * STEPS_PER_EPOCH,
    )
    assert reported == expected[:1]

    torch.manual_seed(99)
    rest = make_job(epochs=3)
    checkpoint = store_in(tmp_path / "part").load_last()
    assert checkpoint is not None
    assert checkpoint.state["step"] == 2 * STEPS_PER_EPOCH
    train(rest, restore_run(rest, checkpoint.state), store_in(tmp_path / "part"), report)
    assert reported == expected
    assert sha256_of(rest.scorer.model.state_dict()) == sha256_of(whole.scorer.model.state_dict())


def test_a_second_signal_ends_the_loop_at_once_and_the_checkpoint_before_stays_the_last(
    make_job: MakeJob, tmp_path: Path
) -> None:
    def twice(progress: Progress, values: dict[str, float], epoch_ended: bool) -> None:
        if progress.step == STEPS_PER_EPOCH + 2:
            send(signal.SIGINT)
            send(signal.SIGINT)
            raise AssertionError("the step went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(make_job(), Progress(), store_in(tmp_path), twice)
    finally:
        signal.signal(signal.SIGINT, before)
    checkpoint = store_in(tmp_path).load_last()
    assert checkpoint is not None
    assert checkpoint.state["step"] == STEPS_PER_EPOCH

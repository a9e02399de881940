"""A version of a registered model while it waits in its run's folder.

Put together, held against its line, signed.

What its files are stands in the journal from the moment they were written, so that what a disk
spoils while they wait is noticed before it is sent. Sending is the business of `versions.py`;
nothing here needs a server.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ... import settings
from ...disk import (
    commit_folder,
    find_changed,
    is_within,
    list_files,
    remove_tree,
    seal,
    sha256_file,
    why_no_list,
    write_atomic,
    write_json,
)
from ...errors import SourceError, shown
from ...faults import reach
from ...runs import (
    BEST,
    FILES_TAG,
    FINGERPRINT_TAG,
    NEEDED,
    RUN_ID_TAG,
    STAGED,
    VERSION_FILES,
    Run,
    RunRecord,
    digests_of,
    read_version_files,
)

if TYPE_CHECKING:
    import torch

WEIGHTS_TAG = "torchrelay.weights_file_sha256"
# MLflow's description of a model, into which its ids are written before it is sent.
MLMODEL = "MLmodel"

logger = logging.getLogger(__name__)


def stage_model(
    run: Run,
    name: str,
    servable: torch.nn.Module | None,
    input_example: np.ndarray | None,
) -> bool:
    """Put a version of a registered model together in the run's folder, and
    journal it; needs no server.

    Where the model can be exported, `mlflow.pytorch.load_model` and `mlflow models serve` take raw
    inputs. Weights that are in the journal under that name already are not staged again.

    Args:
        run: whose `weights/best.pt` becomes the version.
        name: of the registered model; made where there is none.
        servable: takes raw inputs, one tensor; None where a model has several, and then the version
            has weights only.
        input_example: raw inputs of one row or more, shape (B, ...); None together with `servable`.
    Returns:
        Whether a line was journaled.
    """
    run.verify(NEEDED)
    files = digests_of(run.folder, NEEDED)
    weights_sha256 = files[BEST]
    lines = [
        line
        for line in run.journal.lines()
        if line["kind"] == "model" and line["weights_sha256"] == weights_sha256
    ]
    if any(line["name"] == name for line in lines):
        return False
    folder = run.folder / STAGED / weights_sha256[:16]
    listed = next((line["files"] for line in lines if "files" in line), None)
    if not folder.is_dir() or listed is None:
        remove_tree(folder)  # of a process that died before it said what is in it
        listed = _put_together(run.folder, folder, servable, input_example)
    reach("register.exported")
    run.journal.append(
        "model",
        name=name,
        folder=f"{STAGED}/{folder.name}",
        weights_sha256=weights_sha256,
        step=run.record.steps,
        files=listed,
        tags={**_version_tags(run.record, weights_sha256), FILES_TAG: json.dumps(files)},
    )
    return True


def _put_together(
    source: Path, folder: Path, servable: torch.nn.Module | None, input_example: np.ndarray | None
) -> dict[str, dict[str, Any]]:
    """Fill the folder of a version.

    Sha256 and size of its files.
    """
    with commit_folder(folder) as temporary:
        if servable is not None and input_example is not None:
            _export(servable, input_example, temporary)
        _copy_needed(source, temporary)
        sign(temporary, "", "")
        return list_files(temporary, _names_in(temporary))


def _copy_needed(source: Path, folder: Path) -> None:
    for part in NEEDED:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / part, folder / part)


def _names_in(folder: Path) -> list[str]:
    """What stands in a version's folder, links too, but the list that is
    sent with it.
    """
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    return [
        name for path in found if (name := path.relative_to(folder).as_posix()) != VERSION_FILES
    ]


def staged_folder(run: Run, line: Mapping[str, Any]) -> Path:
    """The folder of a `model` line, which goes once it is sent.

    Named by the weights' digest, in the run's own folder.

    Raises:
        ValueError: the line states another, which was not put together here.
    """
    name = str(line["weights_sha256"])[:16]
    if (
        line["folder"] != f"{STAGED}/{name}"
        or not re.fullmatch("[0-9a-f]{16}", name)
        or (run.folder / STAGED).is_symlink()
    ):
        raise ValueError(
            f"its folder {shown(repr(line['folder']))} is none in which a version waits"
        )
    return run.folder / STAGED / name


def stage_again(run: Run, line: Mapping[str, Any], folder: Path) -> bool:
    """Put a version together that was sent to a database that is lost.

    From what MLflow kept of it, or the run's files.

    Returns:
        Whether there is anything that has these very weights.
    """
    wanted, best = line["weights_sha256"], run.folder / BEST
    models = settings.home().artifacts / "models"
    size = best.stat().st_size if best.is_file() else -1
    for kept in (
        sorted(models.glob(f"*/artifacts/{BEST}")) if settings.tracking_is_embedded() else ()
    ):
        if size in (-1, kept.stat().st_size) and sha256_file(kept) == wanted:
            if changed := _why_changed(kept.parents[1]):
                logger.warning("%s is not taken again for a version: %s", kept.parents[1], changed)
                continue
            if _why_not_as_listed(
                kept.parents[1], line.get("files")
            ):  # of the same weights under another name
                continue
            with commit_folder(folder) as temporary:
                shutil.copytree(kept.parents[1], temporary, dirs_exist_ok=True)
            return True
    if size < 0 or sha256_file(best) != wanted:
        return False
    with commit_folder(folder) as temporary:
        _copy_needed(run.folder, temporary)
    logger.warning(
        "%s: its version of %r has weights but nothing to serve", run.run_id, line["name"]
    )
    return True


def _why_changed(folder: Path) -> str:
    """Why what MLflow kept of a version is not what was registered.

    Empty where it is, or a version of before.
    """
    try:
        return next(find_changed(folder, read_version_files(folder)), "")
    except (SourceError, OSError) as error:
        return str(error)


def check_staged(folder: Path, line: Mapping[str, Any]) -> None:
    """Refuse to register what is no longer what was put together.

    A line of before says of recipe, schema and weights alone what they were. A version that was put
    together again of its run's files has only these.

    Raises:
        ValueError: names the file.
    """
    try:
        known = files_of(line["tags"])
    except SourceError as error:
        raise ValueError(str(error)) from error
    changed = [part for part, sha256 in known.items() if not _has(folder / part, sha256)]
    problem = (
        f"{changed[0]} has another sha256"
        if changed
        else _why_not_as_listed(folder, line.get("files"))
    )
    if problem:
        raise ValueError(
            f"{folder} is not what was put together: {problem}; delete it and resume the run"
        )


def _has(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _why_not_as_listed(folder: Path, listed: Any) -> str:
    """Why a folder does not hold what a line says.

    Empty where it does, or the line says nothing of it.
    """
    if link := next((path for path in folder.rglob("*") if path.is_symlink()), None):
        return f"{link.name} is a link"
    if listed is None:
        return ""
    if reason := why_no_list(listed):
        return reason
    is_served = (folder / MLMODEL).is_file()
    expected = {name: facts for name, facts in listed.items() if is_served or name in NEEDED}
    if others := [name for name in _names_in(folder) if name not in expected]:
        return f"{shown(repr(others[0]))} is none of its files"
    signed = expected.pop(MLMODEL, None)
    if (
        signed is not None
        and hashlib.sha256(_signed(folder, "", "").encode()).hexdigest() != signed["sha256"]
    ):
        return f"{MLMODEL} has another sha256"
    return next(find_changed(folder, expected), "")


def files_of(tags: Mapping[str, str]) -> dict[str, str]:
    """sha256 of the files of a run or a version, by its tags, which anybody may
    change.

    Raises:
        SourceError: they do not say it.
    """
    if FILES_TAG not in tags:
        return {BEST: tags[WEIGHTS_TAG]} if tags.get(WEIGHTS_TAG) else {}
    try:
        found = json.loads(tags[FILES_TAG])
    except (ValueError, RecursionError, TypeError):
        found = None
    if not isinstance(found, dict) or not all(
        is_within(part) and isinstance(one, str) for part, one in found.items()
    ):
        raise SourceError(
            f"tag {FILES_TAG} is {shown(repr(tags[FILES_TAG]))}; expected the sha256 of files by "
            "their names, as JSON; "
            "put back what it was, or delete that tag in MLflow, and the files are taken as they "
            "are there"
        )
    return found


def sign(folder: Path, run_id: str, model_id: str) -> None:
    """Write MLflow's ids into a staged model, which was exported before it
    had any; empty ones while it has none.
    """
    if (folder / MLMODEL).is_file():
        write_atomic(folder / MLMODEL, _signed(folder, run_id, model_id))


def _signed(folder: Path, run_id: str, model_id: str) -> str:
    """MLflow's description of a model with these ids in the place of whatever
    it has.

    Raises:
        ValueError: it is no description of one.
    """
    try:
        facts = dict(yaml.safe_load((folder / MLMODEL).read_text("utf-8")))
    except (yaml.YAMLError, TypeError) as error:
        raise ValueError(f"{folder / MLMODEL} cannot be read: {error}") from error
    return yaml.safe_dump({**facts, "run_id": run_id, "model_id": model_id, "model_uuid": model_id})


def list_version(folder: Path, line: Mapping[str, Any]) -> None:
    """Write down, to be sent with them, what a staged model's files are.

    As they were put together, where known.
    """
    names, listed = _names_in(folder), line.get("files") or {}
    fresh = list_files(folder, (name for name in names if name == MLMODEL or name not in listed))
    write_json(
        folder / VERSION_FILES,
        seal({"files": {name: fresh.get(name) or listed[name] for name in names}}),
    )


def _export(servable: torch.nn.Module, example: np.ndarray, folder: Path) -> None:
    """Write an MLflow model into an empty folder.

    A module that cannot be exported leaves the version without one.
    """
    from mlflow import pytorch

    module = _with_one_input(copy.deepcopy(servable).cpu().eval())
    example = np.ascontiguousarray(
        np.repeat(example[:1], 2, axis=0)
    )  # of one row, the export would fix the batch at 1
    try:
        pytorch.save_model(
            module,
            folder,
            input_example=example,
            # Left to itself, MLflow starts a process that loads the model and looks which packages
            # that takes.
            pip_requirements=[
                f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "torch")
            ],
            serialization_format="pt2",
        )
    except Exception as error:  # noqa: BLE001 - anyone's model, and torch.export's errors have no base class
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        logger.warning(
            "the version has weights but nothing to serve: torch.export refused the model: %s",
            str(error).strip().split("\n")[0],
        )


def _with_one_input(module: torch.nn.Module) -> torch.nn.Module:
    """The same module with one named argument.

    Of `*inputs` torch.export cannot tell the batch dimension.
    """
    import torch

    class OneInput(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x_B: torch.Tensor) -> torch.Tensor:
            return self.module(x_B)

    return OneInput().eval()


def _version_tags(record: RunRecord, weights_sha256: str) -> dict[str, str]:
    tags = {
        RUN_ID_TAG: record.run_id,
        FINGERPRINT_TAG: record.fingerprint,
        WEIGHTS_TAG: weights_sha256,
    }
    metrics = {
        key: f"{value:.6g}"
        for key, value in record.metrics.items()
        if re.fullmatch(r"test/[^/]+", key)
    }
    return tags | metrics

"""prefect.yaml: Prefect ignores keys that it does not know, so they are held against its own
models here.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.schedules import CronSchedule
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel

from torchrelay.recipe import load_recipe

from .prefect_private import (
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)

ROOT = Path(__file__).parents[1]
CONTENT: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))
DEPLOYMENTS: list[dict[str, Any]] = CONTENT["deployments"]
IDS = [
    f"{deployment['entrypoint'].rpartition('.')[2]}/{deployment['name']}"
    for deployment in DEPLOYMENTS
]
each_deployment = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=IDS)


def unknown_keys(values: dict[str, Any], model: type[BaseModel]) -> set[str]:
    return set(values) - {field.alias or name for name, field in model.model_fields.items()}


def test_every_key_is_one_that_prefect_knows() -> None:
    assert unknown_keys(CONTENT, PrefectYamlModel) == set()
    for deployment in DEPLOYMENTS:
        assert unknown_keys(deployment, DeploymentConfig) == set()
        assert unknown_keys(deployment["work_pool"], WorkPoolConfig) == set()
        for schedule in deployment["schedules"]:
            assert unknown_keys(schedule, RawScheduleConfig) == set()


def test_each_flow_is_deployed_and_train_for_both_recipes() -> None:
    digits = [f"{flow}/digits" for flow in ("evaluate", "finetune", "ingest", "predict", "train")]
    assert sorted(IDS) == sorted([*digits, "train/cifar10"])


@each_deployment
def test_it_goes_to_the_work_pool_and_waits_for_its_schedule_to_be_resumed(
    deployment: dict[str, Any],
) -> None:
    assert deployment["work_pool"] == {"name": "relay"}
    (schedule,) = deployment["schedules"]
    assert schedule["active"] is False
    assert (
        CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]).timezone
        == schedule["timezone"]
    )


@each_deployment
def test_its_parameters_are_those_of_its_flow(deployment: dict[str, Any]) -> None:
    flow = load_flow_from_entrypoint(deployment["entrypoint"])
    assert flow.name == deployment["entrypoint"].rpartition(".")[2]
    inspect.signature(flow.fn).bind(**deployment["parameters"])
    flow.validate_parameters(deployment["parameters"])


@each_deployment
def test_the_recipe_it_names_is_there(deployment: dict[str, Any]) -> None:
    if "recipe_file" in deployment["parameters"]:
        assert (
            load_recipe(ROOT / deployment["parameters"]["recipe_file"]).name == deployment["name"]
        )


def test_finetuning_is_deployed_from_the_champion_that_the_digits_recipe_registers() -> None:
    (parameters,) = (
        one["parameters"]
        for one, known in zip(DEPLOYMENTS, IDS, strict=True)
        if known == "finetune/digits"
    )
    recipe = load_recipe(ROOT / parameters["recipe_file"])
    assert parameters["source"] == f"models:/{recipe.tracking.register_as}@champion"


@pytest.mark.parametrize("name", ["evaluate/digits", "predict/digits"])
def test_what_a_model_is_deployed_for_is_what_the_digits_recipe_registers(name: str) -> None:
    (parameters,) = (
        one["parameters"] for one, known in zip(DEPLOYMENTS, IDS, strict=True) if known == name
    )
    recipe = load_recipe(ROOT / "recipes" / "digits.yaml")
    assert parameters["source"] == f"models:/{recipe.tracking.register_as}@champion"
    assert ROOT / parameters["table"] == Path(recipe.data.table)
    assert ROOT / parameters["files"] == Path(recipe.data.files)


def test_no_path_of_one_machine_stands_in_the_file() -> None:
    assert str(ROOT) not in (ROOT / "prefect.yaml").read_text()
    step = "prefect.deployments.steps.set_working_directory"
    assert CONTENT["pull"] == [{step: {"directory": "{{ folder.stdout }}"}}]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_deployed_run_works_in_the_folder_that_was_deployed_from(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(
        ROOT / "recipes", project / "recipes", ignore=shutil.ignore_patterns("*.py", "__pycache__")
    )
    shutil.copy(ROOT / "prefect.yaml", project)
    (tmp_path / "elsewhere").mkdir()
    # As in a terminal where nothing was set but the server, with an empty home of the user.
    (tmp_path / "user").mkdir()
    ours = ("TORCHRELAY_", "PREFECT_", "MLFLOW_", "MPL", "XDG_", "TORCH_HOME")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PREFECT_API_URL": str(PREFECT_API_URL.value()), "HOME": str(tmp_path / "user")}

    def call(command: str, *arguments: str, cwd: Path = project) -> str:
        path = Path(sys.executable).with_name(command)
        done = subprocess.run(
            [path, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command} {arguments}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    call("torchrelay", "fetch", "digits")
    call("prefect", "work-pool", "create", "relay", "--type", "process")
    call("prefect", "--no-prompt", "deploy", "--all")
    with get_client(sync_client=True) as client:
        deployed = client.read_deployments()
        assert all(not schedule.active for one in deployed for schedule in one.schedules)
        overrides = json.dumps({"train.epochs": 1})
        call("prefect", "deployment", "run", "train/digits", "--param", f"overrides={overrides}")
        call(
            "prefect",
            "worker",
            "start",
            "--pool",
            "relay",
            "--run-once",
            cwd=tmp_path / "elsewhere",
        )
        ours = client.read_deployment_by_name("train/digits").id
        (flow_run,) = (one for one in client.read_flow_runs() if one.deployment_id == ours)
    assert flow_run.state is not None
    assert flow_run.state.is_completed(), flow_run.state
    (listed,) = json.loads(call("torchrelay", "runs", "--json"))["runs"]
    assert listed["status"] == "FINISHED"
    assert listed["prefect_flow_run_id"] == str(flow_run.id)
    assert str(flow_run.id) in listed["prefect_flow_run_url"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert {path.name for path in project.iterdir()} == {
        "prefect.yaml",
        "recipes",
        "data",
        ".torchrelay",
    }
    assert {path.name for path in (tmp_path / "user").iterdir()} <= {".prefect"}

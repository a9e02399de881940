"""The private part of Prefect that tests use, checked on Prefect 3.8.8.

`prefect deploy` reads prefect.yaml by these models, and publishes no schema of the file.
"""

from __future__ import annotations

from prefect.cli.deploy._models import DeploymentConfig as DeploymentConfig
from prefect.cli.deploy._models import PrefectYamlModel as PrefectYamlModel
from prefect.cli.deploy._models import RawScheduleConfig as RawScheduleConfig
from prefect.cli.deploy._models import WorkPoolConfig as WorkPoolConfig

"""Prefect flows, one file each; every one reads as its own summary."""

from ..settings import set_environment

# A worker imports a flow after it has gone to the deployment's folder: there the home is known and matplotlib and
# MLflow are not imported yet. Without this they write into the user's own folders.
set_environment()

"""Prefect flows, one file each; every one reads as its own summary."""

import contextlib

from ..settings import make_home, prefect_is_embedded, set_environment

# A worker imports a flow after it has gone to the deployment's folder: there the home is known and matplotlib and
# MLflow are not imported yet. Without this they write into the user's own folders.
set_environment()

if prefect_is_embedded():
    with contextlib.suppress(OSError):  # which a run says better
        make_home()  # or Prefect would, for everybody to read

    from ..tasks.server_start import use_own_server

    use_own_server()

# Make the embedded MLflow database, once, however many processes ask for it at the same time.
from .client import make_database as make_database

# A client of `settings.tracking_uri()`; makes the embedded database where there is none yet.
from .client import open_client as open_client

# The name of the embedded tracker's database.
from .database import DATABASE_FILE as DATABASE_FILE

# Why a file is no database of MLflow's; empty where it is one, is not there, or is locked by
# somebody.
from .database import what_is_wrong as what_is_wrong

# What the tracker holds of all runs, as it was when it was asked.
from .holdings import Holdings as Holdings

# A version of a registered model.
from .holdings import Version as Version

# Whether the embedded database may have data sets that no run refers to.
from .holdings import has_unreferenced as has_unreferenced

# Ask the tracker what it has; makes no database where there is none.
from .holdings import list_holdings as list_holdings

# Our id of each run in the home's own database, by MLflow's id; none where there is no such
# database.
from .holdings import list_owners as list_owners

# A run's page where the tracker is a server; else how to open it.
from .mlflow_run import page_of as page_of

# Tell MLflow how and when a run ended.
from .reconcile import end_run as end_run

# The runs of ours that MLflow takes for running; makes no database where there is none.
from .reconcile import list_running as list_running

# Look whether the embedded database has the runs that say so; of a server nothing is known here.
from .recovery import find_lost as find_lost

# Set a database aside that is none, and let the runs that were lost with it be sent again, as
# `sync` does then.
from .recovery import recover as recover

# Delete a run with its versions and logged models; what is gone already is passed over.
from .removal import remove_run as remove_run

# Delete the data sets, and what MLflow knows of their use, that no run in the embedded database
# refers to.
from .removal import remove_unreferenced as remove_unreferenced

# Run MLflow's server on this process's tracker until Ctrl-C or SIGTERM, which both end it quietly.
from .ui import serve_ui as serve_ui

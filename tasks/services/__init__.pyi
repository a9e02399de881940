# Let Prefect tell a cancel from a plain SIGTERM although the flag's handler stands where its own
# did.
from .cancel import acknowledge_cancel as acknowledge_cancel

# Prefect's id of the flow run that we are in; empty outside of one.
from .flow_run import flow_run_id as flow_run_id

# The flow run's page, where a server outlives it.
from .flow_run import flow_run_url as flow_run_url

# Whether this flow run was the last to begin a run or let it go on.
from .flow_run import is_ours as is_ours

# Lead from the flow run to MLflow's page, where MLflow has the run.
from .flow_run import lead_to_mlflow as lead_to_mlflow

# The import path of Prefect's server.
from .flow_runs import SERVER as SERVER

# Tell Prefect how a flow run ended; starts its temporary server where there is no other.
from .flow_runs import end_flow_run as end_flow_run

# Flow runs in the database inside the home that have not ended, with their state, where no process
# is at them.
from .flow_runs import list_abandoned as list_abandoned

# Temporary Prefect servers of this home whose starter has died: nobody will stop them.
from .flow_runs import list_orphans as list_orphans

# Those flow runs that Prefect takes for running, pending or being cancelled, with that word.
from .flow_runs import list_unfinished as list_unfinished

# Install the filter; a second call changes nothing.
from .quiet import quiet_user_errors as quiet_user_errors

# The last error that the temporary server told of, with what to do about it; empty where there was
# none.
from .server_start import last_error as last_error

# Let Prefect start its temporary server our way; a process has one, which is this one from now on.
from .server_start import use_own_server as use_own_server

# Why Prefect's server cannot be worked with; empty where it can.
from .servers import ask_prefect as ask_prefect

# Why a server's answer to a GET is none to work with, in a few words; empty where it is one.
from .servers import ask_server as ask_server

# Make sure that a flow may open as many files as it needs; with fewer it ends wherever it happens
# to be.
from .servers import require_files as require_files

# Make sure that Prefect's server answers, where one is named; a flow would try for half a minute
# and say less.
from .servers import require_prefect as require_prefect

# Make sure that the home can be written, and has room for the databases inside it and for a run's
# records.
from .servers import require_room as require_room

# What a question gives, in a thread of its own: what bounds each read alone never ends where each
# gives a byte.
from .servers import within as within

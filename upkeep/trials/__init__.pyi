# Check a recipe, ingest its table, train two steps and score two batches of validation rows, or all
# if need be.
from .dry_run import dry_run as dry_run

# What a clock measures is another number each time.
from .verify import CLOCKED as CLOCKED

# The name of the embedded tracker's database.
from .verify import DATABASE_FILE as DATABASE_FILE

# What a clock measures is another number each time.
from .verify import LOG_FILE as LOG_FILE

# What a run came to, as far as it must not depend on how often it was stopped.
from .verify import Outcome as Outcome

# What the fork server imports before it forks: this module with all that it takes, and what its
# libraries import late.
from .verify import PRELOAD as PRELOAD

# Where two runs that should be identical differ first; empty where they do not.
from .verify import first_difference as first_difference

# Do work in a child process in the home `root`, with a fault armed, and give its exit code.
from .verify import in_child as in_child

# Read what a run came to from its folder.
from .verify import read_outcome as read_outcome

# Train a shortened run without a stop, then again with kills at random moments, and compare all
# that they gave.
from .verify import verify_resume as verify_resume

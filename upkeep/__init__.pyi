# Journals of runs that nobody writes, that are gone or not as a run leaves them.
from .bad_runs import find_bad_journals as find_bad_journals

# Folders with a record that cannot be read or is of another run, and those whose record is gone.
from .bad_runs import find_bad_records as find_bad_records

# An embedded database that is none, or that does not have the runs that say that they are in it.
from .bad_runs import find_lost_database as find_lost_database

# Whether a generation that is in use does not verify.
from .checkpoints import has_damage as has_damage

# All generations of a run, or of the runs below it, oldest first, then those that were set aside.
from .checkpoints import list_checkpoints as list_checkpoints

# Checkpoints that do not verify, or that this torchrelay does not read.
from .damage import find_bad_checkpoints as find_bad_checkpoints

# Packs that do not verify, with the pixels that they refer to; only an ingest of their tables can
# mend them.
from .damage import find_bad_packs as find_bad_packs

# What writers that died left half-written; nothing where somebody may be writing there now.
from .damage import find_leftovers as find_leftovers

# Examine a home and the installation; with `fix`, mend what can be mended.
from .doctor import doctor as doctor

# The hosts on which the runs of a home had their last process.
from .doctor import last_hosts as last_hosts

# What the parts of one examination share.
from .examination import Examination as Examination

# A line for people: what there is to compute with; waits for torch where there may be an
# accelerator.
from .installation import describe_devices as describe_devices

# Lines for people: versions, servers, space; nothing in them is judged.
from .installation import describe_installation as describe_installation

# Runs that are over and of whose journals MLflow does not have all, the oldest first: a parent
# before its own.
from .lost_runs import find_waiting as find_waiting

# Seconds of an age such as 30d, 12h, 90m or 2w.
from .prune import parse_age as parse_age

# Remove runs by the rule and all that only they needed.
from .prune import prune as prune

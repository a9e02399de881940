# Artifacts of runs that differ from what was sent; of runs of which nothing waits to be sent.
from .artifacts import find_altered_artifacts as find_altered_artifacts

# Files of registered versions that are not those that were registered.
from .artifacts import find_altered_versions as find_altered_versions

# Files of runs that do not have the sha256 that the record has of them.
from .runs import find_altered_files as find_altered_files

# Pointers to checkpoints that are not as they were written.
from .runs import find_bad_pointers as find_bad_pointers

# Splits of packs that do not verify.
from .runs import find_bad_splits as find_bad_splits

# What makes a pack or a split anew: the ingest of a run that refers to it; None where no run does.
from .runs import mend_by_ingest as mend_by_ingest

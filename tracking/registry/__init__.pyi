# Put a version of a registered model together in the run's folder, and journal it; needs no server.
from .staging import stage_model as stage_model

# The folder of a `model` line, which goes once it is sent: named by the weights' digest, in the
# run's own folder.
from .staging import staged_folder as staged_folder

# A run or model version that was named, as files.
from .versions import Source as Source

# A weights file as a source, by the recipe and the schema beside it or above; None where there are
# none.
from .versions import find_source_beside as find_source_beside

# Make the version of a `model` line. The first becomes its model's champion, a later one its
# challenger.
from .versions import register_staged as register_staged

# Find what a SOURCE names; files that are not here are fetched from MLflow's artifacts into the
# home's cache.
from .versions import resolve_source as resolve_source

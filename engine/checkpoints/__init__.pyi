# A generation is not as it was written; says what is wrong.
from .generations import DamagedError as DamagedError

# The name of a checkpoint's manifest.
from .generations import MANIFEST_FILE as MANIFEST_FILE

# The name of a checkpoint's state.
from .generations import STATE_FILE as STATE_FILE

# The text of a manifest, with a digest over all its values.
from .generations import dump_manifest as dump_manifest

# The generations that stand in a folder of checkpoints, oldest first.
from .generations import list_generations as list_generations

# The generations that were set aside, in the order of their names.
from .generations import list_set_aside as list_set_aside

# Step and number of a generation, the order in which generations were made; None where it is no
# name of one.
from .generations import parse_name as parse_name

# Read a generation's manifest.
from .generations import read_manifest as read_manifest

# The generation that `last` or `best` names; empty where there is no such file, or it does not
# verify.
from .generations import read_pointer as read_pointer

# Read a generation's state once, and verify these bytes.
from .generations import read_state as read_state

# The same, but a pointer that does not verify is an error.
from .generations import verify_pointer as verify_pointer

# A generation that verified.
from .store import Checkpoint as Checkpoint

# The checkpoints of one run, which has one writer.
from .store import CheckpointStore as CheckpointStore

# The cores that this process may compute on.
from .cpu_load import usable_cores as usable_cores

# Half precision with scaled losses.
from .devices import FP16 as FP16

# Single precision.
from .devices import FP32 as FP32

# Double precision, which tests compare with.
from .devices import FP64 as FP64

# A number format to train in.
from .devices import Precision as Precision

# All that decides the bits of a training run beside its recipe, data and state.
from .devices import fingerprint as fingerprint

# Find the device that a recipe names.
from .devices import pick_device as pick_device

# Find the number format that a recipe names.
from .devices import pick_precision as pick_precision

# Gives a model's layers low-precision weights, for a forward and a backward pass under autocast.
from .lowered import Lowered as Lowered

# Keep freed memory in this process, which then holds its peak until it ends. Linux with glibc; else
# nothing.
from .memory import keep_freed_memory as keep_freed_memory

# What a user may have said of waiting and of places; then nothing is changed.
from .openmp import WAITING_SETTINGS as WAITING_SETTINGS

# The states of Python's, NumPy's and torch's generators, as plain values that a safe load accepts.
from .randomness import random_states as random_states

# Set the generators as `random_states` found them; those of CUDA devices as far as these are here.
from .randomness import set_random_states as set_random_states

# Shares the cores while it is entered.
from .sharing import CoreSharing as CoreSharing

# How many threads, and why.
from .thread_count import ThreadCount as ThreadCount

# Where others keep so many cores busy, a step that lasts longer than a time slice of the system is
# never alone.
from .thread_count import USER_SETTINGS as USER_SETTINGS

# The remembered number of threads, or the one with which `step` is fastest now.
from .thread_count import find_thread_count as find_thread_count

# What the environment says, or who called `torch.set_num_threads` before; None where nobody did.
from .thread_count import threads_by_user as threads_by_user

# A turn on all cores for the life of the block, for what is to be timed; without one where there is
# no folder.
from .turns import turn_alone as turn_alone

# Some rows of a pack, gathered a batch at a time.
from .dataset import PackDataset as PackDataset

# Bytes that this process may still take: what the machine has, or what a container allows (control
# groups, v2).
from .dataset import free_memory as free_memory

# In which order the rows of an epoch come, and from where on.
from .loader import Order as Order

# Refuse to balance what has no classes.
from .loader import check_sampling as check_sampling

# Whether torch says that a process which gathers batches has died; it says so by the message alone.
from .loader import is_lost_worker as is_lost_worker

# One epoch's batches, from `start_batch` on; the same ones for any number of workers.
from .loader import make_loader as make_loader

# Batches in one pass: the rest is a batch too, unless it is one row that can join the batch before
# it.
from .loader import num_batches as num_batches

# Gather and pin the next batches in a thread while the caller works: for accelerators, whose host
# would else wait.
from .loader import prefetch as prefetch

# The batches that were gathered as one: views of it.
from .loader import split_batches as split_batches

# Moves raw batches to the device, augments them and standardises them.
from .transform import BatchTransform as BatchTransform

# Raw inputs -> standardised inputs, in float32, as a module that torch.export takes: to serve a
# model with.
from .transform import Standardise as Standardise

# The way back for a model's outputs, all targets' side by side, as a module that torch.export
# takes.
from .transform import Unstandardise as Unstandardise

# What a file of weights holds.
from .file import WeightsFile as WeightsFile

# The same file with the `state` of one of its models.
from .file import choose_model as choose_model

# Read a file with all its models.
from .file import open_weights_file as open_weights_file

# Read a file and choose one of its models.
from .file import read_weights_file as read_weights_file

# Refuse a pattern that fits none of the keys.
from .keys import check_patterns as check_patterns

# Refuse a pattern that fits no key of the source.
from .keys import check_rename as check_rename

# Whether one of the patterns fits: `*` is any text, dots included, `?` any one letter, `[ab]` one
# of these.
from .keys import fits as fits

# The state with `module.` taken away or added, whichever fits more of a model's keys; as it is
# where none does.
from .module_prefix import match_module_prefix as match_module_prefix

# What all keys begin with, up to and with a dot, such as `module.`, `model.` or `module.net.`; else
# empty.
from .module_prefix import prefix_of as prefix_of

# Keys without the `module.` that DataParallel, DistributedDataParallel or torch.compile put before
# all of them.
from .module_prefix import strip_module_prefix as strip_module_prefix

# Write tensors by name, atomically, in their order, those of wide elements first.
from .safetensors import write_safetensors as write_safetensors

# What `save_weights` writes.
from .state import dump_weights as dump_weights

# Load a state_dict whose keys and shapes are the model's own, but for the `module.` of a wrapper.
from .state import load_into as load_into

# The same without the `module.` of a wrapper before the keys.
from .state import load_unwrapped as load_unwrapped

# Read the one model of any weights file onto the CPU, see `file.py`.
from .state import load_weights as load_weights

# Write several models into one file, atomically; `read_weights_file(path, name)` reads one back.
from .state import save_pack as save_pack

# Write a state_dict (of a model or an optimizer) with `torch.save`, atomically.
from .state import save_weights as save_weights

# Hex digest over the tensors' names, dtypes, shapes and bytes, in the order of their names.
from .state import sha256_of as sha256_of

# The model's parameters and buffers as contiguous tensors on the CPU, detached copies.
from .state import state_of as state_of

# One line of the report.
from .transfer import Entry as Entry

# The report for people: a summary, then what was not simply loaded.
from .transfer import describe as describe

# Put a source's tensors in the place of a new model's, as far as they fit.
from .transfer import plan_transfer as plan_transfer

# The report as CSV, a line a key, shapes as 8x3x5x5.
from .transfer import tabulate as tabulate

# Refuse a state_dict with values that are not finite, where it is not known which model it is of.
from .values import check_finite as check_finite

# Refuse a state_dict whose values cannot be those of a model.
from .values import check_state as check_state

# Keys of the parameters that have a position for each label of a target.
from .label_axes import find_heads as find_heads

# What stands at each position of the parameters' dimensions, where it is not the same in a model
# and its source.
from .label_axes import find_label_axes as find_label_axes

# Classes, tags or columns of the targets that a source's targets do not have, in order.
from .label_axes import new_labels as new_labels

# Those that rank entities.
from .registry import TRIPLE_MODELS as TRIPLE_MODELS

# Build a model for a table, with weights from torch's global random state, and try it on two rows
# of zeros.
from .registry import build_model as build_model

# Refuse, for a loss of log-probabilities, a model that is known to give unnormalised scores; needs
# no table.
from .registry import check_log_softmax as check_log_softmax

# Refuse a model that does not exist or arguments that do not fit its signature; needs no table.
from .registry import check_model as check_model

# List the registered models, then the two forms that name others.
from .registry import describe_models as describe_models

# A model's outputs for two rows of zeros, on the CPU; random state and modes are as before
# afterwards.
from .registry import probe as probe

# The file of a module, found without importing it, or any package above it; empty where there is
# none.
from .user_classes import locate_module as locate_module

# The module that a model's name would have imported; empty for a model that is registered here.
from .user_classes import module_of as module_of

# Keys of the parameters that have a position for each label of a target.
from .label_axes import find_heads as find_heads

# Find the labels of dimensions that differ between a model and its source.
from .label_axes import find_label_axes as find_label_axes

# The classes, tags or columns that a source's targets lack, in order.
from .label_axes import new_labels as new_labels

# Those that rank entities.
from .registry import TRIPLE_MODELS as TRIPLE_MODELS

# Build a model for a table and try it on two rows of zeros.
from .registry import build_model as build_model

# Refuse the loss nll for a model that gives unnormalised scores.
from .registry import check_log_softmax as check_log_softmax

# Refuse a model that does not exist, or arguments it does not take.
from .registry import check_model as check_model

# List the registered models, then the two forms that name others.
from .registry import describe_models as describe_models

# A model's outputs for two rows of zeros, on the CPU.
from .registry import probe as probe

# Find the file of a module without importing it or a package above it.
from .user_classes import locate_module as locate_module

# The module that a model's name makes torchrelay import.
from .user_classes import module_of as module_of

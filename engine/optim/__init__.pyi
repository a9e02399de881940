# A copy of a model that follows it slowly.
from .averaging import Average as Average

# Layers of torch that may keep running statistics.
from .freezing import NORMS as NORMS

# The frozen part of a model.
from .freezing import Frozen as Frozen

# What the learning rate of each parameter that a pattern fits is multiplied by; the first that fits
# counts.
from .freezing import learning_rate_factors as learning_rate_factors

# Steps an optimizer: by its own `step` at first and wherever something is unusual, else by its
# kernel alone.
from .fused_step import Stepper as Stepper

# Build the optimizer over a model's parameters, with torch's own defaults where the recipe is
# silent.
from .optimizers import build_optimizer as build_optimizer

# Refuse an optimizer that does not exist, or arguments that it does not take or torch refuses.
from .optimizers import check_optimizer as check_optimizer

# Whether `step` wants a function that computes the loss anew (LBFGS).
from .optimizers import needs_closure as needs_closure

# The schedule that follows a metric.
from .schedules import PLATEAU as PLATEAU

# Let plateau see the monitored metric of an epoch; the others look at steps alone.
from .schedules import after_epoch as after_epoch

# Set the learning rate of the next optimizer step; plateau leaves it.
from .schedules import after_step as after_step

# Build a scheduler; `after_step` and `after_epoch` move it along.
from .schedules import build_schedule as build_schedule

# Refuse a schedule that does not exist or arguments that it does not take.
from .schedules import check_schedule as check_schedule

# Let a schedule go on, also one that the run did not begin with; restore the optimizer first.
from .schedules import restore_schedule as restore_schedule

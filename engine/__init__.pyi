# Outputs of a pass without training, on the CPU, in the order of the batches.
from .evaluation import Evaluation as Evaluation

# The metrics of an evaluation, by name.
from .evaluation import Measure as Measure

# A model gave NaN or infinity for rows that were to be measured: no metric is computed from them.
from .evaluation import OutputsNotFiniteError as OutputsNotFiniteError

# A model with all that it takes to score batches.
from .evaluation import Scorer as Scorer

# What an evaluation keeps of a batch's outputs.
from .evaluation import Summarise as Summarise

# What the forward pass runs in: the precision's autocast, or nothing.
from .evaluation import autocast as autocast

# Run the model over batches without training; its modes and all random states are as before
# afterwards.
from .evaluation import evaluate as evaluate

# Whether all of a row's outputs are finite: bool, shape (N,). A sum tells it, but where it
# overflows itself.
from .evaluation import finite_rows as finite_rows

# The loss or the gradients are NaN or infinite; no weight was changed by it.
from .gradients import NotFiniteError as NotFiniteError

# Change the weights by the gradient of the mean, or the sum, of the loss over all rows of a group
# of batches.
from .gradients import take_step as take_step

# All that the training loop works with.
from .job import Job as Job

# Where reports go. At a step: `train/loss` and `lr`. At an epoch's end: `train/epoch_loss`,
# `valid/…` and
from .job import OnStep as OnStep

# Where a run is; part of every checkpoint.
from .job import Progress as Progress

# The `state_dict` of `Job.kept_model` in a checkpoint: averaged where the run averages.
from .job import kept_weights as kept_weights

# Put a job into the state that `state_of_run` gave, and say where it stands.
from .job import restore_run as restore_run

# Everything that a resumed run needs, as tensors and plain values.
from .job import state_of_run as state_of_run

# Refuse a monitor that the validation rows leave undefined.
from .loop import check_monitor as check_monitor

# Train from where `progress` stands to the last epoch; `progress` is moved along in place.
from .loop import train as train

# A loss of outputs and target, one value a row.
from .losses import Loss as Loss

# Whether the losses of rows are averaged or added up.
from .losses import Reduction as Reduction

# Binary cross-entropy of each tag, in nats, averaged over the tags.
from .losses import bce as bce

# The loss of that name, the mean over the targets, of mse_sum their sum.
from .losses import build_loss as build_loss

# The loss that is minimised: `build_loss`, smoothed and weighted where the recipe asks for it.
from .losses import build_training_loss as build_training_loss

# Refuse nll for a model whose outputs are no log-probabilities: the loss would be no likelihood, in
# silence.
from .losses import check_log_probabilities as check_log_probabilities

# Refuse a loss that does not exist or does not fit the target.
from .losses import check_loss as check_loss

# What is reported of rows whose losses add up to `loss_sum`.
from .losses import reduce_sum as reduce_sum

# What becomes of the rows' losses: their sum for mse_sum, their mean for the others and for auto.
from .losses import reduction_of as reduction_of

# While entered, the first of the two signals sets `requested`.
from .signals import StopFlag as StopFlag

# Leaves a pass that is given up for a signal; whoever began the pass catches it.
from .signals import StopRequested as StopRequested

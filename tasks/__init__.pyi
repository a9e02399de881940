# Write down how a run ended; what cannot be written, as on a full disk, does not hide the error
# itself.
from .ending import note_end as note_end

# Close a run that is done, and give its record as JSON, with its children's where it has some.
from .ending import finish_run as finish_run

# Tell the truth about how a run ends: an exception is FAILED, a signal or a cancel KILLED.
from .ending import keep_status as keep_status

# Score the test rows with the run's best weights.
from .evaluate import evaluate_model as evaluate_model

# Run the best weights of a run over a view's test rows; also gives the precision's name.
from .evaluate import score_rows as score_rows

# A pack that is ready, with its splits, and what it cost.
from .ingest import Ingested as Ingested

# Judge the rows, decode what is new, write the pack, fit the schema for each split.
from .ingest import ingest_table as ingest_table

# The record of an ingest as JSON; of several splits the first, and each below `splits`.
from .ingest import report_data as report_data

# Predict every row of the run's table that can be read, and write the table with the predictions.
from .predict import predict_rows as predict_rows

# Put a version of the model that the recipe's `tracking.register` names together; nothing where it
# names none.
from .register import register_model as register_model

# A run's recipe with overrides that it can take on its way.
from .reopen import change_recipe as change_recipe

# Look for the run of an earlier attempt: Prefect keeps a flow run's id when it retries it.
from .reopen import find_attempt as find_attempt

# The folder of a training run, by our id, the beginning of it, or MLflow's.
from .reopen import locate_run as locate_run

# Let a run go on: same folder, same MLflow run, its own recipe with the overrides. Hold the run
# first.
from .reopen import reopen_run as reopen_run

# Be the one writer of a run; what sends its journal to MLflow once it is open ends with the block.
from .runs import hold_run as hold_run

# Where the folder of a new run will be.
from .runs import name_run as name_run

# Fill the folder of a run, with a journal that opens the MLflow run.
from .runs import open_run as open_run

# Overrides of a recipe, and over them the settings of its table's dialect by their last names.
from .runs import over_data as over_data

# The recipe that file, fields, overrides and a source make.
from .runs import recipe_for_finetune as recipe_for_finetune

# The recipe of a finetuning, checked; where neither file nor fields are given, the source's own.
from .runs import resolve_finetune as resolve_finetune

# The recipe of file, fields and overrides, checked before anything expensive starts.
from .runs import resolve_recipe as resolve_recipe

# Open a new run: its folder with recipe and schema, its journal with all that is known before
# training.
from .runs import start_run as start_run

# A table that a model is used on.
from .scoring import OtherTable as OtherTable

# Where the folder of a new evaluation or prediction will be; it may import what the user lets the
# source import.
from .scoring import name_scoring as name_scoring

# Open a run that scores all rows of a table with the best weights of a source. Hold the run first.
from .scoring import start_evaluation as start_evaluation

# Open a run that predicts all rows of a table with the best weights of a source. Hold the run
# first.
from .scoring import start_prediction as start_prediction

# Whether a run is the parent of one for each of several split columns.
from .splits import is_over_splits as is_over_splits

# A parent's columns without a run, or with one that has not come to the end that the parent's
# recipe asks for.
from .splits import list_unfinished as list_unfinished

# Note why a column's run failed, instead of raising it; a signal or a cancel is no failure and goes
# on up.
from .splits import note_failure as note_failure

# A column's run while it is worked on: new, or taken up where it stopped; held, and closed with its
# true status.
from .splits import open_split as open_split

# Mean and deviation over a parent's runs, as its metrics, `splits.csv` and a figure, and all into
# MLflow.
from .splits import summarise_splits as summarise_splits

# Train a run from its last checkpoint, or from the start, to its last epoch or until there is
# reason to stop.
from .train import train_model as train_model

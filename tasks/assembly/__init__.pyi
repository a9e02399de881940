# What a message counts rows in.
from .job import TABLE_ROWS as TABLE_ROWS

# Build model, optimizer, schedule, loss and batches of a run, from the recipe's seed.
from .job import build_job as build_job

# Build the model with what it takes to score batches; its weights are drawn from the recipe's seed.
from .job import build_scorer as build_scorer

# The validation metric that the recipe names, or the one that `auto` stands for.
from .job import choose_monitor as choose_monitor

# What a run that an older version began calls metrics, by today's names; nothing where it has
# those.
from .job import names_of_run as names_of_run

# Raise errors of rows in the block with their rows counted as in the table.
from .job import naming_table_rows as naming_table_rows

# Batches of a split's rows in the table's order, ready for the model.
from .job import rows_in_order as rows_in_order

# Pixels of the file per pixel of the stored image, x and y of each of T targets; None where they
# are no points.
from .job import rows_scale as rows_scale

# Open the rows of a run, once: its split of its pack.
from .job import view_of as view_of

# Check the models, optimizers, losses and devices that a recipe names, and their arguments.
from .preflight import check_names as check_names

# Check names and arguments, then the table's columns; fetch the model's pretrained weights.
from .preflight import check_recipe as check_recipe

# Refuse settings that need validation rows where there are none.
from .preflight import check_validation as check_validation

# Whether an input is an image.
from .preflight import has_images as has_images

# What the source of an evaluation was trained and tested on, where it is in this home; else a
# warning.
from .ranking import facts_of_source as facts_of_source

# What an evaluation keeps of the scores of a view's rows: all of them, unless entities are ranked.
from .ranking import summary_of as summary_of

# What a checkpoint says of its run beside the state.
from .resuming import checkpoint_facts as checkpoint_facts

# Put a job into the state of a checkpoint, and say where it goes on.
from .resuming import restore_job as restore_job

# Why a run that goes on is not promised the bits of one that was never stopped; empty where it is.
from .resuming import why_not_identical as why_not_identical

# A model that is ready to use.
from .saved_models import LoadedModel as LoadedModel

# What a source's file of weights holds, ready for JSON.
from .saved_models import describe_source as describe_source

# Write one model's state_dict, for inference or for others, as torch.save or safetensors by the
# file's name.
from .saved_models import export_source as export_source

# Build the model that a source's recipe and schema say, and load its weights into it.
from .saved_models import load_model as load_model

# Write the models of several sources into one file, each with its optimizer's state where it has
# one.
from .saved_models import pack_sources as pack_sources

# A model that takes pixels or numbers as they stand in the table, and gives numbers as they stand
# there.
from .servable import Servable as Servable

# Find what `warm_start.source` names.
from .sources import find_source as find_source

# What the schema of a recipe's table takes over from the source of its warm start; None where there
# is none.
from .sources import inherited_schema_of as inherited_schema_of

# The recipe with a source that will mean the same weights tomorrow: a version for an alias, a whole
# run id.
from .sources import pin_source as pin_source

# The recipe that a source was trained by.
from .sources import recipe_of as recipe_of

# The number of threads of a new run: what recipe or user say, else what is fastest.
from .threads import choose_threads as choose_threads

# Compute with the threads of a run for the life of the block.
from .threads import run_threads as run_threads

# The same job, which follows the load of the machine before each batch.
from .threads import share_batches as share_batches

# Compute with so many threads, and share the cores with other work, for the life of the block.
from .threads import share_cores as share_cores

# Refuse to measure rows whose scores, one a class, do not fit into memory together.
from .trial import check_memory as check_memory

# Before the table is read: try a model whose norms depend on nothing that only the table says.
from .trial import try_early as try_early

# Before a run is opened: try the model on the split with the fewest training rows.
from .trial import try_ingested as try_ingested

# Run a recipe's model in training mode over the smallest batch that its rows make, of zeros.
from .trial import try_training as try_training

# Refuse code of a source that the user has let in neither now nor when its run was trained here.
from .trust import admit_code as admit_code

# Refuse a source whose recipe names code that nobody has let in; imports nothing of it.
from .trust import check_source_code as check_source_code

# Drop what was let in for a run that is removed.
from .trust import forget as forget

# The modules that were let in by `--trust-code` for a run.
from .trust import trusted_by_word as trusted_by_word

# Keep that a run of this home may import what its recipe names; nothing where that is no own code.
from .trust import vouch as vouch

# Weights that a run begins with.
from .warm_start import Start as Start

# Write weights and report into a run's folder, and say what the report says.
from .warm_start import keep_start as keep_start

# What `keep_start` kept; None where the run begins at random.
from .warm_start import load_start as load_start

# Work out what a recipe's model begins with; None where it begins at random.
from .warm_start import plan_start as plan_start

# Warn of settings of a warm start that have no effect, or another one than was meant.
from .warm_start import warn_unused_settings as warn_unused_settings

# Say what came from where.
from .warm_start import say_start as say_start

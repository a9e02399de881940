# Refuse arguments that a function lacks, does not take or cannot use.
from .arguments import check_arguments as check_arguments

# Refuse values that only the taker of the arguments can judge.
from .arguments import check_values as check_values

# Whether a changed setting changes the metrics that a step gives.
from .changes import alters_curves as alters_curves

# The differences between two flattened recipes.
from .changes import changes_between as changes_between

# Refuse changes that only a new run can have.
from .changes import refuse_fixed as refuse_fixed

# The values of all settings that a run may change, as overrides.
from .changes import take_changeable as take_changeable

# Write the recipe without secrets, as YAML for journals.
from .file import dump_hidden as dump_hidden

# Write the whole recipe, with its defaults, as YAML.
from .file import dump_recipe as dump_recipe

# Write one value as YAML on one line, as it can stand behind a key.
from .file import dump_value as dump_value

# The recipe as dotted keys and strings, as MLflow's params want it.
from .file import flatten as flatten

# Read a recipe from its file, the fields that were set, and overrides.
from .file import load_recipe as load_recipe

# Read `--set` items.
from .file import parse_overrides as parse_overrides

# Read the recipe that `dump_recipe` wrote.
from .file import parse_recipe as parse_recipe

# Read `--rename` items, such as `backbone.*=*`, for `warm_start.rename`.
from .file import parse_renames as parse_renames

# The table and how its columns become tensors.
from .model import Data as Data

# How a text table is written.
from .model import Dialect as Dialect

# One or more columns read as one tensor.
from .model import Feature as Feature

# Of an image as it is stored, height times width: in bytes already a part of any machine's memory.
from .model import MOST_PIXELS as MOST_PIXELS

# The name of a variant and its arguments.
from .model import Named as Named

# Everything about a run.
from .model import Recipe as Recipe

# Which spellings of a class, a category or a tag count as one.
from .model import Spelling as Spelling

# Which rows train, which validate and which test.
from .model import Split as Split

# What MLflow gets.
from .model import Tracking as Tracking

# The training procedure.
from .model import Train as Train

# What tells the name of a weights file from a run id, which may have dots too.
from .model import WEIGHTS_SUFFIXES as WEIGHTS_SUFFIXES

# Which weights a run begins with, and what becomes of them.
from .model import WarmStart as WarmStart

# The ending of a message that names the nearest legal words.
from .model import nearest as nearest

# A name as a message shows it.
from .model import quote_name as quote_name

# JSON Schema of the YAML file, with the reader's short forms.
from .model import recipe_schema as recipe_schema

# Parse YAML with the scalars of version 1.2.
from .yaml import parse_yaml as parse_yaml

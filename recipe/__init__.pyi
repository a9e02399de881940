# Refuse arguments that a function does not take, lacks, or whose annotations do not hold.
from .arguments import check_arguments as check_arguments

# Refuse values that only the taker of the arguments can judge.
from .arguments import check_values as check_values

# Whether the points that a step gives are others once a setting has changed.
from .changes import alters_curves as alters_curves

# What two flattened recipes differ in.
from .changes import changes_between as changes_between

# Refuse changes that only a new run can have.
from .changes import refuse_fixed as refuse_fixed

# The values of all that a run may change, as overrides of another recipe.
from .changes import take_changeable as take_changeable

# The same without secrets, as YAML that `parse_recipe` reads, for journals.
from .file import dump_hidden as dump_hidden

# The whole recipe, defaults included, as YAML that `load_recipe` reads.
from .file import dump_recipe as dump_recipe

# One value as YAML on one line, as it can stand behind a key; `load_recipe` reads the same value.
from .file import dump_value as dump_value

# The recipe as dotted keys and strings, for example {"train.epochs": "10"}, as MLflow's params want
# it.
from .file import flatten as flatten

# Read a recipe: the file first, then the fields that were set, then the overrides.
from .file import load_recipe as load_recipe

# Read `--set` items. Several values of an item, as in `train.seed=0,1,2`, give one dict for each
# combination.
from .file import parse_overrides as parse_overrides

# The recipe that `dump_recipe` wrote.
from .file import parse_recipe as parse_recipe

# Read `--rename` items, such as `backbone.*=*`, as `warm_start.rename` has them.
from .file import parse_renames as parse_renames

# The table and how its columns become tensors.
from .model import Data as Data

# How a text table is written; of Parquet the numbers in columns of text.
from .model import Dialect as Dialect

# One or more columns read as one tensor.
from .model import Feature as Feature

# Of an image as it is stored, height times width: in bytes already a part of any machine's memory.
from .model import MOST_PIXELS as MOST_PIXELS

# Something that has variants: which one, and its arguments.
from .model import Named as Named

# Everything about a run.
from .model import Recipe as Recipe

# Which spellings of a class, a category or a tag are one; Unicode's composed form always is.
from .model import Spelling as Spelling

# Which rows train, which validate and which test.
from .model import Split as Split

# What MLflow gets.
from .model import Tracking as Tracking

# The training procedure.
from .model import Train as Train

# What tells the name of a weights file from a run id, which may have dots too.
from .model import WEIGHTS_SUFFIXES as WEIGHTS_SUFFIXES

# Weights to begin with, and what becomes of them.
from .model import WarmStart as WarmStart

# The ending of an error message that names the nearest legal words, or the first of them where none
# is near.
from .model import nearest as nearest

# A name as a message shows it: in quotes where spaces or commas would hide where it begins and
# ends.
from .model import quote_name as quote_name

# JSON Schema of the YAML file, with the short forms that the reader accepts.
from .model import recipe_schema as recipe_schema

# Parse YAML with the scalars of version 1.2.
from .yaml import parse_yaml as parse_yaml

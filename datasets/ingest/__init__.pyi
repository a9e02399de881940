# The cells with classes, categories and tags in the spelling of a model that knows them.
from .classes import match_classes as match_classes

# What a model that is to be trained takes over from another; see `inherit`.
from .inherit import InheritedSchema as InheritedSchema

# Refuse a recipe whose inputs are not a source's, as far as it says so itself, before a file is
# read.
from .inherit import check_inputs as check_inputs

# Merge what was fitted on a table with what a model that is to begin from a source's weights knows
# already.
from .inherit import inherit as inherit

# The number of a column that is written like -999, again and again, and lies outside of the others'
# range.
from .outliers import find_sentinel as find_sentinel

# The wild numbers of one column; None where it has none.
from .outliers import find_wild as find_wild

# What `prepare_data` made or found.
from .prepare import Prepared as Prepared

# Make the pack of a recipe's table, and its split and schema; or find them.
from .prepare import prepare_data as prepare_data

# Make the pack of a table whose rows all test a model that exists; nothing is fitted.
from .prepare import prepare_for_schema as prepare_for_schema

# Make the pack of a table whose rows a model that exists is to predict: it needs no column of the
# target.
from .prepare import prepare_inputs as prepare_inputs

# What `describe_strange` counted as sentences.
from .unfamiliar import say_strange as say_strange

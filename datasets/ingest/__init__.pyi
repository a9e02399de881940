# The cells with classes, categories and tags in the spelling of a model that knows them.
from .classes import match_classes as match_classes

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

# What a model that is to be trained takes over from another; see `inherit.inherit`.
from .prepare import Heritage as Heritage

# What `prepare_data` made or found.
from .prepare import Prepared as Prepared

# A pack seen through one split.
from .prepare import View as View

# Open what `prepare_data` made.
from .prepare import open_view as open_view

# Make the pack of a recipe's table, and its split and schema; or find them.
from .prepare import prepare_data as prepare_data

# Make the pack of a table whose rows all test a model that exists; nothing is fitted.
from .prepare import prepare_for_schema as prepare_for_schema

# Make the pack of a table whose rows a model that exists is to predict: it needs no column of the
# target.
from .prepare import prepare_inputs as prepare_inputs

# Text of `data.key` for each row of the pack; None where no key is declared.
from .prepare import read_keys as read_keys

# What `describe_strange` counted as sentences.
from .unfamiliar import say_strange as say_strange

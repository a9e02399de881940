# What a table is named by here, for messages.
from .dialect import NAMED_BY as NAMED_BY

# Open a table by what its bytes and cells say.
from .dialect import open_undescribed as open_undescribed

# What a column seems to be.
from .table import Column as Column

# A column of numbers may lack this fraction of its cells and still be an input, with the missing
# ones filled.
from .table import MOST_FILLED as MOST_FILLED

# A category has this many rows a value on average, and not more values than these.
from .table import MOST_INPUT_VALUES as MOST_INPUT_VALUES

# A category has this many rows a value on average, and not more values than these.
from .table import MOST_INTEGER_CLASSES as MOST_INTEGER_CLASSES

# Cells that say something else make bad rows: no more than this fraction.
from .table import MOST_MISSING as MOST_MISSING

# What a table seems to hold.
from .table import Survey as Survey

# Kana, Chinese characters, Thai, Lao, Myanmar, Khmer.
from .table import TARGET_NAMES as TARGET_NAMES

# The shortest pattern `prefix*` that fits these columns of a table and no other; empty where there
# is none.
from .table import common_pattern as common_pattern

# Look at all cells of a table, at whether its files are there, and into some of them.
from .table import survey_table as survey_table

# The columns that are the parts of triples.
from .triples import TripleColumns as TripleColumns

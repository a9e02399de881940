# So many cells are looked at at once: some columns of a table with few rows, one of a table with
# many.
from .columns import CELLS_AT_ONCE as CELLS_AT_ONCE

# Cells as ids of their distinct values.
from .columns import Categories as Categories

# Cells of several tags as ids of the distinct tags.
from .columns import Labels as Labels

# The text cells of columns one below the other; of a wide table at once, as pandas is slow column
# by column.
from .columns import flatten_columns as flatten_columns

# Which text cells are blank: bool, shape (rows,).
from .columns import is_empty as is_empty

# Which text cells of a column of numbers are blank or say that they are missing: bool, shape
# (rows,).
from .columns import is_missing_number as is_missing_number

# Give each distinct value an id; a row with an empty cell is rejected.
from .columns import read_categories as read_categories

# Take cells apart into tags; white space around a tag does not count, and an empty cell has none.
from .columns import read_labels as read_labels

# Parse columns of numbers; a row with a cell that is none, or not finite, is rejected.
from .columns import read_numbers as read_numbers

# A column of texts as it is; a row with an empty or blank cell is rejected.
from .columns import read_texts as read_texts

# The same cells under other names of their values; values of one name become one.
from .columns import respell as respell

# By value where all are integers as Python writes them ("2" before "10"; "007" is none), else as
# text.
from .columns import sort_classes as sort_classes

# How the numbers of a column are written.
from .numerals import Finding as Finding

# What a cell says that has no number, in any case; of a label it may be the name.
from .numerals import MISSING_WORDS as MISSING_WORDS

# How the numbers of a table are written; the fields are those of the recipe's `data`.
from .numerals import Notation as Notation

# Numbers as Python writes them.
from .numerals import PLAIN as PLAIN

# The number of each text's value, int32, and the distinct values in the order of their first place.
from .numerals import distinct_cells as distinct_cells

# How the numbers of a column are written; None where most are none, or two ways contradict each
# other.
from .numerals import find_notation as find_notation

# The cells of a column that count in another unit than most, by their row, with what to say of
# them.
from .numerals import find_other_units as find_other_units

# What is unusual about numbers, for example `with a decimal comma`.
from .numerals import name_notation as name_notation

# How a recipe says that numbers are written.
from .numerals import notation_of as notation_of

# One text as a number; NaN where it is none.
from .numerals import parse_cell as parse_cell

# Texts as float64, shape (rows,), correctly rounded; NaN where one is no number.
from .numerals import parse_numbers as parse_numbers

# The text in Unicode's composed form, in which é is one letter however it was typed.
from .spelling import compose as compose

# Text cells in the composed form.
from .spelling import compose_cells as compose_cells

# The texts that differ by capitals, white space, or how a number is written, and no more; None
# where none do.
from .spelling import find_look_alikes as find_look_alikes

# Each text in the spelling of a model that knows it; others stay as they are.
from .spelling import match_known as match_known

# The one spelling of all texts that a rule takes for the same.
from .spelling import spell as spell

# The text without white space of any kind at its ends, and without what is not seen; inner white
# space is one
from .spelling import strip_unseen as strip_unseen

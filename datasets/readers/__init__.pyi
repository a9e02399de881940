# Read a table whose first line names its columns; blank lines do not count, nor do empty rows at
# the end.
from .csv import read_csv as read_csv

# What of a dialect a look at the file would change, as the recipe writes it; empty where nothing.
from .dialects import advise as advise

# How a table is written, its numbers aside.
from .dialects import find_dialect as find_dialect

# The delimiter that the first line of a file from a spreadsheet says, `sep=;`; empty where it says
# none.
from .dialects import find_sep_line as find_sep_line

# Whether a header is a row of data by mistake: its numbers stand where all numbers stand, or it
# repeats cells.
from .dialects import looks_like_data as looks_like_data

# What a file's encoding seems to be.
from .encoding import Guess as Guess

# Find the encoding of a file; a few broken bytes do not make another of UTF-8.
from .encoding import guess_encoding as guess_encoding

# Read cells of any length, as pandas does, for the life of the block; the limit is one for the
# whole process.
from .long_cells import long_cells as long_cells

# All columns as text; those that hold lists and the like are left out where nobody reads them.
from .parquet import read_parquet as read_parquet

# Cells of Parquet as text, as one of this table's features would find them in a CSV file; null is
# "".
from .parquet import texts_of as texts_of

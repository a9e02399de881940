# Write `folder/NAME/`, unless it is there.
from .fetch import fetch as fetch

# Copy data sets of a local folder: each sub-folder of `source` with a CSV, and its images.zip if it
# has one.
from .fetch import place as place

# The verdicts on rows of a split that are bad.
from .layout import QUARANTINE as QUARANTINE

# The schema of a split.
from .layout import SCHEMA_FILE as SCHEMA_FILE

# All rows of a table are bad.
from .verdicts import NoRowsError as NoRowsError

# One verdict a row of the table; the first reason stays.
from .verdicts import Verdicts as Verdicts

# The first line of what a library or the system says of an error, without what differs from run to
# run.
from .verdicts import quote as quote

# Why rows are bad, each a sentence, by their position in the table (from 0).
from .verdicts import read_verdicts as read_verdicts

# How many rows are bad for which kinds of reasons, and what to do about them.
from .verdicts import say_verdicts as say_verdicts

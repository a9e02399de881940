# Refuse names that the table has already.
from .output import check_new_columns as check_new_columns

# Where a table is to be written, absolute.
from .output import locate_output as locate_output

# Write all rows of a table, in their order, with all its columns and then ours; an existing file is
# replaced.
from .output import write_output as write_output

# A table as it stands in the file.
from .table import Table as Table

# The end of a message about columns that are not there: settings that read the table's header
# better, if any.
from .table import advise_dialect as advise_dialect

# Refuse a target that has nothing to tell apart.
from .table import check_num_classes as check_num_classes

# What can be said about the data before anything expensive starts: reads the table, opens no other
# file.
from .table import check_table as check_table

# Refuse a target of labels without any.
from .table import check_tags as check_tags

# All features by name, inputs in the recipe's order and then the targets.
from .table import features_of as features_of

# The folder that relative file paths in the table start at, absolute.
from .table import locate_files as locate_files

# The table's path, absolute; for `named_by` see `open_table`.
from .table import locate_table as locate_table

# Read a local CSV, TSV or Parquet file as text; of Parquet without columns of lists that no feature
# reads.
from .table import open_table as open_table

# The cells of the table, every column text: "007", "NA" and "None" stay as written, a Parquet null
# is "".
from .table import read_table as read_table

# The columns of each feature, inputs in the recipe's order and then the targets.
from .table import resolve_features as resolve_features

# The table's columns that `data.split.column` names, in the table's order: one, several for a
# pattern, or none.
from .table import split_columns as split_columns

# Warnings about settings that a feature of its kind does not have.
from .table import unused_feature_settings as unused_feature_settings

# The same data, split by one of the columns that `data.split.column` names.
from .table import with_split_column as with_split_column

# What the last cell of a column says, of tags the last one, where no other cell says it; else
# nothing.
from .torn import find_torn as find_torn

# Call the last row bad where the file ends within its last cell, which is a class or tag that no
# other row has.
from .torn import reject_torn_end as reject_torn_end

# Name the inputs that read numbers of rows, which say where a row stood and not what it is.
from .torn import warn_of_index as warn_of_index

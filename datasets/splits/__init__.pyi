# Whether keys that stand in so many rows each are too few, or too uneven, for a hash of them to
# keep fractions.
from .few_keys import are_few as are_few

# Another key for each row: of its own and how many rows with the same stood before it.
from .few_keys import number_repeats as number_repeats

# Say where so few keys decide that a side is empty or far from its fraction, and what to do.
from .few_keys import warn_of_few_keys as warn_of_few_keys

# The remedy for a split that is damaged.
from .files import AGAIN as AGAIN

# A split is not as it was written; says which file, and what to do.
from .files import DamagedSplitError as DamagedSplitError

# Whether a split of this version is there as it was written; one that is not is set aside, with a
# warning.
from .files import find_split as find_split

# sha256 and size of a split's files, by name, each in its folder; none of a split of an older
# version.
from .files import list_split as list_split

# Read every file of a split, once for each process, and compare its sha256.
from .files import verify_split as verify_split

# Write down what the other files of a split are; for a folder that nobody else sees yet.
from .files import write_manifest as write_manifest

# Refuse a file that two splits share.
from .leaks import check_files as check_files

# How many rows have a key that an earlier row has.
from .leaks import count_duplicates as count_duplicates

# Which rows have a key that stands on two sides.
from .leaks import rows_in_two as rows_in_two

# What a cell of a split column may say, in any case.
from .splits import SPLIT_WORDS as SPLIT_WORDS

# The side of each row.
from .splits import Sides as Sides

# The number of the split that tests.
from .splits import TEST as TEST

# The number of the split that trains.
from .splits import TRAIN as TRAIN

# The number of rows that are in no split.
from .splits import UNUSED as UNUSED

# The number of the split that validates.
from .splits import VALID as VALID

# Read the sides from a column: train (training), valid (validation, val, dev) or test (testing), in
# any case.
from .splits import assign_by_column as assign_by_column

# Decide the sides from the fractions.
from .splits import assign_by_hash as assign_by_hash

# One uint64 of shape (rows,) from several; their order counts.
from .splits import combine as combine

# The first 64 bits of hex digests, 'S32' of shape (rows,); 0 where there is none.
from .splits import hash_contents as hash_contents

# 64 bits of each row of ids of shape (rows, columns), by the texts that they stand for.
from .splits import hash_ids as hash_ids

# 64 bits of each row of float64 numbers of shape (rows, columns); 5, 5.0 and 5e0 are one number.
from .splits import hash_numbers as hash_numbers

# 64 bits of each row of ids of tags, -1 where there is none, by the texts; their order does not
# count.
from .splits import hash_tags as hash_tags

# 64 bits of each text's BLAKE2b, as uint64 of shape (rows,): the same in every process, version,
# Unicode form.
from .splits import hash_texts as hash_texts

# Warnings about settings of the split that have no effect, or less, beside a column.
from .splits import unused_settings as unused_settings

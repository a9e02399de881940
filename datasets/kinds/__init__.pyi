# The class of each row, int64.
from .category import target_ids as target_ids

# Gathers pixels of rows, from the shards of a store or from a copy in memory.
from .image import Pictures as Pictures

# What a kind fits the schema of a feature on.
from .kind import Fitting as Fitting

# Of int64 positions in a data set, shape (B,), the values of these rows.
from .kind import Gather as Gather

# Everything that is done with the features of one kind.
from .kind import Kind as Kind

# A column of all rows of a table.
from .kind import Packed as Packed

# What a kind makes a column of a pack with.
from .kind import Packing as Packing

# Called with the numbers of files done and of all files.
from .kind import Progress as Progress

# What a kind reads the cells of a feature from.
from .kind import Reading as Reading

# What a kind describes a feature from, for the data report.
from .kind import Reporting as Reporting

# What a model does not know in one column.
from .kind import Strange as Strange

# The object of a kind.
from .kind import kind_of as kind_of

# Let recipes name a kind.
from .kind import register as register

# The row, of these, with the pixel farthest from 0, and that pixel.
from .pixels import find_farthest as find_farthest

# Pixels of the file in a pixel of the stored image, along x and y: float64, shape (B, 2).
from .points import file_scale as file_scale

# Height and width of the rows' pictures in their files, and of the stored images, that points lie
# on.
from .points import picture_sizes as picture_sizes

# What is asked about the rows, int64, shape (M,) each.
from .triples import Questions as Questions

# Ask each row for its tail, then, where the tails are known, each row for its head.
from .triples import ask_questions as ask_questions

# Refuse what cannot share, or what is no triple.
from .vocabularies import check_vocabularies as check_vocabularies

# The parts of the triple, where the target shares its vocabulary with an input; else None.
from .vocabularies import find_triple as find_triple

# The vocabularies that features share, by name.
from .vocabularies import fit_vocabularies as fit_vocabularies

# Call rows of another table bad whose head or relation the model does not know; nothing where it
# ranks nothing.
from .vocabularies import reject_unknown_parts as reject_unknown_parts

# Call rows bad that no model can be asked: their relation stands in no training row.
from .vocabularies import reject_unseen_relations as reject_unseen_relations

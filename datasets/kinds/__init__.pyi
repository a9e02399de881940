# Check the columns of a feature of points, and the points that its settings name.
from .points import check_points as check_points

# How many points of each row lie outside its picture.
from .points import count_outside as count_outside

# Pixels of the file in a pixel of the stored image, along x and y: float64, shape (B, 2).
from .points import file_scale as file_scale

# The image input that a feature's points lie on.
from .points import find_image as find_image

# Points in pixels of their files as points in pixels of the stored images.
from .points import scale_to_stored as scale_to_stored

# The numbers of a text for the data report, those below `texts` for each split that has rows.
from .text import describe_texts as describe_texts

# Fit a vocabulary on the training rows: the most frequent tokens, of equally frequent ones the
# first by text.
from .text import fit_text as fit_text

# The column of a text in a pack: its tokens, and the cells themselves to show them to people.
from .text import pack_texts as pack_texts

# What gathers a text: of positions in `rows` the token ids, int64 (B, L), padded at the end with 0.
from .text import text_gatherer as text_gatherer

# Name the splits of which the vocabulary knows less than half of the tokens.
from .text import warn_of_unknown as warn_of_unknown

# What is asked about the rows, int64, shape (M,) each.
from .triples import Questions as Questions

# Ask each row for its tail, then, where the tails are known, each row for its head.
from .triples import ask_questions as ask_questions

# A fitted vocabulary.
from .vocabularies import Classes as Classes

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

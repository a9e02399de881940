# Draw the figures that fit each target, and rows to look at: the worst, the most doubtful,
# landmarks on pictures.
from .figures import draw_evaluation as draw_evaluation

# The images that a `preprocess` chain may have cut: what their files' proportions say of them is
# not known.
from .figures import images_as_stored as images_as_stored

# Write the CSV tables that fit each target: of classes, of tags, of errors by quantile, or of
# points.
from .figures import write_tables as write_tables

# Columns of predictions by name.
from .predictions import Columns as Columns

# The column that says why a row has no prediction.
from .predictions import VERDICT as VERDICT

# Predictions of rows whose truth may not be known.
from .predictions import describe_predictions as describe_predictions

# The names of what `describe_predictions` gives.
from .predictions import name_columns as name_columns

# Predictions beside the truth, one row each.
from .predictions import tabulate as tabulate

# Each question with the answer to it and the best entity that is no other true answer.
from .ranks import tabulate_ranks as tabulate_ranks

# Write the nearest entities, by the cosine of their vectors, of those that training saw most.
from .ranks import write_neighbours as write_neighbours

# Write the table of relations, and draw how the ranks are spread and the worst questions.
from .ranks import write_ranked as write_ranked

# Write `tables/words.csv` and `figures/words.png` of a run whose model is a bag of words; of others
# nothing.
from .words import write_words as write_words

# The 95 % interval of sum over columns of weight times mean over rows, groups of rows drawn with
# replacement.
from .bootstrap import resampled_interval as resampled_interval

# The largest probabilities of each row, the largest first, float64, shape (N, number).
from .classification import best_probabilities as best_probabilities

# Count rows by true and predicted class.
from .classification import confusion_matrix as confusion_matrix

# Count rows by true and predicted class.
from .classification import count_classes as count_classes

# One row a class, for a table: its rows, accuracy (that is, its recall), precision, F1, what it is
# taken for.
from .classification import describe_classes as describe_classes

# Of each class, in nats: float64, shape (N, K).
from .classification import log_probabilities as log_probabilities

# The class of the largest score of each row, int64, shape (N,); the first of equal ones.
from .classification import predicted_ids as predicted_ids

# Minus the logarithm of the true class's probability, in nats, float64, shape (N,).
from .classification import row_losses as row_losses

# The one metric that says how good a model is; see `headline` for the exception.
from .compute import HEADLINES as HEADLINES

# Bounds of the headline metric; see `headline_interval`.
from .compute import INTERVAL_NAMES as INTERVAL_NAMES

# The one metric that says how good a model is; see `headline` for the exception.
from .compute import RANKED_HEADLINE as RANKED_HEADLINE

# The metric that decides which checkpoint is best where the recipe does not say.
from .compute import auto_monitor as auto_monitor

# Compute all metrics of a split, on the CPU, in double precision.
from .compute import compute_metrics as compute_metrics

# What runs of older versions call metrics of a class, column, tag or direction; see `former_names`.
from .compute import former_metric_names as former_metric_names

# The metric that says how good a model is: accuracy, f1_micro, rmse, nme, mrr; rmse where points
# have no unit.
from .compute import headline as headline

# Bounds between which the headline metric would lie in 95 % of other samples of rows like these.
from .compute import headline_interval as headline_interval

# The names that `checkpoint.monitor` may give: what a split with rows of every class has, and can
# be better in.
from .compute import metric_names as metric_names

# Whether more of a metric is better.
from .compute import monitor_mode as monitor_mode

# Each target's share, with its share of the scale: shape (N, 2), or None where there is none.
from .compute import scaled_parts as scaled_parts

# What a metric is counted in: the unit of the number target that it measures, px for points, else
# nothing.
from .compute import unit_of as unit_of

# MLflow takes names of 250 characters, file systems 255 bytes between slashes; this leaves room for
# "_std" behind.
from .names import SPLITS as SPLITS

# The names that a run goes on with, by today's; none where it has today's.
from .names import names_kept as names_kept

# The column that says whether a question asks for the head.
from .ranking import BACKWARDS as BACKWARDS

# The column of the entities that rank first.
from .ranking import BEST as BEST

# What is measured of ranks, overall and by direction.
from .ranking import DIRECTIONS as DIRECTIONS

# All true answers to each question, sorted by question.
from .ranking import KnownAnswers as KnownAnswers

# The column of the true entity's rank.
from .ranking import RANK as RANK

# Turns the scores of a batch into what is kept of them.
from .ranking import Ranker as Ranker

# Of each question whose answer is not known: the best entity's id and its probability, float64,
# shape (B, 2).
from .ranking import best_answers as best_answers

# How far predicted points lie from the true ones, in pixels of the file's picture.
from .regression import PointErrors as PointErrors

# One row a point, for a table: its columns, mean, median and largest distance in pixels, and its
# nme if it has.
from .regression import describe_points as describe_points

# Errors by the size of the true value, for a table: a row for each tenth of a column's rows, equal
# values joined.
from .regression import describe_quantiles as describe_quantiles

# Whether the errors of a points target have a length to be counted in: one point alone has no box.
from .regression import has_unit as has_unit

# Points of the stored image in pixels of the file's picture; a pixel's centre is a whole number in
# both.
from .regression import in_file_pixels as in_file_pixels

# Standardised values of a target in its own units (points: pixels of the stored image): float64,
# shape (N, D).
from .regression import in_own_units as in_own_units

# Measure each row's points.
from .regression import point_errors as point_errors

# Mean distance of each row over its unit, float64, shape (N, 1); NaN where the unit has no length.
from .regression import row_nme as row_nme

# Of each tag the rows that have it, those that were predicted to, and those among both: int64,
# shape (K,).
from .tags import count_tags as count_tags

# One row a tag, for a table: its rows, how often it was predicted, and its scores; empty where
# undefined.
from .tags import describe_tags as describe_tags

# The tags of each row as a cell of the table says them, in the order of the schema: object, shape
# (N,).
from .tags import join_tags as join_tags

# The tags whose probability is above one half: bool, shape (N, K).
from .tags import predicted_tags as predicted_tags

# The probability of each tag, whatever the others: float64, shape (N, K).
from .tags import tag_probabilities as tag_probabilities

# The tags that the rows have: bool, shape (N, K).
from .tags import true_tags as true_tags

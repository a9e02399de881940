# Accuracy of each class as bars, the worst on top.
from .classes import class_accuracy as class_accuracy

# Precision, recall and F1 of each class, the lowest F1 on top.
from .classes import class_scores as class_scores

# Confusion matrix.
from .classes import confusion as confusion

# Receiver operating characteristic and precision over recall, for two classes.
from .classes import roc as roc

# Precision, recall and F1 of each tag, the lowest F1 on top.
from .classes import tag_scores as tag_scores

# The metric that decides which epoch is best.
from .curves import Headline as Headline

# Loss, headline metric and learning rate over the epochs.
from .curves import curves as curves

# One metric over the runs of several splits.
from .curves import splits as splits

# Draw rows and classes by split, missing values, quarantine, image sizes, ranges, and warnings on
# one page.
from .data import data_report as data_report

# Predicted over true values, the differences as a histogram, and as boxes along the true values.
from .numbers import residuals as residuals

# Mean error of each point, drawn on the mean shape, and the share of rows below each error (CED).
from .points import points_error as points_error

# Bars of ranks in groups, and the share of ranks up to each k.
from .ranks import ranks as ranks

# A grid of pictures, each with what was said of it and, for points, where they are and were
# predicted.
from .rows import gallery as gallery

# A table of rows, for inputs that are no pictures.
from .rows import worst_rows as worst_rows

# Draw for each class, of the first twelve, its tokens of largest weight as bars, the largest on
# top.
from .words import words as words

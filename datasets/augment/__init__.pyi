# A row's random numbers: call it with a stream number, get uint64 of shape (B,).
from .draws import Draw as Draw

# Random numbers of each row: splitmix64 (Steele, Lea and Flood 2014) of seed, epoch, row and
# stream.
from .draws import drawer as drawer

# Moves an image by up to `padding` pixels in both directions; its size stays.
from .geometry import Crop as Crop

# Mirrors an image left to right.
from .geometry import Flip as Flip

# A change that moves pixels.
from .geometry import Geometric as Geometric

# The map (B, 2, 3) of doing one after the other; None changes nothing.
from .geometry import compose as compose

# Move each row's points by its map; where that mirrors, the pairs in `swap` change places.
from .geometry import move_points as move_points

# A weighted mean of two rows (Zhang et al. 2018).
from .mixing import Mixup as Mixup

# Mix each row with another of its batch; of several mixers each batch draws one.
from .mixing import mix_batch as mix_batch

# Contiguous rows as one element each, (B,), which numpy copies by memcpy, 15 times as fast as
# torch's index_copy_.
from .pixels import as_elements as as_elements

# Mirror some rows of (B, H, W, C), contiguous, left to right, in place.
from .pixels import mirror_rows as mirror_rows

# The augmentations by the name that a recipe gives them.
from .plan import AUGMENTATIONS as AUGMENTATIONS

# An augmentation and the first of its streams of random numbers.
from .plan import Step as Step

# Check names and arguments.
from .plan import check_augment as check_augment

# Check that there is a sense in doing this to these features.
from .plan import check_augment_fits as check_augment_fits

# What is legal and yet hardly meant, a sentence each: no effect, or points that a mirror leaves
# misnamed.
from .plan import doubts_about_augment as doubts_about_augment

# Build augmentations; rotations and changes of size that stand beside each other become one.
from .plan import plan_augmentations as plan_augmentations

# Raise it when the same bytes would give other pixels or another verdict: every store is then
# decoded anew.
from .decode import DECODER_VERSION as DECODER_VERSION

# Decode a file's bytes, orient them as EXIF says, run the `preprocess` chain and bring them to size
# and dtype.
from .decode import decode_image as decode_image

# Decode several files, as `decode_image` does each, and keep the images of one size.
from .decode import decode_images as decode_images

# Channels of a decoded image.
from .decode import num_channels as num_channels

# How the names of image files end.
from .headers import IMAGE_SUFFIXES as IMAGE_SUFFIXES

# What the files of a sample have in common.
from .headers import Pictures as Pictures

# Read the headers of some image files; None where none can be read.
from .headers import look_at_pictures as look_at_pictures

# Pictures of each kind, uint8 of `Note` a row.
from .notes import count_notes as count_notes

# Sentences for the user, each with its count and the first files.
from .notes import warn_of_notes as warn_of_notes

# Check names and arguments of the chain without running it.
from .preprocess import check_preprocess as check_preprocess

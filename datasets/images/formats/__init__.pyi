# Samples of 1 to 7 bits brought to 8, of 9 to 15 to 16, so that white is the largest number of all
# bits.
from .colour import fill_range as fill_range

# Whether any pixel is not opaque.
from .colour import is_transparent as is_transparent

# The channels of a feature: (1, H, W) for gray, (3, H, W) for rgb, else the file's own where their
# number fits.
from .colour import to_channels as to_channels

# How a file of NumPy's begins.
from .decoders import NPY as NPY

# What Pillow may be asked to open here; its other formats include ones that start programs (EPS) or
# are no pictures.
from .decoders import PILLOW_FORMATS as PILLOW_FORMATS

# What a picture is, as far as a file says it before its pixels are decoded.
from .decoders import Shape as Shape

# Decode any of `PILLOW_FORMATS`, upright, of 16 bits where the file has them; of an animation the
# first frame.
from .decoders import decode_by_pillow as decode_by_pillow

# An array that numpy saved, (H, W) or (H, W, C); its header is judged before its data, and no
# pickle is read.
from .decoders import decode_npy as decode_npy

# What a file that Pillow has opened will be decoded to.
from .decoders import shape_of_pillow as shape_of_pillow

# How a JPEG file begins.
from .jpeg import JPEG as JPEG

# Decode a JPEG into an array where nothing is to be done to its pixels but that; whether it was.
from .jpeg import decode_into as decode_into

# Decode a JPEG, upright; inks become red, green and blue.
from .jpeg import decode_jpeg as decode_jpeg

# How a PNG file begins.
from .png import PNG as PNG

# Decode a PNG, upright; a palette becomes colours, transparent colours become an alpha channel.
from .png import decode_png as decode_png

# The bytes are no image that fits the feature.
from .raster import BadImage as BadImage

# What the data report says of a picture that is good.
from .raster import Note as Note

# A decoded picture, upright.
from .raster import Raster as Raster

# The image declares more pixels than the recipe allows.
from .raster import TooLarge as TooLarge

# (H, W) or (H, W, C) -> (C, H, W).
from .raster import channels_first as channels_first

# Channels (C, H, W) that are gray or red, green and blue by their number.
from .raster import plain_raster as plain_raster

# An axis as short as this, beside two that are longer, counts channels.
from .tiff import MOST_CHANNELS as MOST_CHANNELS

# How a TIFF file begins, in either order of bytes.
from .tiff import TIFF as TIFF

# Decode the one picture of a TIFF, upright; pages and planes of one picture become channels.
from .tiff import decode_tiff as decode_tiff

# What is wrong with a TIFF whose pages seem to be the rows of one picture; empty where they do not.
from .tiff import describe_pages as describe_pages

# What a TIFF will be decoded to; None where it has no height and width.
from .tiff import shape_of_tiff as shape_of_tiff

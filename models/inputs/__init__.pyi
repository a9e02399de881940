# Build what turns a feature's tensor into units of shape (B, F); also gives F.
from .encoders import build_encoder as build_encoder

# Channels, height and width of the one image that a net takes; torchvision's are fitted to any.
from .kinds import IMAGES as IMAGES

# How names of torchvision's nets begin in a recipe.
from .kinds import TORCHVISION as TORCHVISION

# Refuse an image of another shape than a net takes, and say what to write into the recipe.
from .kinds import check_image_shape as check_image_shape

# Refuse kinds of inputs that a model does not take; one that is not known here takes any.
from .kinds import check_inputs as check_inputs

# Refuse all but numbers and points; arguments and errors as of `check_inputs`.
from .kinds import check_numbers as check_numbers

# Refuse all but one text; arguments and errors as of `check_inputs`.
from .kinds import check_text_alone as check_text_alone

# The net itself where a table's one input is its image; else the net with the other inputs let in.
from .side_inputs import add_side_inputs as add_side_inputs

# The one image among a table's inputs.
from .side_inputs import find_image as find_image

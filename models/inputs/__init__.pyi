# Build the module that turns a feature's tensor into units (B, F).
from .encoders import build_encoder as build_encoder

# Channels, height and width of the one image that a net takes; torchvision's are fitted to any.
from .kinds import IMAGES as IMAGES

# How names of torchvision's nets begin in a recipe.
from .kinds import TORCHVISION as TORCHVISION

# Refuse an image of another shape than a net takes.
from .kinds import check_image_shape as check_image_shape

# Refuse kinds of inputs that a model does not take.
from .kinds import check_inputs as check_inputs

# Refuse all inputs but numbers and points.
from .kinds import check_numbers as check_numbers

# Refuse all inputs but a single text.
from .kinds import check_text_alone as check_text_alone

# Add a table's other inputs to a net.
from .side_inputs import add_side_inputs as add_side_inputs

# The one image among a table's inputs.
from .side_inputs import find_image as find_image

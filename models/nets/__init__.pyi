# A linear layer over how often each token stands in a text; order and distance of tokens do not
# count.
from .bag_of_words import BagOfWords as BagOfWords

# Logistic (or linear) regression over the counts of the words, or n-grams, of one text.
from .bag_of_words import build_bag_of_words as build_bag_of_words

# Affine and ReLU, then the same middle layer with ReLU 0 to 3 times, then affine.
from .dynamic_net import DynamicNet as DynamicNet

# The real part of head times relation times the conjugate tail, over complex numbers.
from .knowledge_graph import ComplEx as ComplEx

# The score is the sum over the products of head, relation and tail: every relation is symmetric,
# but for its
from .knowledge_graph import DistMult as DistMult

# Two tables of embeddings, and how a head and a relation become a query that tails are compared
# with.
from .knowledge_graph import KnowledgeGraphModel as KnowledgeGraphModel

# Which norm measures a distance.
from .knowledge_graph import Power as Power

# A relation moves the head to the tail: the score is minus the distance of head + relation from the
# tail.
from .knowledge_graph import TransE as TransE

# Where head and relation stand, and how many entities and relations there are.
from .knowledge_graph import find_sizes as find_sizes

# Two convolutions with max pooling, three affine layers, ReLU between them.
from .lenet import LeNet as LeNet

# Affine layers with ReLU and dropout between them, normalised before the ReLU if asked, over all
# inputs.
from .mlp import MLP as MLP

# Which normalisation follows a layer.
from .mlp import Norm as Norm

# Whether a recipe's model is a net of torchvision with pretrained weights.
from .pretrained import asks_for_weights as asks_for_weights

# See that a model's pretrained weights are there and can be read; download those that torchvision
# names.
from .pretrained import fetch_pretrained as fetch_pretrained

# Load a model's pretrained weights into the net that was built for a table.
from .pretrained import load_pretrained as load_pretrained

# Build the net with random weights for a table of one image, and of other inputs, which join before
# the head.
from .torchvision_nets import build_torchvision as build_torchvision

# Refuse a net that torchvision does not have or arguments that it does not take.
from .torchvision_nets import check_torchvision as check_torchvision

# Names of torchvision's classification nets.
from .torchvision_nets import list_torchvision as list_torchvision

# The forms that the two-layer network is written in.
from .two_layer import Form as Form

# Affine, ReLU, affine, without biases, over numbers side by side; two layers hold the weights of
# all forms.
from .two_layer import TwoLayerNet as TwoLayerNet

# The net in one of its forms.
from .two_layer import build_net as build_net

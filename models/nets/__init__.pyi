# A linear layer over how often each token stands in a text.
from .bag_of_words import BagOfWords as BagOfWords

# Logistic or linear regression over the counts of one text's n-grams.
from .bag_of_words import build_bag_of_words as build_bag_of_words

# Affine, ReLU, the same middle layer with ReLU 0 to 3 times, affine.
from .dynamic_net import DynamicNet as DynamicNet

# The real part of head times relation times the conjugate tail.
from .knowledge_graph import ComplEx as ComplEx

# The score is the sum over the products of head, relation and tail.
from .knowledge_graph import DistMult as DistMult

# Two tables of embeddings, and a query made of a head and a relation.
from .knowledge_graph import KnowledgeGraphModel as KnowledgeGraphModel

# Which norm measures a distance.
from .knowledge_graph import Power as Power

# A relation moves the head to the tail.
from .knowledge_graph import TransE as TransE

# Find the head, the relation, and the numbers of entities and relations.
from .knowledge_graph import find_sizes as find_sizes

# Two convolutions with max pooling and three affine layers, with ReLU.
from .lenet import LeNet as LeNet

# Affine layers with ReLU, dropout and an optional norm over all inputs.
from .mlp import MLP as MLP

# Which normalisation follows a layer.
from .mlp import Norm as Norm

# Whether a recipe asks for pretrained weights of a torchvision net.
from .pretrained import asks_for_weights as asks_for_weights

# Check that a model's pretrained weights are there and can be read.
from .pretrained import fetch_pretrained as fetch_pretrained

# Load a model's pretrained weights into the net of a table.
from .pretrained import load_pretrained as load_pretrained

# Build the net with random weights for a table with one image.
from .torchvision_nets import build_torchvision as build_torchvision

# Refuse a net that torchvision lacks, or arguments that it does not take.
from .torchvision_nets import check_torchvision as check_torchvision

# Names of torchvision's classification nets.
from .torchvision_nets import list_torchvision as list_torchvision

# The forms that the two-layer network is written in.
from .two_layer import Form as Form

# Affine, ReLU, affine, without biases, over numbers side by side.
from .two_layer import TwoLayerNet as TwoLayerNet

# The net in one of its forms.
from .two_layer import build_net as build_net

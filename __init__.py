"""torchrelay: a growing table becomes a trained, evaluated, tracked PyTorch model, again and again."""

__version__ = "0.1.0"

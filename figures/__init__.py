"""The pictures of a run as PNG files.

Each function takes plain values and a path, and returns the path. How all look stands in
`style.py`; which rows are worst, and what is measured, is decided elsewhere.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

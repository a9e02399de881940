"""The pictures of a run as PNG files.

Each function takes plain values and a path, and returns the path. How all look stands in
`style.py`; which rows are worst, and what is measured, is decided elsewhere.
"""

"""Ready recipes.

`torchrelay fetch NAME` copies them out of an installed package.
"""

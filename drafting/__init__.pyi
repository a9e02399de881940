# Choose what to learn from what, and how.
from .draft import draft_recipe as draft_recipe

# The columns to learn, and why they.
from .features import choose_target as choose_target

# What `torchrelay init` says where no table is named.
from .text import EXPLANATION as EXPLANATION

# What was guessed, for people: the part of the recipe, and a sentence.
from .text import describe_draft as describe_draft

# Write a recipe for a table.
from .text import init_recipe as init_recipe

# The recipe as YAML with comments.
from .text import write_draft as write_draft

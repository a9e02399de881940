# Where the pixels of each row lie: row i is `shards[shard[i]][offset[i]]`, of shape (C, H, W).
from .pack import ImageColumn as ImageColumn

# An opened pack; its arrays are memory-mapped when they are first used.
from .pack import Pack as Pack

# A feature on its way into a pack.
from .pack import PackColumn as PackColumn

# What the manifest says about a feature.
from .pack import PackFeature as PackFeature

# 32 hex digits over every cell of every row and every file's bytes.
from .pack import fingerprint_table as fingerprint_table

# The start of a feature's file names, free of slashes.
from .pack import name_file as name_file

# Commit a pack, unless it is there already; then every byte of it is compared, and what differs
# written anew.
from .pack import write_pack as write_pack

# Row i is `values[offsets[i]:offsets[i + 1]]`.
from .ragged import Ragged as Ragged

# The place of each value in its row, int64: 0, 1, …; or `down`, from the row's length to 1.
from .ragged import spread as spread

# Below the packs: a folder for each table that was refused, with its bad rows.
from .space import REJECTED as REJECTED

# Between an ingest and the record of the run that it was for, nothing refers to a pack but the
# process in between.
from .space import TRASH as TRASH

# Be alone with packs and store; gives False, at once, where an ingest is at work.
from .space import claim_data as claim_data

# Packs that are not among the needed ones, by name, and stay because they were made or found just
# now.
from .space import fresh_packs as fresh_packs

# Keep packs and store as they are, apart from what is added; any number of processes may.
from .space import hold_data as hold_data

# What writers that died left half-written and what refused tables left, older than a day; and what
# an earlier
from .space import leftovers as leftovers

# Sub-folders in order, without those that are half-written or going, and without links: those lead
# elsewhere.
from .space import list_folders as list_folders

# All below a folder whose names begin with a dot and end so; behind links nothing is looked for.
from .space import list_hidden as list_hidden

# The folders of all packs.
from .space import list_packs as list_packs

# Keep a pack for a while although no run refers to it yet; call it while the data is held.
from .space import mark_used as mark_used

# What was downloaded from MLflow into the cache, and can be again.
from .space import old_sources as old_sources

# Remove a file or folder: under another name first, so that no half of it is ever taken for a
# whole.
from .space import remove_data as remove_data

# Remove a shard, and its store where it was the last.
from .space import remove_shard as remove_shard

# Packs that are not among the needed ones, by name, and were not made or found just now.
from .space import unneeded_packs as unneeded_packs

# Shards that no pack names; those without pixels go with the last shard of their store.
from .space import unneeded_shards as unneeded_shards

# The numbers of the groups of a split's rows, beside `split.npy`.
from .view import GROUPS_FILE as GROUPS_FILE

# The texts of `data.key` of a split's rows, beside `split.npy`.
from .view import KEYS_FILE as KEYS_FILE

# A pack seen through one split.
from .view import View as View

# Open a pack and one of its splits.
from .view import open_view as open_view

# Text of `data.key` for each row of the pack; None where no key is declared.
from .view import read_keys as read_keys

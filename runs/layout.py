"""What lies in a run's folder, by name.

Paths are relative to that folder. What the files hold, and who writes them, is said where they are
read.
"""

from __future__ import annotations

# Written last, so that a folder without one is no run.
RECORD_FILE = "run.json"
RECIPE_FILE = "recipe.yaml"
SCHEMA_FILE = "schema.json"
JOURNAL_FILE = "journal.jsonl"
# How far MLflow has the journal, and what it does not take of it.
CURSOR_FILE = "shipped.json"
ASIDE_FILE = "set_aside.jsonl"
# Held by the one writer of a run.
LOCK_FILE = "lock"
# Held by whoever sends a run's journal and moves its cursor.
SHIP_LOCK_FILE = "ship.lock"
# Bytes that are given up when the disk is full, so that a run's end can be written down.
ROOM_FILE = "room"
# Why a run failed, with the traceback of an error that is not the user's.
ERROR_FILE = "error.txt"

WEIGHTS = "weights"
BEST = "weights/best.pt"
LAST = "weights/last.pt"
OPTIMIZER = "weights/optimizer.pt"
# What a warm start begins with, and what of it came from where.
START = "weights/start.pt"
TRANSFER_FILE = "transfer.csv"
CHECKPOINTS = "checkpoints"
# What a model is built from.
NEEDED = (RECIPE_FILE, SCHEMA_FILE, BEST)

PREDICTIONS_FILE = "predictions.parquet"
TABLES = "tables"
FIGURES = "figures"
# Of a parent over several split columns.
SPLITS_FILE = "splits.csv"
# Versions of registered models that wait to be sent.
STAGED = "register"

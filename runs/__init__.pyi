# Seconds of a run up to a time: those counted before it was last resumed, and those since.
from .clock import seconds_until as seconds_until

# What MLflow has of a journal; moved only after MLflow has taken what lies before it.
from .cursor import Cursor as Cursor

# A line of a journal that MLflow is to get.
from .cursor import Line as Line

# Whether a line is for MLflow at all.
from .cursor import is_shipped as is_shipped

# A run's journal, open for reading; None where there is none.
from .cursor import opened as opened

# The whole lines of a journal after an offset, whatever their kind.
from .cursor import unshipped as unshipped

# How many lines of a run's journal MLflow does not have yet.
from .cursor import waiting as waiting

# Tag of a run and of a version in MLflow: sha256 of these, as JSON; those of before have none.
from .files import FILES_TAG as FILES_TAG

# In a version's folder: sha256 and size of its other files, of which MLflow serves some.
from .files import VERSION_FILES as VERSION_FILES

# sha256 of files of a run, by their path in its folder, those in a folder that is named too; of
# what is there.
from .files import digests_of as digests_of

# sha256 and size of the files of a version, by their path in its folder; none of a version of
# before.
from .files import read_version_files as read_version_files

# Write files of a run, or all in a folder, within the block: what its record says of them goes, and
# comes anew.
from .files import rewriting as rewriting

# The tag by which MLflow's copies of a run's files are checked when they are fetched.
from .files import tag_files as tag_files

# Hold a file of weights in a run's folder against the run's record, or a checkpoint's state against
# its manifest.
from .files import verify_weights as verify_weights

# A run's folder and its lock, both open, so that what takes their place never has their numbers.
from .holding import Hold as Hold

# See `Hold.check`; nothing where this process does not hold the run.
from .holding import check_folder as check_folder

# Batches between which the run's folder is looked at.
from .holding import checked as checked

# Give the room that was kept to whatever is written next.
from .holding import give_room as give_room

# The hold of a run that this process writes.
from .holding import hold_of as hold_of

# Keep a little room for the end of a run on a disk that is full by then.
from .holding import keep_room as keep_room

# Know for the life of the block what becomes of a run's folder, and never make it again where it
# was removed.
from .holding import watch_folder as watch_folder

# Appends to, and reads, one journal file.
from .journal import Journal as Journal

# One value of one metric.
from .journal import Point as Point

# Whether a line that `parse` does not take is what a crash left of one; any other was changed
# since.
from .journal import is_torn as is_torn

# A line of a journal without its CRC; None where it is torn, or not as it was written.
from .journal import parse as parse

# The points of a line; none where it is of another kind than metrics.
from .journal import points_of as points_of

# Which steps' training metrics go to MLflow; the journal has all.
from .journal import thin as thin

# What MLflow does not take of a journal.
from .layout import ASIDE_FILE as ASIDE_FILE

# The best weights.
from .layout import BEST as BEST

# The folder of checkpoints.
from .layout import CHECKPOINTS as CHECKPOINTS

# How far MLflow has a journal.
from .layout import CURSOR_FILE as CURSOR_FILE

# Why a run failed.
from .layout import ERROR_FILE as ERROR_FILE

# The folder of figures.
from .layout import FIGURES as FIGURES

# The journal.
from .layout import JOURNAL_FILE as JOURNAL_FILE

# The last weights.
from .layout import LAST as LAST

# Held by the one writer of a run.
from .layout import LOCK_FILE as LOCK_FILE

# The files that a model is built from.
from .layout import NEEDED as NEEDED

# The optimizer's state beside the last weights.
from .layout import OPTIMIZER as OPTIMIZER

# The predictions of an evaluation.
from .layout import PREDICTIONS_FILE as PREDICTIONS_FILE

# The recipe.
from .layout import RECIPE_FILE as RECIPE_FILE

# The record, without which a folder is no run.
from .layout import RECORD_FILE as RECORD_FILE

# The schema.
from .layout import SCHEMA_FILE as SCHEMA_FILE

# Held by whoever sends a run's journal.
from .layout import SHIP_LOCK_FILE as SHIP_LOCK_FILE

# The metrics of a parent's runs.
from .layout import SPLITS_FILE as SPLITS_FILE

# The folder of versions that wait to be sent.
from .layout import STAGED as STAGED

# The weights that a warm start begins with.
from .layout import START as START

# The folder of tables.
from .layout import TABLES as TABLES

# What of a warm start's weights came from where.
from .layout import TRANSFER_FILE as TRANSFER_FILE

# The folder of weights.
from .layout import WEIGHTS as WEIGHTS

# The tag by which MLflow's runs name their data.
from .opening import FINGERPRINT_TAG as FINGERPRINT_TAG

# The tag by which MLflow's runs name ours.
from .opening import RUN_ID_TAG as RUN_ID_TAG

# Whether a run began with the tracker that this process has.
from .opening import is_meant_for_here as is_meant_for_here

# Whether a journal has its beginning.
from .opening import is_open as is_open

# Journal what is known of a run before it does anything: names, tags, parameters, data set.
from .opening import journal_opening as journal_opening

# Journal that a run goes on.
from .opening import journal_reopening as journal_reopening

# A record's time as milliseconds since 1970.
from .opening import milliseconds as milliseconds

# The tracker that a run began with, its address without secrets; empty for the embedded one.
from .opening import tracker_of as tracker_of

# What stands in a home's folder of runs.
from .record import Listing as Listing

# What is known about one run; frozen, changed on disk by `update_record`.
from .record import RunRecord as RunRecord

# A record as JSON, with the run's folder; of a parent also its `runs`.
from .record import describe_run as describe_run

# The folder of a run.
from .record import find_run as find_run

# Prefect's ids of all flow runs that had a run, the newest last.
from .record import flow_runs_of as flow_runs_of

# The commit that a folder's work tree stands at; empty outside of one, or without git.
from .record import git_commit as git_commit

# The runs of a parent, in the order of its split columns; of two for one column the newer.
from .record import list_children as list_children

# All runs of a home, newest first. A folder whose record cannot be read is passed over with a
# warning, once.
from .record import list_records as list_records

# All runs of a home and all that is none although it has a record; each record is read once.
from .record import list_runs as list_runs

# Read `run.json` of a run whose folder may have been copied or renamed; its paths as they stand
# there.
from .record import load_copied_record as load_copied_record

# Read `run.json`.
from .record import load_record as load_record

# `<name>-<yyyymmdd>-<hhmmss>-<4 hex>`, in UTC; the name reduced to letters, digits, `.`, `_` and
# `-`.
from .record import new_run_id as new_run_id

# The time, ISO 8601 in UTC to the millisecond, as `created` and `ended` want it.
from .record import now as now

# Write `run.json` into the run's folder, atomically; makes the folder.
from .record import save_record as save_record

# Change fields of a run's record on disk, one change at a time, whichever threads and processes
# make them.
from .record import update_record as update_record

# The reports of one run.
from .recorder import Recorder as Recorder

# Logged at every step; MLflow gets them thinned.
from .recorder import STEP_METRICS as STEP_METRICS

# One run, by its folder.
from .run import Run as Run

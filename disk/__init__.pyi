# Fill a temporary sibling folder, then rename it to `final` once every file in it is durable.
from .atomic import commit_folder as commit_folder

# Never make a folder for the life of the block: what is in the way of that was done by somebody
# else.
from .atomic import hold_folder as hold_folder

# Make a folder and those above it, each durable under its name and with no more rights than the one
# above.
from .atomic import make_folder as make_folder

# The rights of a new file: no more than its folder has, so that a private home has private files.
from .atomic import mode_of_files as mode_of_files

# Open a file to write, a new one with the rights of `mode_of_files`.
from .atomic import open_to_write as open_to_write

# Remove a folder, under another name first, so that no half of it is ever taken for a whole.
from .atomic import remove_folder as remove_folder

# Remove what writers left half-written or half-removed in a folder; for its only writer, before it
# writes.
from .atomic import remove_leftovers as remove_leftovers

# Remove a file, a link but not what it leads to, or a folder; what cannot be removed stays.
from .atomic import remove_tree as remove_tree

# Find out before anything expensive whether a file can be written at a place; leaves nothing there.
from .atomic import require_place as require_place

# Rename a bad file or folder to `bad-<name>`, or `bad-<name>-2` and so on; it is never removed.
from .atomic import set_aside as set_aside

# Replace a file as a whole: temporary name, fsync, rename, fsync of the folder.
from .atomic import write_atomic as write_atomic

# Write a value as JSON, atomically; indented unless it is so long that nobody reads it and writing
# it is slow.
from .atomic import write_json as write_json

# 32 hex digits over the parts' JSON, the same on every machine and in every process.
from .digest import digest as digest

# Hex digest of a file's bytes.
from .digest import sha256_file as sha256_file

# Whether a process holds the lock at a path now; leaves the file as it is.
from .lock import is_locked as is_locked

# Hold an advisory lock for the life of the block; it dies with its process, whatever becomes of its
# children.
from .lock import lock as lock

# Hold a lock together with others who share it, for the life of the block; waits for a `lock` on it
# to end.
from .lock import share_lock as share_lock

# Whether an error of reading says that the file is gone or bad.
from .reading import is_damage as is_damage

# Open an ordinary file to read; a pipe or a device, whose bytes may never come or never end, is
# none.
from .reading import open_file as open_file

# Read a JSON file.
from .reading import read_json as read_json

# Why a path can be none: it has a NUL, a name that is too long, links in a circle. Empty where it
# may be one.
from .reading import why_no_path as why_no_path

# The key under which a file keeps its own digest.
from .seals import DIGEST as DIGEST

# Whether whole lines all have a CRC, and the right one; for whoever reads many and needs nothing of
# them.
from .seals import are_sealed as are_sealed

# What is wrong with files that stand in a list: one is missing, or has another size or sha256.
from .seals import find_changed as find_changed

# Whether values carry a digest, right or wrong; those of before had none.
from .seals import is_sealed as is_sealed

# Whether a name that a list states is a path below its folder, which no `..` and no other root
# leads out of.
from .seals import is_within as is_within

# sha256 and size of files, by their path within a folder.
from .seals import list_files as list_files

# JSON values with a digest over them all.
from .seals import seal as seal

# A JSON object on one line, with a CRC as its last value and a line break.
from .seals import seal_line as seal_line

# The text of a pointer: a name, and a CRC over it.
from .seals import seal_name as seal_name

# Hex digest of a file's bytes, read once by this process for as long as the file is the same one.
from .seals import sha256_of_file as sha256_of_file

# The values without their digest; None where it is not theirs, or they have none.
from .seals import unseal as unseal

# Check a line, with its line break or without.
from .seals import unseal_line as unseal_line

# The name that a pointer holds; None where it is not as it was written. One of before is a name
# alone.
from .seals import unseal_name as unseal_name

# Why what a file says of others in its folder is not as `list_files` gives it; empty where it is.
from .seals import why_no_list as why_no_list

# What the system said, and what to do about it.
from .space import describe_failure as describe_failure

# Find out before anything is written whether a file system has room.
from .space import require_space as require_space

# Bytes of a file, or of all files in a folder; what vanishes meanwhile counts nothing.
from .space import size_of as size_of

# Write something, once there is room for it.
from .space import writing as writing

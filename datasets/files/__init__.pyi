# Bytes from a file's beginning that are enough to tell.
from .contents import HEAD_BYTES as HEAD_BYTES

# Bytes from a file's beginning that are enough to tell.
from .contents import SAVE_PICTURE as SAVE_PICTURE

# Refuse a table's file that is not what its suffix says.
from .contents import check_table_file as check_table_file

# Whether a TIFF is a camera's raw picture (DNG, NEF, CR2, ARW), whose first page is a small
# preview.
from .contents import is_camera_raw as is_camera_raw

# What a file is that begins so; None where that is not known.
from .contents import name_contents as name_contents

# A name as a disk that knows neither case nor Unicode form compares it.
from .names import fold as fold

# Whether a cell is an absolute path of Windows.
from .names import is_windows as is_windows

# The files of a column, one entry a row; rows without a file have "" and 0.
from .paths import Files as Files

# The folder that holds all of these, as links lead into a cache; nothing where that holds half the
# disk.
from .paths import common_folders as common_folders

# How many cells name a file below a folder, or a link there that leads out of it.
from .paths import count_files as count_files

# Find the file of each cell; a row without one is rejected.
from .paths import find_files as find_files

# What changes with a file's bytes, as text: size, times of modification and of change, inode and
# device.
from .paths import stamp_of as stamp_of

# The first pickle of the older format: protocol 2, and a number of ten bytes.
from .files import LEGACY_MAGIC as LEGACY_MAGIC

# How an archive of `torch.save` begins.
from .files import ZIP_MAGIC as ZIP_MAGIC

# Load a zip archive of torch.save, its tensors mapped into memory.
from .files import load_archive as load_archive

# Load a file of torch.save as it was before 1.6: five pickles, then the storages' bytes.
from .files import load_legacy as load_legacy

# What a pickle that torch.save did not write would import; empty where the bytes are no whole
# pickle.
from .pickle_scan import wanted_by_plain_pickle as wanted_by_plain_pickle

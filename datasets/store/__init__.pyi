# The pixels of a shard, memory-mapped: (N, C, H, W), where the channels of a pixel lie side by side
# in memory.
from .shards import open_shard as open_shard

# Read every byte of a shard and compare its sha256.
from .shards import verify_shard as verify_shard

# Where the pixels of the requested files are, in the order of the request.
from .store import Located as Located

# The decoded images of one image specification.
from .store import PixelStore as PixelStore

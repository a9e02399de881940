"""What the files of packs, splits and stores are called, for those who look
at a home without reading them.
"""

from __future__ import annotations

# Of a pack, a split and a shard: written last, so that a folder without one is half-written.
MANIFEST = "manifest.json"
SCHEMA_FILE = "schema.json"
PIXELS = "pixels.npy"
QUARANTINE = "quarantine.csv"
# After so long a half-written file is nobody's any more.
STALE_SECONDS = 24 * 3600

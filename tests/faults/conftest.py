"""Where the harness stands that the tests here share with `random_kills.py`; what they fork
finds it too.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

"""Digests of files and of plain values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from .reading import open_file


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*parts: object) -> str:
    """32 hex digits over the parts' JSON, the same on every machine and in
    every process.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]

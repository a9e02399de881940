"""Measures how the house is arranged, prints a table and names whatever passes a limit.

`python tests/house.py` exits with 1 where a limit is passed, with `--report` always with 0. It
reads files and imports none. `measures/` holds the rules. A command of click may take more than
seven parameters, as each is an option. Where a figure is above its limit still, `NOT_YET` of the
checkout holds the figure that it must not exceed; whoever lowers one lowers it there too.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "measures"))

from checkout import House, Offence
from faces import find_face_faults, find_faceless, find_imports_past_faces
from foreign import find_private_names
from literals import LAYOUT, find_kind_tests, find_run_dirs, find_run_files
from shape import (
    MOST_FILES,
    find_crowded_folders,
    find_long_functions,
    find_summaries,
    find_wide_functions,
    find_wide_lines,
)

# The commit that "then" was measured at.
THEN = "85b4b29"
# Median, 90th percentile and largest number of files in a folder, then.
FILES_THEN = (14, 50, 70)
# Figures above their limits, by what is measured.
NOT_YET = "tests/measures/not_yet.json"
# What is measured, how, what it was then, its limit, and what to do about an offence.
MEASURES = (
    ("packages without a face", find_faceless, 7, 0, "list in __init__.pyi what others may use"),
    ("faults in faces", find_face_faults, 0, 0, "mend the line or take it out"),
    ("imports past a face", find_imports_past_faces, 637, 0, "import what its package lists"),
    ("literal kind tests", find_kind_tests, 158, 20, "let the kind's object answer"),
    ("functions over 7 parameters", find_wide_functions, 10, 0, "join what belongs together"),
    ("functions over 60 lines", find_long_functions, 7, 0, "split it"),
    ("parameters called run_dir", find_run_dirs, 112, 8, "take a Run"),
    ("private names of libraries", find_private_names, 43, 0, "use a public one, or *_private.py"),
    ("first docstring lines", find_summaries, 1093, 0, "80 columns, no colon or semicolon"),
    ("lines over 100 columns", find_wide_lines, 6029, 0, "break it"),
    ("literal names of run files", find_run_files, 60, 0, f"take the name from {LAYOUT}"),
)
Row = tuple[str, int, int, int | None]


def measure(house: House) -> tuple[list[Row], list[str]]:
    """Rows of the table, and a line for each offence of those measures that pass their limit."""
    sizes = sorted(house.folders.values())
    files = (sizes[len(sizes) // 2], sizes[math.ceil(0.9 * len(sizes)) - 1], sizes[-1])
    rows: list[Row] = [
        ("files a folder, median", FILES_THEN[0], files[0], None),
        ("files a folder, 90th percentile", FILES_THEN[1], files[1], None),
        ("files a folder, largest", FILES_THEN[2], files[2], MOST_FILES),
    ]
    path = house.root / NOT_YET
    not_yet: dict[str, int] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    crowded = list(find_crowded_folders(house))
    passed = [_line(one, "make rooms of what belongs together") for one in crowded]
    if files[2] <= not_yet.get(rows[2][0], 0):
        passed = []
    for what, find, then, limit, todo in MEASURES:
        found = sorted(set(find(house)))
        rows.append((what, then, len(found), limit))
        most = max(limit, not_yet.get(what, 0))
        passed += [_line(one, todo) for one in found if len(found) > most]
    return rows, passed


def _line(one: Offence, todo: str) -> str:
    return f"{one.path}:{one.line}: {one.what}; {todo}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table and the offences; the exit code is 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description="Measures how the house is arranged.")
    root = Path(__file__).parents[1]
    parser.add_argument("--root", type=Path, default=root, help="another checkout")
    parser.add_argument("--report", action="store_true", help="exit with 0 in any case")
    options = parser.parse_args(arguments)
    rows, passed = measure(House(options.root.resolve()))
    for what, then, now, limit in [("what", f"then ({THEN})", "now", "limit"), *rows]:
        print(f"{what:<32} | {then:>14} | {now:>6} | {'' if limit is None else limit:>5}")
    print(*[""] * bool(passed), *passed, sep="\n", end="\n" if passed else "")
    return 1 if passed and not options.report else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it
    gc.disable()  # hundreds of thousands of nodes live until the end
    sys.exit(main())

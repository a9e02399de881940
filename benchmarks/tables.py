"""What the benchmarks measure on, and the home that they do it in: CIFAR-10's table where it is
there, else noise.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torchrelay import settings


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --data and --rows, the arguments of `find_table`."""
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"))
    parser.add_argument(
        "--rows", type=int, default=20_000, help="rows of noise to make where there is no data"
    )


@contextlib.contextmanager
def scratch_home() -> Iterator[Path]:
    """A folder that lives as long as the block, with an empty home of torchrelay in it, and
    silence.
    """
    with tempfile.TemporaryDirectory(prefix="torchrelay-bench-") as scratch:
        os.environ["TORCHRELAY_HOME"] = f"{scratch}/home"
        os.environ["PREFECT_LOGGING_LEVEL"] = "WARNING"
        settings.set_environment()
        logging.disable(logging.WARNING)
        yield Path(scratch)


def files_of(table: Path) -> Path:
    """Where the pictures of a table lie."""
    return table.parent / "images"


def find_table(folder: Path, scratch: Path, num_rows: int) -> Path:
    """CIFAR-10's table where it is there; else a table of noise, made now."""
    source = folder / "cifar10.csv"
    if not source.exists():
        print(
            f"{source} is not there; measuring on noise (torchrelay fetch cifar10 gives the real "
            "rows)",
            file=sys.stderr,
        )
        return _make_noise(scratch / "noise", num_rows)
    return source.absolute()


def _make_noise(folder: Path, num_rows: int) -> Path:
    import torch
    from torchvision.io import write_jpeg

    generator = torch.Generator().manual_seed(0)
    lines = ["image,label,split"]
    for number in range(num_rows):
        split = "train" if number % 6 else "test"
        name = f"{split}/class{number % 10}/{number:05d}.jpg"
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = torch.randint(256, (1, 3, 8, 8), generator=generator, dtype=torch.uint8)
        image = torch.nn.functional.interpolate(coarse.float(), (32, 32), mode="bilinear")[0].to(
            torch.uint8
        )
        write_jpeg(image, str(path), quality=90)
        lines.append(f"{name},class{number % 10},{split}")
    table = folder / "table.csv"
    table.write_text("\n".join(lines) + "\n")
    return table

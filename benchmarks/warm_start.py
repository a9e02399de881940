"""CIFAR-10 on eight classes, then on all ten: from scratch, from those weights, from a file of them
by other names.

    python benchmarks/warm_start.py [--epochs N] [--out DIR]

Writes both tables (every tenth training row validates), runs the commands that it prints, and ends
with the accuracy after each epoch and the transfer reports. It needs data/cifar10, which
`torchrelay fetch cifar10` makes.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from torchrelay.models.nets import LeNet
from torchrelay.weights import load_weights

LEFT_OUT = ("dog", "truck")
RENAMES = ("backbone.*=*", "classifier.*=fc3.*")


class Theirs(nn.Module):
    """The same net as others might have written it: other names for its parts."""

    def __init__(self, net: LeNet) -> None:
        super().__init__()
        self.classifier = net.fc3
        self.backbone = net
        self.backbone.set_submodule("fc3", nn.Identity())


def main() -> None:
    """Make the tables, run the commands, print what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data/cifar10"))
    parser.add_argument("--recipe", default="recipes/cifar10.yaml")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="keep tables, weights and runs here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torchrelay-warm-start-") as scratch:
        folder = arguments.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        compare(arguments.data, arguments.recipe, arguments.epochs, folder)


def compare(data: Path, recipe: str, epochs: int, folder: Path) -> None:
    """Train on eight classes, then three times on ten."""
    eight, ten = write_tables(data, folder)
    common = ["--set", f"train.epochs={epochs}", "--set", f"data.files={data / 'images'}"]
    source = call(folder, "train", recipe, *common, "--set", f"data.table={eight}")
    all_ten = [recipe, *common, "--set", f"data.table={ten}"]
    save_as_others(Path(source["weights"]), folder / "theirs.pth")
    renames = [word for rename in RENAMES for word in ("--rename", rename)]
    runs = {
        "from scratch": call(folder, "train", *all_ten),
        "from the run on eight classes": call(
            folder, "finetune", *all_ten, "--from", source["run_id"]
        ),
        "from the file, renamed": call(
            folder, "finetune", *all_ten, "--from", str(folder / "theirs.pth"), *renames
        ),
    }
    curves = {name: accuracies(Path(run["run_dir"])) for name, run in runs.items()}
    print(
        f"\n| valid accuracy after epoch | {' | '.join(map(str, range(1, epochs + 1)))} | test "
        "accuracy |"
    )
    print("|---" * (epochs + 2) + "|")
    for name, curve in curves.items():
        cells = [*curve, runs[name]["metrics"]["test/accuracy"]]
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in cells)} |")
    for name, run in runs.items():
        report = Path(run["run_dir"]) / "transfer.csv"
        if report.exists():
            print(f"\n{name}, {report.name}:\n{report.read_text('utf-8')}", end="")


def write_tables(data: Path, folder: Path) -> tuple[Path, Path]:
    """The table with eight classes and the one with all, every tenth training row marked valid."""
    table = pd.read_csv(data / f"{data.name}.csv", dtype=str, na_filter=False)
    trains = table.index[table["split"] == "train"]
    table.loc[trains[::10], "split"] = "valid"
    paths = folder / "eight.csv", folder / "ten.csv"
    table[~table["label"].isin(LEFT_OUT)].to_csv(paths[0], index=False)
    table.to_csv(paths[1], index=False)
    return paths


def save_as_others(weights: Path, path: Path) -> None:
    """Save a net's weights under other names, as DataParallel has them."""
    state = load_weights(weights)
    net = LeNet(3, len(state["fc3.bias"]))
    net.load_state_dict(state)
    torch.save({"state_dict": nn.DataParallel(Theirs(net)).state_dict(), "epoch": 0}, path)


def call(folder: Path, *words: str) -> dict[str, Any]:
    """Run torchrelay; show the command and what it says of the weights; give its JSON."""
    print(f"$ torchrelay {shlex.join(words)}", flush=True)
    command = [str(Path(sys.executable).with_name("torchrelay")), *words, "--json"]
    environment = {**os.environ, "TORCHRELAY_HOME": str(folder / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    lines = done.stderr.splitlines()
    first = next((at for at, line in enumerate(lines) if line.startswith("warm start:")), None)
    if first is not None:
        last = next(at for at, line in enumerate(lines) if at > first and not line.startswith("  "))
        print("\n".join(lines[first:last]), flush=True)
    return json.loads(done.stdout)


def accuracies(run_dir: Path) -> list[float]:
    """Accuracy on the validation rows after each epoch, from the journal."""
    lines = [
        json.loads(line) for line in (run_dir / "journal.jsonl").read_text("utf-8").splitlines()
    ]
    return [
        line["values"]["valid/accuracy"]
        for line in lines
        if "valid/accuracy" in line.get("values", {})
    ]


if __name__ == "__main__":
    main()

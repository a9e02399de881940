from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchrelay.drafting import init_recipe
from torchrelay.flows.predict import predict
from torchrelay.flows.train import train
from torchrelay.recipe import load_recipe
from torchrelay.upkeep.trials import dry_run

pytestmark = pytest.mark.usefixtures("prefect_server")


def write_table(path: Path, num_rows: int) -> None:
    """Two numbers; the tags say whether each is positive, and "big" whether their sum is above
    2.
    """
    generator = np.random.default_rng(2)
    lines = ["a,b,tags,split"]
    for row in range(num_rows):
        a, b = generator.normal(0, 2, 2)
        tags = [tag for tag, has in {"right": a > 0, "up": b > 0, "big": a + b > 2}.items() if has]
        if row == num_rows - 1:
            tags.append("odd")  # which no training row has
        lines.append(
            f"{a:.4f},{b:.4f},{' ; '.join(tags)},{('train', 'train', 'valid', 'test')[row % 4]}"
        )
    path.write_text("\n".join(lines) + "\n")


def test_rows_of_several_tags_are_learned_drawn_and_predicted(tmp_path: Path) -> None:
    write_table(tmp_path / "tagged.csv", 240)
    path, draft = init_recipe(tmp_path / "tagged.csv", files=None, target="", force=False)
    assert draft.target["tags"].value == {"kind": "labels", "separator": ";"}
    overrides = {
        "train.epochs": 12,
        "train.batch_size": 8,
        "train.optimizer.args.lr": 0.02,
        "model.args.hidden": [16],
    }
    assert dry_run(load_recipe(path, None, overrides))["valid_loss"] > 0
    result = train(recipe_file=str(path), overrides=overrides)
    run_dir, metrics = Path(result["run_dir"]), result["metrics"]
    assert metrics["test/f1_micro"] > 0.9
    assert metrics["test/f1_micro_low"] < metrics["test/f1_micro"] < metrics["test/f1_micro_high"]
    assert {
        "test/f1_of/up",
        "test/recall_of/big",
        "test/auroc_of/right",
        "valid/hamming_loss",
    } <= set(metrics)
    figures = {file.name for file in (run_dir / "figures").iterdir()}
    assert figures == {"data.png", "curves.png", "tag_scores.png", "worst.png"}
    table = pd.read_csv(run_dir / "tables" / "tags.csv")
    assert table["tag"].tolist() == ["big", "right", "up"]
    assert (table["f1"] > 0.8).all()

    frame = pd.read_parquet(run_dir / "predictions.parquet")
    probabilities = frame[[f"probability/{tag}" for tag in ("big", "right", "up")]].to_numpy()
    joined = [
        ";".join(np.array(["big", "right", "up"])[row].tolist()) for row in probabilities > 0.5
    ]
    assert frame["prediction"].tolist() == joined
    exact = (frame["prediction"] == frame["target"]).mean()
    assert exact == pytest.approx(metrics["test/subset_accuracy"])
    assert "odd" not in set(frame["target"])

    (tmp_path / "new.csv").write_text("a,b\n5,5\n-5,-5\n4,-4\n")
    predict(source=result["run_id"], table=str(tmp_path / "new.csv"), out=str(tmp_path / "out.csv"))
    out = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert out["prediction"].tolist() == ["big;right;up", "", "right"]
    assert out["verdict"].tolist() == [""] * 3

from __future__ import annotations

import csv
import io

import pytest
import torch
from torch import Tensor, nn

from torchrelay.errors import RecipeError, SourceError
from torchrelay.recipe import WarmStart
from torchrelay.schema import AxisLabels
from torchrelay.weights.transfer import Entry, describe, plan_transfer, tabulate


def tensors(**values: list[float] | list[list[float]]) -> dict[str, Tensor]:
    return {key.replace("_", "."): torch.tensor(value) for key, value in values.items()}


def by_key(entries: list[Entry]) -> dict[str, Entry]:
    return {entry.key or entry.source_key: entry for entry in entries}


BODY = {"body_weight": [[1.0, 2.0]], "body_bias": [3.0]}
FRESH = {"body_weight": [[0.0, 0.0]], "body_bias": [0.0]}


def test_what_is_missing_surplus_excluded_or_of_another_shape_is_listed_and_stays_as_it_was() -> (
    None
):
    own = tensors(**FRESH, head_weight=[[0.5], [0.5]], extra_bias=[7.0], norm_bias=[8.0])
    source = tensors(**BODY, head_weight=[[9.0, 9.0]], old_bias=[4.0], norm_bias=[5.0])
    settings = WarmStart(exclude=["norm.*"], freeze=["body.*"])
    transfer = plan_transfer(own, source, settings, {}, "run x")
    entries = by_key(transfer.entries)
    assert {key: entry.what for key, entry in entries.items()} == {
        "body.weight": "loaded",
        "body.bias": "loaded",
        "head.weight": "mismatch",
        "extra.bias": "missing",
        "norm.bias": "excluded",
        "old.bias": "surplus",
    }
    assert [key for key, entry in entries.items() if entry.frozen] == ["body.weight", "body.bias"]
    assert (entries["head.weight"].shape, entries["head.weight"].source_shape) == ((2, 1), (1, 2))
    assert (entries["extra.bias"].source_key, entries["old.bias"].key) == ("", "")
    assert list(transfer.state) == list(own)
    assert transfer.state["body.weight"].tolist() == [[1.0, 2.0]]
    for key in ("head.weight", "extra.bias", "norm.bias"):
        assert torch.equal(transfer.state[key], own[key])


def test_rows_go_by_their_labels_whatever_their_order() -> None:
    own = tensors(**FRESH, head_weight=[[0.1], [0.2], [0.3]], head_bias=[0.1, 0.2, 0.3])
    source = tensors(**BODY, head_weight=[[10.0], [20.0], [30.0]], head_bias=[1.0, 2.0, 3.0])
    axis = {0: AxisLabels(["cat", "ant", "bee"], ["bee", "dog", "cat"])}
    transfer = plan_transfer(
        own, source, WarmStart(), {"head.weight": axis, "head.bias": axis}, "run x"
    )
    assert transfer.state["head.weight"].flatten().tolist() == pytest.approx([30.0, 0.2, 10.0])
    assert transfer.state["head.bias"].tolist() == pytest.approx([3.0, 0.2, 1.0])
    entry = by_key(transfer.entries)["head.weight"]
    assert (entry.what, entry.note) == ("grown", "2 of 3 rows, 1 of the source's 3 left")


def test_rows_and_columns_of_one_weight_may_both_have_labels() -> None:
    own = {"weight": torch.zeros(2, 3), "bias": torch.zeros(1)}
    source = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.ones(1)}
    axes = {0: AxisLabels(["new", "x"], ["x"]), 1: AxisLabels(["b", "c", "a"], ["a", "b"])}
    transfer = plan_transfer(own, source, WarmStart(), {"weight": axes}, "run x")
    assert transfer.state["weight"].tolist() == [[0, 0, 0], [2, 0, 1]]
    assert transfer.entries[0].note == "1 of 2 rows; 2 of 3 columns"


def test_without_labels_a_head_of_other_size_is_new_and_one_of_the_same_goes_by_position() -> None:
    axis = {0: AxisLabels(["a", "b"], [])}
    own = tensors(**FRESH, head_weight=[[0.1], [0.2]], other_weight=[[0.1], [0.2]])
    source = tensors(**BODY, head_weight=[[1.0], [2.0]], other_weight=[[1.0], [2.0], [3.0]])
    transfer = plan_transfer(
        own, source, WarmStart(), {"head.weight": axis, "other.weight": axis}, "run x"
    )
    entries = by_key(transfer.entries)
    assert (entries["head.weight"].what, entries["other.weight"].what) == ("loaded", "mismatch")
    assert "by position: the source does not say what its rows are" in entries["head.weight"].note
    assert transfer.state["head.weight"].flatten().tolist() == [1.0, 2.0]
    assert torch.equal(transfer.state["other.weight"], own["other.weight"])


def test_rows_without_a_common_label_or_that_cannot_be_told_apart_start_afresh() -> None:
    own, source = tensors(**FRESH, head_bias=[0.1]), tensors(**BODY, head_bias=[5.0])
    for axis in (AxisLabels(["a"], ["b"]), AxisLabels([], [])):
        transfer = plan_transfer(own, source, WarmStart(), {"head.bias": {0: axis}}, "run x")
        assert by_key(transfer.entries)["head.bias"].what == "fresh"
        assert torch.equal(transfer.state["head.bias"], own["head.bias"])


def test_labels_that_do_not_explain_the_sources_shape_are_no_reason_to_copy() -> None:
    own, source = tensors(**FRESH, head_bias=[0.1]), tensors(**BODY, head_bias=[5.0, 6.0, 7.0])
    labels = {"head.bias": {0: AxisLabels(["a"], ["a", "b"])}}
    transfer = plan_transfer(own, source, WarmStart(), labels, "run x")
    assert by_key(transfer.entries)["head.bias"].what == "mismatch"


def test_a_state_saved_under_data_parallel_loads_as_it_is() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    source = nn.DataParallel(net).state_dict()
    own = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).state_dict()
    transfer = plan_transfer(own, source, WarmStart(), {}, "file")
    assert {entry.what for entry in transfer.entries} == {"loaded"}
    assert all(torch.equal(transfer.state[key], value) for key, value in net.state_dict().items())


def test_a_tensor_takes_the_type_that_the_model_has_and_is_no_view_of_the_source() -> None:
    source = torch.tensor([1.5])
    transfer = plan_transfer(
        {"w": torch.zeros(1, dtype=torch.float64)}, {"w": source}, WarmStart(), {}, "file"
    )
    assert transfer.state["w"].dtype == torch.float64
    same = plan_transfer({"w": torch.zeros(1)}, {"w": source}, WarmStart(), {}, "file")
    source += 1
    assert same.state["w"].item() == 1.5


def test_a_source_from_which_nothing_loads_is_an_error_that_names_both_sides() -> None:
    with pytest.raises(
        SourceError, match=r"nothing of run x fits the model: it has a.w; the model has b.w"
    ):
        plan_transfer({"b.w": torch.zeros(1)}, {"a.w": torch.zeros(1)}, WarmStart(), {}, "run x")
    three, four = (
        nn.BatchNorm1d(size).state_dict() for size in (3, 4)
    )  # whose counters of batches fit each other
    with pytest.raises(SourceError, match=r"nothing of run x fits the model: weight is 3, there 4"):
        plan_transfer(three, four, WarmStart(), {}, "run x")
    with pytest.raises(RecipeError, match=r"warm_start.exclude: 'c.\*' fits no key of the model"):
        plan_transfer(
            {"b.w": torch.zeros(1)},
            {"b.w": torch.zeros(1)},
            WarmStart(exclude=["c.*"]),
            {},
            "run x",
        )


@pytest.mark.parametrize(
    ("own", "source", "exclude", "message"),
    [
        ((3, 4), (3, 2), [], r"a.w is 3x4, there 3x2; take the source's model and its arguments"),
        ((3, 4), (3, 4), ["a.*"], r"warm_start.exclude leaves out all that both have"),
    ],
)
def test_a_source_whose_keys_are_there_and_do_not_load_says_why(
    own: tuple[int, int], source: tuple[int, int], exclude: list[str], message: str
) -> None:
    """The counter of a batch norm, the same in all nets, is nothing that is learned."""
    mine, theirs = (
        {"a.w": torch.zeros(one), "b.num_batches_tracked": torch.tensor(7)} for one in (own, source)
    )
    with pytest.raises(SourceError, match=f"nothing of run x fits the model: {message}"):
        plan_transfer(mine, theirs, WarmStart(exclude=exclude), {}, "run x")


def test_the_report_is_a_csv_of_all_keys_and_a_summary_with_what_did_not_simply_load() -> None:
    entries = [
        Entry("a", "a", (2, 3), (2, 3), "loaded", "", frozen=True),
        Entry("b", "c", (), (), "renamed", "", frozen=False),
        Entry("head", "head", (4,), (3,), "grown", "3 of 4 rows", frozen=False),
        Entry("", "old", None, (1,), "surplus", "", frozen=False),
    ]
    lines = list(csv.reader(io.StringIO(tabulate(entries))))
    assert lines[0] == ["key", "source_key", "shape", "source_shape", "what", "note", "frozen"]
    assert lines[1:] == [
        ["a", "a", "2x3", "2x3", "loaded", "", "true"],
        ["b", "c", "()", "()", "renamed", "", "false"],
        ["head", "head", "4", "3", "grown", "3 of 4 rows", "false"],
        ["", "old", "", "1", "surplus", "", "false"],
    ]
    assert describe(entries, "run x") == [
        "warm start: 3 of 3 keys from run x: 1 loaded, 1 renamed, 1 grown, 1 surplus; 1 frozen",
        "  grown    head  3 -> 4  3 of 4 rows",
        "  surplus  old   1",
    ]
    assert describe(entries, "run x", most=1)[-1] == "  and 1 more, see transfer.csv"

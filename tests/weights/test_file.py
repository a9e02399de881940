"""Files of weights as people have them: each is recognised, read onto the CPU, and gives the
tensors that went in.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchrelay.engine import Progress, train
from torchrelay.engine.checkpoints import CheckpointStore, read_pointer
from torchrelay.errors import SourceError
from torchrelay.weights.file import (
    match_module_prefix,
    open_weights_file,
    prefix_of,
    read_weights_file,
    strip_module_prefix,
)
from torchrelay.weights.safetensors import write_safetensors
from torchrelay.weights.state import load_into, load_weights, save_pack, save_weights, sha256_of
from torchrelay.weights.torch_private import module_versions

from ..engine.conftest import MakeJob


def build_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def stepped(net: nn.Module) -> torch.optim.Optimizer:
    """An optimizer with a state: it has taken a step."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    net(torch.randn(5, 3, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    optimizer.step()
    return optimizer


NET, OTHER = build_net(), build_net(1)
OPTIMIZER = stepped(NET)
STATE, OTHER_STATE, OPTIMIZER_STATE = NET.state_dict(), OTHER.state_dict(), OPTIMIZER.state_dict()


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert type(found[key]) is Tensor
        assert found[key].dtype == value.dtype
        assert not found[key].requires_grad
        torch.testing.assert_close(found[key], value.detach(), rtol=0, atol=0)


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


CHECKPOINT = {
    "epoch": 3,
    "model_state_dict": STATE,
    "optimizer_state_dict": OPTIMIZER_STATE,
    "loss": torch.tensor(0.5),
    "scheduler": {"milestones": [1, 2]},
}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    ("value", "form", "state", "has_optimizer", "extras"),
    [
        (STATE, "state_dict", STATE, False, {}),
        (dict(NET.named_parameters()), "state_dict", dict(NET.named_parameters()), False, {}),
        (
            CHECKPOINT,
            "model_state_dict",
            STATE,
            True,
            {"epoch": 3, "loss": 0.5, "scheduler": {"milestones": [1, 2]}},
        ),
        (
            {
                "state_dict": below("model.", STATE),
                "optimizer_states": [OPTIMIZER_STATE],
                "epoch": 1,
            },
            "state_dict entry",
            below("model.", STATE),
            True,
            {"epoch": 1},
        ),
        ({"model": STATE, "optim": OPTIMIZER_STATE}, "model entry", STATE, True, {}),
        ({"ema": STATE}, "ema entry", STATE, False, {}),
        (
            {"model": {"state_dict": STATE}, "arch": "net"},
            "model > state_dict entry",
            STATE,
            False,
            {"arch": "net"},
        ),
        ({**STATE, "epoch": 7}, "state_dict", STATE, False, {"epoch": 7}),
        ({"net": STATE, "opt": OPTIMIZER_STATE}, "net entry", STATE, True, {}),
        ({"state_dict": {**STATE, "0._extra_state": None}}, "state_dict entry", STATE, False, {}),
    ],
)
def test_what_people_save_is_recognised_in_both_formats_of_torch_save(
    tmp_path: Path,
    value: Any,
    form: str,
    state: Any,
    has_optimizer: bool,
    extras: dict[str, Any],
    is_zip: bool,
) -> None:
    path = tmp_path / "weights.tar"
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    found = read_weights_file(path)
    assert found.form == form
    assert_same(found.state, state)
    assert list(found.models) == [""]
    assert found.extras == extras
    assert bool(found.optimizers) is has_optimizer
    if has_optimizer:
        again = torch.optim.AdamW(build_net().parameters(), lr=0.01)
        again.load_state_dict(found.optimizers[""])
        for mine, theirs in zip(again.state.values(), OPTIMIZER.state.values(), strict=True):
            torch.testing.assert_close(mine["exp_avg_sq"], theirs["exp_avg_sq"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("value", "form", "names", "optimizers"),
    [
        (
            {
                "modelA_state_dict": STATE,
                "modelB_state_dict": OTHER_STATE,
                "optimizerA_state_dict": OPTIMIZER_STATE,
                "optimizerB_state_dict": OPTIMIZER_STATE,
            },
            "several models",
            ["modelA", "modelB"],
            ["modelA", "modelB"],
        ),
        (
            {"generator": STATE, "discriminator": OTHER_STATE},
            "several models",
            ["generator", "discriminator"],
            [],
        ),
        ({"state_dict": STATE, "state_dict_ema": OTHER_STATE}, "state_dict entry", ["", "ema"], []),
        (
            {
                "netG": STATE,
                "netD": OTHER_STATE,
                "optimizerG": OPTIMIZER_STATE,
                "opt_d": OPTIMIZER_STATE,
            },
            "several models",
            ["netG", "netD"],
            ["netG", "netD"],
        ),
        (
            {"actor": STATE, "critic": OTHER_STATE, "actor_optimizer": OPTIMIZER_STATE},
            "several models",
            ["actor", "critic"],
            ["actor"],
        ),
    ],
)
def test_several_models_in_one_file_are_read_by_their_names(
    tmp_path: Path, value: Any, form: str, names: list[str], optimizers: list[str]
) -> None:
    path = tmp_path / "both.tar"
    torch.save(value, path)
    assert read_weights_file(path, names[1]).form == form
    assert_same(read_weights_file(path, names[0]).state, STATE)
    assert_same(read_weights_file(path, names[1]).state, OTHER_STATE)
    assert list(open_weights_file(path).optimizers) == optimizers
    with pytest.raises(SourceError, match=f"hold no model '{names[1]}x'; did you mean {names[1]}"):
        read_weights_file(path, f"{names[1]}x")
    if form == "several models":
        with pytest.raises(
            SourceError, match=rf"hold several models \({', '.join(sorted(names))}\); name one"
        ):
            load_weights(path)


def test_a_pack_keeps_each_model_with_its_optimizer_and_progress(tmp_path: Path) -> None:
    path = tmp_path / "both.pt"
    parts = {
        "a": {"model_state_dict": STATE, "optimizer_state_dict": OPTIMIZER_STATE, "epoch": 4},
        "b": {"model_state_dict": OTHER_STATE},
    }
    save_pack(parts, path)
    assert (
        torch.load(path, weights_only=True)["models"]["a"]["epoch"] == 4
    )  # torch alone reads it too
    found = read_weights_file(path, "a")
    assert found.form == "pack"
    assert_same(found.state, STATE)
    assert_same(read_weights_file(path, "b").state, OTHER_STATE)
    assert found.extras == {"a": {"epoch": 4}, "b": {}}
    assert list(found.optimizers) == ["a"]
    assert found.optimizers["a"]["param_groups"] == OPTIMIZER_STATE["param_groups"]
    torch.save({"torchrelay_pack": 99, "models": {}}, path)
    with pytest.raises(
        SourceError, match="format_version 99, this torchrelay reads format_version 1; a newer"
    ):
        open_weights_file(path)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_of_a_run_gives_the_weights_that_the_run_keeps(
    make_job: MakeJob, tmp_path: Path, ema: float
) -> None:
    job = make_job(epochs=2, ema=ema)
    train(
        job, Progress(), CheckpointStore(tmp_path / "checkpoints", 1, {}, {}), lambda *_, **__: None
    )
    folder = tmp_path / "checkpoints" / read_pointer(tmp_path / "checkpoints", "last")
    found = read_weights_file(folder / "state.pt")
    assert found.form == "torchrelay checkpoint"
    assert_same(found.state, job.kept_model.state_dict())
    if ema:
        assert_same(
            read_weights_file(folder / "state.pt", "trained").state, job.scorer.model.state_dict()
        )
    assert found.extras["epoch"] == 2
    assert {"scheduler_state_dict", "random_states"} & set(found.others)
    assert found.optimizers[""]["param_groups"]


def test_the_versions_of_modules_travel_with_a_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pt"
    torch.save(nn.DataParallel(NET).state_dict(), path)
    found = read_weights_file(path).state
    assert module_versions(found)["module.1"] == {"version": 2}
    stripped = module_versions(strip_module_prefix(found))
    assert (stripped["1"], stripped[""]) == ({"version": 2}, {"version": 1})


def test_weights_saved_under_data_parallel_load_into_the_net_and_back(tmp_path: Path) -> None:
    wrapped, path = nn.DataParallel(NET), tmp_path / "wrapped.pt"
    save_weights(wrapped.state_dict(), path)
    state = load_weights(path)
    assert prefix_of(state) == "module."
    plain = build_net(5)
    load_into(plain, state, "wrapped.pt")
    assert sha256_of(plain.state_dict()) == sha256_of(STATE)
    other = nn.DataParallel(build_net(6))
    load_into(other, STATE, "plain")
    assert sha256_of(other.module.state_dict()) == sha256_of(STATE)


def test_wrappers_in_wrappers_and_the_counter_of_an_average_are_matched() -> None:
    average = torch.optim.swa_utils.AveragedModel(nn.DataParallel(NET))
    assert "n_averaged" in average.state_dict()
    assert_same(match_module_prefix(average.state_dict(), STATE), STATE)
    compiled = below("module._orig_mod.", STATE)
    assert_same(match_module_prefix(compiled, STATE), STATE)
    assert_same(match_module_prefix(STATE, compiled), compiled)
    assert_same(match_module_prefix(below("module.", STATE), compiled), compiled)


def test_a_net_with_a_part_called_module_is_left_as_it_is() -> None:
    class Wrapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = build_net()

    state = Wrapping().state_dict()
    assert list(match_module_prefix(state, state)) == list(state)
    assert list(match_module_prefix({"a": STATE["0.weight"]}, state)) == ["a"]


@pytest.mark.gpu
def test_weights_saved_from_an_accelerator_load_on_the_cpu_and_back(tmp_path: Path) -> None:
    device = torch.accelerator.current_accelerator()
    net = build_net().to(device)
    torch.save({"model_state_dict": net.state_dict()}, tmp_path / "there.pt")
    state = load_weights(tmp_path / "there.pt")
    assert {value.device.type for value in state.values()} == {"cpu"}
    again = build_net(3).to(device)
    load_into(again, state, "there.pt")
    assert {value.device.type for value in again.state_dict().values()} == {device.type}
    assert sha256_of(again.state_dict()) == sha256_of(net.state_dict())


def test_a_file_that_says_that_it_comes_from_cuda_loads_without_one(tmp_path: Path) -> None:
    for is_zip in (True, False):
        torch.save(STATE, tmp_path / "there.pt", _use_new_zipfile_serialization=is_zip)
        if (
            is_zip
        ):  # the device stands in the pickle, and the pickle has a checksum: write the archive anew
            with zipfile.ZipFile(tmp_path / "there.pt") as old:
                records = {name: old.read(name) for name in old.namelist()}
            with zipfile.ZipFile(tmp_path / "there.pt", "w") as new:
                for name, content in records.items():
                    new.writestr(name, content.replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:7"))
        else:
            content = (
                (tmp_path / "there.pt").read_bytes().replace(b"\x03\0\0\0cpu", b"\x06\0\0\0cuda:7")
            )
            (tmp_path / "there.pt").write_bytes(content)
        assert b"cuda:7" in (tmp_path / "there.pt").read_bytes()
        assert_same(load_weights(tmp_path / "there.pt"), STATE)


def test_tensors_of_every_layout_keep_their_values(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    shared = torch.arange(5)
    state = {
        "transposed": base.t(),
        "part": base[1:3, 2:4],
        "one": shared,
        "same": shared,
        "scalar": torch.tensor(3, dtype=torch.int64),
        "none": torch.zeros(0, 3),
        "bool": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "small": torch.tensor([1, 65535], dtype=torch.uint16),
        "complex": torch.tensor([1 + 2j]),
    }
    torch.save(state, tmp_path / "odd.pt")
    assert_same(load_weights(tmp_path / "odd.pt"), state)


def test_safetensors_written_by_hand_are_read(tmp_path: Path) -> None:
    # By the published format: length, JSON, bytes; the header's length puts the floats at an odd
    # address.
    header = {
        "__metadata__": {"by": "hand"},
        "weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [2, 18]},
        "flag": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    text += b" " * (1 - len(text) % 2)
    data = bytes([1, 0]) + struct.pack("<4f", 1.0, 2.0, 3.0, -0.5)
    (tmp_path / "net.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    found = read_weights_file(tmp_path / "net.safetensors")
    assert found.form == "safetensors"
    assert found.extras == {"by": "hand"}
    assert found.state["weight"].tolist() == [[1.0, 2.0], [3.0, -0.5]]
    assert found.state["flag"].tolist() == [True, False]


def test_safetensors_that_are_written_follow_the_published_format(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    write_safetensors(STATE, path, {"source": "here"})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert header.pop("__metadata__") == {"format": "pt", "source": "here"}
    position = 0
    for key, entry in header.items():  # one behind the other, in the header's order
        start, end = entry["data_offsets"]
        assert start == position
        position = end
        values = np.frombuffer(
            content[8 + length + start : 8 + length + end],
            {"F32": "<f4", "I64": "<i8"}[entry["dtype"]],
        )
        np.testing.assert_array_equal(values.reshape(entry["shape"]), STATE[key].numpy())
    assert position == len(content) - 8 - length
    found = load_weights(path)
    assert_same({key: found[key] for key in STATE}, STATE)
    with pytest.raises(
        SourceError, match=r"'w' is torch\.complex128, which safetensors do not have"
    ):
        write_safetensors({"w": torch.zeros(1, dtype=torch.complex128)}, path, {})


def onnx(path: Path) -> None:
    path.write_bytes(b"\x08\x08\x12\x07pytorch" + bytes(40))


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, w=np.zeros(3))


def script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)


def program(path: Path) -> None:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), buffer)
    path.write_bytes(buffer.getvalue())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda path: path.write_bytes(b""), "empty; fetch or save it again"),
        (lambda path: path.write_text("epoch,loss\n1,0.5\n"), "text that begins with 'epoch,loss"),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "a pointer of Git LFS",
        ),
        (lambda path: path.write_text("<!DOCTYPE html><p>not found"), "a web page"),
        (
            lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)),
            r"an HDF5 file \(Keras, h5py\)",
        ),
        (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(99)), "compressed by gzip; unpack it"),
        (lambda path: path.write_bytes(bytes(range(128, 228))), "of no kind that is known here"),
        (
            lambda path: path.write_bytes(b"\x80\x04]\x94."),
            "a plain pickle, not written by torch.save",
        ),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "a NumPy array"),
        (lambda path: path.mkdir(), "a folder; name a weights file"),
        (lambda path: None, "do not exist"),
        (
            lambda path: torch.save([1, 2], path),
            "expected a state_dict, or a dict that has one, got list",
        ),
        (lambda path: torch.save({}, path), "got keys none"),
        (lambda path: torch.save({"epoch": 3}, path), "got keys 'epoch'"),
        (lambda path: torch.save(torch.zeros(3), path), "got Tensor"),
        (
            lambda path: torch.save(OPTIMIZER_STATE, path),
            "the state of an optimizer alone, .*--with-optimizer",
        ),
        (
            lambda path: torch.save(STATE, path, pickle_protocol=4),
            "torch's safe loader does not read.*save it again",
        ),
        (
            lambda path: torch.save({**STATE, "best": np.float64(0.5)}, path),
            r"build numpy\._core\.multiarray\.scalar",
        ),
        (
            lambda path: torch.save({"w": torch.eye(2).to_sparse()}, path),
            r"build torch\._utils\._rebuild_sparse_tensor",
        ),
        (onnx, "an ONNX graph"),
        (npz, r"a NumPy archive \(\.npz\)"),
        (script, "a TorchScript archive, which carries code"),
        (program, r"an exported program of torch\.export"),
    ],
)
def test_a_file_that_is_no_weights_is_named_as_what_it_is(
    tmp_path: Path, write: Callable, what: str
) -> None:
    path = tmp_path / "weights.pt"
    write(path)
    with pytest.raises(SourceError, match=what):
        read_weights_file(path)


def test_a_folder_names_the_weights_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    save_weights(STATE, tmp_path / "net" / "best.pt")
    with pytest.raises(SourceError, match=r"a folder; name one of best\.pt"):
        read_weights_file(tmp_path / "net")


def test_a_file_of_torch_save_under_the_name_of_safetensors_is_not_given_to_another_reader(
    tmp_path: Path,
) -> None:
    path = tmp_path / "net.safetensors"
    torch.save(STATE, path)
    with pytest.raises(
        SourceError, match=r"a file of torch\.save under the name of safetensors; rename it"
    ):
        read_weights_file(path)

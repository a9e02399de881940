from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from torchrelay.engine.hardware.devices import (
    fingerprint,
    list_devices,
    pick_device,
    pick_precision,
)
from torchrelay.engine.hardware.randomness import random_states, set_random_states
from torchrelay.errors import DeviceError

CPU = torch.device("cpu")


def test_the_cpu_is_always_there() -> None:
    assert list_devices()[-1] == "cpu"
    assert pick_device("cpu") == CPU
    assert pick_device("auto") == torch.device(list_devices()[0])


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cpu:1", ""])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"train\.device: .*'{name}'; it has .*cpu"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_is_refused_where_there_is_none() -> None:
    for name in ("cuda", "cuda:0"):
        with pytest.raises(DeviceError, match=rf"'{name}'; it has (mps, )?cpu"):
            pick_device(name)


def test_precision_says_what_to_compute_in() -> None:
    assert pick_precision("fp32", CPU, has_images=True) == ("fp32", torch.float32, None)
    assert pick_precision("bf16", CPU, has_images=False) == ("bf16", torch.float32, torch.bfloat16)
    assert pick_precision("fp64", CPU, has_images=True) == ("fp64", torch.float64, None)


def test_auto_is_bf16_for_images_where_the_processor_multiplies_it() -> None:
    assert pick_precision("auto", CPU, has_images=False).name == "fp32"
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = bool(capabilities.get("amx_tile") or capabilities.get("avx512_bf16"))
    assert pick_precision("auto", CPU, has_images=True).name == ("bf16" if has_bf16 else "fp32")


def test_what_a_device_cannot_compute_in_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"mps computes nothing in fp64; use fp32"):
        pick_precision("fp64", torch.device("mps"), has_images=False)
    with pytest.raises(DeviceError, match=r"'fp8' is no precision"):
        pick_precision("fp8", CPU, has_images=False)


@pytest.mark.gpu
def test_an_accelerator_is_preferred() -> None:
    device = pick_device("auto")
    assert device.type != "cpu"
    assert torch.ones(2, device=device).sum().item() == 2
    assert fingerprint(device)["device"] == device.type


def test_the_fingerprint_holds_what_the_bits_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(CPU)
    assert before == fingerprint(CPU)
    assert (
        before["torch"] == torch.__version__.partition("+")[0]
        or before["torch"] == torch.__version__
    )
    assert before["num_threads"] == str(torch.get_num_threads())
    assert all(isinstance(value, str) for value in before.values())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert {key for key, value in fingerprint(CPU).items() if value != before[key]} == {
        "ONEDNN_MAX_CPU_ISA"
    }


def test_a_fingerprint_does_not_import_torchvision() -> None:
    code = (
        "import sys, torch; from torchrelay.engine.hardware.devices import fingerprint; "
        "assert fingerprint(torch.device('cpu'))['torchvision']; assert 'torchvision' not in "
        "sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_fp16_is_for_cuda_alone() -> None:
    with pytest.raises(
        DeviceError,
        match=r"train\.precision: fp16 needs CUDA and its loss scaler, not cpu; use auto",
    ):
        pick_precision("fp16", CPU, has_images=True)


@pytest.mark.parametrize("num_here", [1, 3])
def test_the_random_states_of_the_devices_that_are_here_are_restored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, num_here: int
) -> None:
    states = {
        **random_states(),
        "cuda": [torch.zeros(16, dtype=torch.uint8), torch.ones(16, dtype=torch.uint8)],
    }
    restored: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_here)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    common = min(2, num_here)
    with pytest.warns(
        UserWarning, match=f"of 2 CUDA devices, {num_here} are here: those of {common} are restored"
    ):
        set_random_states(states)
    assert len(restored) == common


@pytest.mark.gpu
def test_the_number_of_cuda_devices_is_part_of_the_fingerprint() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA")
    assert fingerprint(torch.device("cuda:0"))["num_devices"] == str(torch.cuda.device_count())

"""Which device and which number format a run computes in, and the
fingerprint of what its bits depend on.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from ...errors import DeviceError
from ...recipe import nearest

PRECISIONS = ("auto", "bf16", "fp16", "fp32", "fp64")


class Precision(NamedTuple):
    """A number format to train in.

    Attributes:
        name: bf16, fp16, fp32 or fp64.
        dtype: of the inputs (where they are floats), the target's numbers and the weights.
        autocast: what `torch.autocast` computes in; None means that it stays off.
    """

    name: str
    dtype: torch.dtype
    autocast: torch.dtype | None


BF16 = Precision("bf16", torch.float32, torch.bfloat16)
FP16 = Precision("fp16", torch.float32, torch.float16)
FP32 = Precision("fp32", torch.float32, None)
FP64 = Precision("fp64", torch.float64, None)


def list_devices() -> list[str]:
    """Names of the devices of this machine, the ones that auto prefers
    first.
    """
    cuda = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def pick_device(name: str) -> torch.device:
    """Find the device that a recipe names.

    Args:
        name: auto (CUDA, else MPS, else the CPU), cpu, cuda (the first), cuda:1 or mps.
    Raises:
        DeviceError: this machine has no such device; names those that it has.
    """
    devices = list_devices()
    if name == "auto":
        return torch.device(devices[0])
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in devices:
        raise DeviceError(
            f"train.device: this machine has no device {name!r}; it has {', '.join(devices)} (or "
            "write auto)"
        )
    return torch.device(wanted)


def pick_precision(precision: str, device: torch.device, has_images: bool) -> Precision:
    """Find the number format that a recipe names.

    auto is bf16 for image inputs where the hardware multiplies it faster than fp32 (CUDA from
    compute capability 8.0, CPUs with AMX or AVX-512 BF16), else fp32: nets over a few columns gain
    nothing from it and lose digits.

    Args:
        precision: auto, bf16, fp16, fp32 or fp64.
        device: where the run computes.
        has_images: whether an input is an image.
    Raises:
        DeviceError: the device cannot compute in it, or there is no such format.
    """
    if precision not in PRECISIONS:
        raise DeviceError(
            f"train.precision: {precision!r} is no precision; {nearest(precision, PRECISIONS)}"
        )
    if precision == "bf16" and device.type == "cuda" and not _cuda_has_bf16(device):
        raise DeviceError(
            f"train.precision: {device} ({_device_name(device)}) has no bf16; use fp32 or auto"
        )
    if precision == "fp16" and device.type != "cuda":
        raise DeviceError(
            f"train.precision: fp16 needs CUDA and its loss scaler, not {device}; use auto, bf16 "
            "or fp32"
        )
    if precision == "fp64" and device.type == "mps":
        raise DeviceError(
            "train.precision: mps computes nothing in fp64; use fp32, or train.device: cpu"
        )
    if precision == "auto":
        return BF16 if has_images and _is_faster_in_bf16(device) else FP32
    return {"bf16": BF16, "fp16": FP16, "fp32": FP32, "fp64": FP64}[precision]


def fingerprint(device: torch.device) -> dict[str, str]:
    """All that decides the bits of a training run beside its recipe, data and
    state.

    Two runs are promised the same bits where their fingerprints are equal.
    """
    facts = {name: version(name) for name in ("torch", "torchvision", "numpy")}
    facts |= {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "num_threads": str(torch.get_num_threads()),
        "cpu": _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "ATEN_CPU_CAPABILITY": os.environ.get("ATEN_CPU_CAPABILITY", ""),
        "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        "device": device.type,
        "device_name": _device_name(device),
    }
    if device.type == "cuda":
        facts |= {
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
            "num_devices": str(torch.cuda.device_count()),
        }
    return facts


def _is_faster_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return _cuda_has_bf16(device)
    # Steps of a batch of 64 in channels_last, images/s in fp32 and bf16: with AMX, ResNet-18 at 64
    # pixels 178 and 303, cifar_net 13,300 and 17,900; with AVX-512 BF16 alone, ResNet-18 at 64
    # pixels 296 and 488, at 32 pixels 761 and 885, cifar_net 22,500 and 22,700 (batch 512: 22,400
    # and 29,000). Without either, bf16 is emulated.
    can = torch.cpu.get_capabilities()
    has_bf16 = can.get("amx_tile", False) or can.get("avx512_bf16", False)
    return device.type == "cpu" and has_bf16


def _cuda_has_bf16(device: torch.device) -> bool:
    # Older cards emulate it, slowly, and `torch.cuda.is_bf16_supported` says yes to that.
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

"""The engines that a kernel test runs on, behind one signature: numpy arrays in, numpy arrays out."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os

import numpy as np
import pytest
from emulator import SANITIZER, EmulatedDevice

import tokamask.sampling

# A sanitized process runs few variants, because each costs seconds of g++; EMULATOR_THOROUGH runs all. Under the thread sanitizer, which is 100 times
# slower, values are not what is tested: it has the tests marked `sanitized`, which notice every missing barrier, and all listed variants.
QUICK = SANITIZER == "tsan" or (bool(SANITIZER) and not os.environ.get("EMULATOR_THOROUGH"))


def to_bf16(x) -> np.ndarray:
    """The nearest bfloat16 as uint16 bits, ties to even."""
    u = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return np.where(np.isnan(x), 0x7FC0, (u + 0x7FFF + (u >> 16 & 1)) >> 16).astype(np.uint16)


def cast(x, element: str) -> np.ndarray:
    return {
        "f32": lambda: np.asarray(x, np.float32),
        "f16": lambda: np.asarray(x, np.float16),
        "bf16": lambda: to_bf16(x),
    }[element]()


def reference(name: str):
    """A module of definitions, or a skip."""
    return pytest.importorskip(f"tokamask.reference.{name}", reason=f"no definition in reference/{name}.py")


TOLERANCE = {
    "f32": {"rtol": 2e-5, "atol": 2e-6},
    "f16": {"rtol": 2e-3, "atol": 1e-4},
    "bf16": {"rtol": 1.6e-2, "atol": 1e-3},
}
# Tensor cores take the softmax's weights in the element type: half a unit in their last place, times values of about 1.
TENSOR_TOLERANCE = {
    "f32": TOLERANCE["f32"],
    "f16": {"rtol": 2e-3, "atol": 1e-3},
    "bf16": {"rtol": 1.6e-2, "atol": 8e-3},
}


class Emulator:
    """The kernel sources on the CPU, through the launch code that CUDA uses."""

    def __init__(self, arch: int = 90) -> None:
        self.device = EmulatedDevice(arch)

    def call(self, module: str, function: str, *args, **kwargs):
        return getattr(importlib.import_module(f"tokamask.gpu.{module}"), function)(
            self.device, *args, **kwargs
        )

    def apply_bitmask(self, logits, bitmask, rows) -> None:
        self.call("sampling", "apply_bitmask", logits, bitmask, rows)


class Rust:
    """The public functions on numpy arrays."""

    def call(self, module: str, function: str, *args, **kwargs):
        public = importlib.import_module(f"tokamask.{module}")
        if not hasattr(public, function):
            pytest.skip(f"no {function} on the CPU")
        return getattr(public, function)(*args, **kwargs)

    def apply_bitmask(self, logits, bitmask, rows) -> None:
        tokamask.sampling.apply_bitmask(logits, bitmask, rows)


class Gpu:
    """The kernels on a CUDA device, through the public functions on CuPy arrays."""

    def call(self, module: str, function: str, *args, **kwargs):
        import cupy

        def to(x):
            return cupy.asarray(x) if isinstance(x, np.ndarray) else x

        public = getattr(importlib.import_module(f"tokamask.{module}"), function)
        result = public(*map(to, args), **{k: to(v) for k, v in kwargs.items()})
        return tuple(map(cupy.asnumpy, result)) if isinstance(result, tuple) else cupy.asnumpy(result)

    def apply_bitmask(self, logits, bitmask, rows) -> None:
        import cupy

        there = cupy.asarray(logits)
        tokamask.sampling.apply_bitmask(there, cupy.asarray(bitmask), cupy.asarray(rows))
        logits[...] = cupy.asnumpy(there)


@functools.cache
def gpu_present() -> bool:
    try:
        import cupy
    except ImportError:
        return False
    return bool(cupy.cuda.is_available())


def engine_parameters():
    """Emulator always; Rust unless the emulator is sanitized; the GPU behind its marker."""
    yield pytest.param(Emulator, id="emulator")
    if not SANITIZER:
        if importlib.util.find_spec("tokamask.selection"):
            yield pytest.param(Rust, id="rust")
        yield pytest.param(
            Gpu,
            id="gpu",
            marks=[pytest.mark.gpu, pytest.mark.skipif(not gpu_present(), reason="no CUDA device with CuPy")],
        )


@pytest.fixture(params=list(engine_parameters()))
def engine(request):
    return request.param()

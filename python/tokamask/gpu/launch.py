"""CUDA devices: loading kernels and launching them on the caller's stream. The only module that imports CuPy, and only
when a kernel is first launched.

A launch allocates nothing itself, never synchronises and reads nothing back, so it may be captured in a CUDA graph once
:func:`warm_up` (or one call) has loaded the kernels. Results and workspaces come from the caller's library: torch's allocator
for torch tensors, CuPy's pool for CuPy arrays.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokamask.errors import KernelError, ShapeError
from tokamask.gpu.arrays import Operand, is_cuda, operand
from tokamask.gpu.device import Argument, Device
from tokamask.gpu.manifest import Defines, flatten, kernels

_cubins: Path | None = None
_lock = threading.Lock()
_loaded: dict[tuple[int, str, Defines], Any] = {}


def use_cubins(folder: str | Path | None) -> None:
    """Load kernels from cubins made by ``python -m tokamask.gpu.build`` instead of compiling them.

    A kernel, variant or architecture that the folder lacks, or whose source has changed since, is compiled as before.
    ``None`` goes back to compiling everything.
    """
    global _cubins
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"no folder of cubins: {folder}")
    with _lock:
        _cubins = None if folder is None else Path(folder)
        _loaded.clear()


def cubin_name(kernel: str, defines: Defines, arch: str) -> str:
    """The file name of a variant; it holds a hash of the flat source, so a stale cubin is never loaded."""
    variant = "-".join(f"{name.lower()}_{value}" for name, value in defines)
    digest = hashlib.sha256(flatten(kernels()[kernel].file).encode()).hexdigest()[:12]
    return f"{kernel}-{variant}-{arch}-{digest}.cubin" if variant else f"{kernel}-{arch}-{digest}.cubin"


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise KernelError(
            "CUDA arrays need CuPy: pip install 'tokamask[cuda13]' (or cuda12)", kernel="", arch=""
        ) from error
    if not cupy.cuda.is_available():
        raise KernelError("CuPy finds no CUDA device or driver", kernel="", arch="")
    return cupy


def device_name(index: int = 0) -> str:
    """What the driver calls a GPU; raises :class:`KernelError` where there is none."""
    return str(_cupy().cuda.runtime.getDeviceProperties(index)["name"].decode())


class CudaDevice:
    """One GPU, for callers of one array library."""

    def __init__(self, index: int, library: str) -> None:
        self._cupy = _cupy()
        self._index, self._library = index, library
        attributes = self._cupy.cuda.Device(index).attributes
        self._multiprocessors = int(attributes["MultiProcessorCount"])
        self._arch = "sm_" + self._cupy.cuda.Device(index).compute_capability

    @property
    def multiprocessors(self) -> int:
        """Of the device."""
        return self._multiprocessors

    @property
    def arch(self) -> int:
        """Of the device."""
        return int(self._arch[3:])

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """Uninitialised, from torch's allocator or CuPy's pool."""
        if self._library == "torch":
            import torch

            return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=f"cuda:{self._index}")
        with self._cupy.cuda.Device(self._index):
            return self._cupy.empty(tuple(shape), dtype="uint16" if dtype == "bfloat16" else dtype)

    def launch(
        self,
        kernel: str,
        entry: str,
        defines: Mapping[str, object],
        grid: Sequence[int],
        threads: int,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        """Runs on the current stream of the caller's library."""
        variant = tuple((name, str(value)) for name, value in defines.items())
        function = self._module(kernel, variant).get_function(entry)
        if shared_bytes > 48 * 1024:
            function.max_dynamic_shared_size_bytes = shared_bytes
        values = [self._value(a) for a in arguments]
        blocks = (*grid, 1, 1)[:3]
        with self._stream():
            function(blocks, (threads,), tuple(values), shared_mem=shared_bytes)

    @staticmethod
    def _value(argument: Argument) -> Any:
        # CuPy passes a 64-bit integer where the kernel takes a pointer, which spares a DLPack round trip and bfloat16 views.
        if argument is None:
            return np.uint64(0)
        if not isinstance(argument, Operand):
            return argument
        if not is_cuda(argument.owner):
            name = argument.name
            raise ShapeError(
                f"{name}: expected a CUDA array, got a host array", name=name, expected="CUDA", got="host"
            )
        return np.uint64(argument.pointer)

    def _stream(self) -> contextlib.AbstractContextManager[Any]:
        stack = contextlib.ExitStack()
        stack.enter_context(self._cupy.cuda.Device(self._index))
        if self._library == "torch":
            import torch

            pointer = torch.cuda.current_stream(self._index).cuda_stream
            stack.enter_context(self._cupy.cuda.ExternalStream(pointer, device_id=self._index))
        return stack

    def _module(self, kernel: str, defines: Defines) -> Any:
        key = (self._index, kernel, defines)
        with _lock:
            if key not in _loaded:
                _loaded[key] = self._load(kernel, defines)
            return _loaded[key]

    def _load(self, kernel: str, defines: Defines) -> Any:
        described = kernels()[kernel]
        described.check(defines)
        if self.arch < described.minimum_arch:
            raise KernelError(f"{kernel} needs sm_{described.minimum_arch}", kernel=kernel, arch=self._arch)
        if _cubins is not None:
            path = _cubins / cubin_name(kernel, defines, self._arch)
            if path.is_file():
                return self._cupy.RawModule(path=str(path))
        flags = ("--std=c++17", "-default-device", *(f"-D{name}={value}" for name, value in defines))
        module = self._cupy.RawModule(code=flatten(described.file), options=flags, backend="nvrtc")
        try:
            with self._cupy.cuda.Device(self._index):
                module.compile()
        except self._cupy.cuda.compiler.CompileException as error:
            raise KernelError(
                f"{kernel} does not compile for {self._arch}", kernel=kernel, arch=self._arch, log=str(error)
            ) from error
        return module


@functools.cache
def _device(index: int, library: str) -> CudaDevice:
    return CudaDevice(index, library)


def device_of(array: Any) -> CudaDevice:
    """The device of a torch or CuPy array on CUDA."""
    if callable(getattr(array, "data_ptr", None)):
        return _device(int(array.device.index or 0), "torch")
    return _device(int(array.device.id), "cupy")


class CudaBoard:
    """The first GPU with a clock, for :mod:`tokamask.gpu.selftest`."""

    def __init__(self) -> None:
        self.device: Device = _device(0, "cupy")
        self._cupy = _cupy()

    def upload(self, array: Any) -> Any:
        """A CuPy array."""
        return self._cupy.asarray(array)

    def download(self, array: Any) -> Any:
        """A numpy array."""
        return self._cupy.asnumpy(array)

    def seconds(self, run: Callable[[], Any]) -> float:
        """The middle of nine times of ten runs, by the device's own clock; two runs come before."""
        run(), run()
        times = []
        for _ in range(9):
            begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
            begin.record()
            for _ in range(10):
                run()
            end.record()
            end.synchronize()
            times.append(self._cupy.cuda.get_elapsed_time(begin, end) / 10e3)
        return float(sorted(times)[4])

    def bandwidth(self) -> float:
        """Of copying a quarter of a gigabyte."""
        source = self._cupy.ones(1 << 26, "float32")
        target = self._cupy.empty_like(source)

        def copy() -> None:
            target[...] = source

        return float(2 * source.nbytes / self.seconds(copy))


def warm_up(device: CudaDevice, variants: Iterable[tuple[str, dict[str, object]]] | None = None) -> int:
    """Compiles and loads kernels so that no later launch has to: needed before capturing a CUDA graph.

    Parameters
    ----------
    device : CudaDevice
        From :func:`device_of`.
    variants : iterable of (kernel, defines), optional
        Everything the manifest lists unless given (minutes when nothing is cached).

    Returns
    -------
    int
        How many modules are ready.

    """
    wanted: list[tuple[str, Defines]] = (
        [(k.name, v) for k in kernels().values() for v in k.variants()]
        if variants is None
        else [(name, tuple((n, str(v)) for n, v in defines.items())) for name, defines in variants]
    )
    for kernel, defines in wanted:
        device._module(kernel, defines)
    return len(wanted)


__all__ = ["CudaDevice", "cubin_name", "device_of", "operand", "use_cubins", "warm_up"]

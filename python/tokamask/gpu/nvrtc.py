"""NVIDIA's run-time compiler through ctypes: source to cubin without a GPU, a driver or a toolkit."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from tokamask.errors import KernelError
from tokamask.gpu.manifest import Defines, Kernel, flatten

OPTIONS = ("--std=c++17", "-default-device", "--ptxas-options=-v", "--ptxas-options=-warn-spills")


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one entry: bytes where the name does not say registers."""

    registers: int
    spills: int
    shared: int
    stack: int


@dataclass(frozen=True)
class Compiled:
    """A cubin, the usage of each entry, and the compiler's log."""

    cubin: bytes
    usage: dict[str, Usage]
    log: str


@functools.cache
def library() -> ctypes.CDLL:
    """Loads libnvrtc: from the package nvidia-cuda-nvrtc, else from the system's search path."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        for path in sorted(folder.glob("**/libnvrtc.so.*"), reverse=True):
            if "builtins" not in path.name and ".alt." not in path.name:
                return ctypes.CDLL(str(path))
    for name in ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise KernelError("NVRTC is not installed: pip install nvidia-cuda-nvrtc", kernel="", arch="")


def version() -> tuple[int, int]:
    """Of the loaded NVRTC."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def supported_architectures() -> list[int]:
    """Compute capabilities times ten that this NVRTC compiles for."""
    count = ctypes.c_int()
    library().nvrtcGetNumSupportedArchs(ctypes.byref(count))
    archs = (ctypes.c_int * count.value)()
    library().nvrtcGetSupportedArchs(archs)
    return list(archs)


def options(defines: Defines) -> list[str]:
    """Compiler options of a variant, the architecture left out."""
    return [*OPTIONS, *(f"-D{name}={value}" for name, value in defines)]


def compile_kernel(kernel: Kernel, defines: Defines, arch: str) -> Compiled:
    """Compiles one variant for one architecture (``"sm_90"``); :class:`KernelError` carries the log if that fails."""
    kernel.check(defines)
    if int(re.sub(r"\D", "", arch)) < kernel.minimum_arch:
        raise KernelError(
            f"{kernel.name} needs sm_{kernel.minimum_arch}, not {arch}", kernel=kernel.name, arch=arch
        )
    return compile_source(flatten(kernel.file), kernel.name, options(defines), arch)


def compile_source(source: str, name: str, flags: list[str], arch: str) -> Compiled:
    """Compiles a flat source."""
    lib = library()
    program = ctypes.c_void_p()
    lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), f"{name}.cu".encode(), 0, None, None)
    try:
        arguments = [f"--gpu-architecture={arch}".encode(), *(o.encode() for o in flags)]
        status = lib.nvrtcCompileProgram(
            program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)
        )
        log = _text(lib.nvrtcGetProgramLogSize, lib.nvrtcGetProgramLog, program).decode(errors="replace")
        if status != 0:
            raise KernelError(f"{name} does not compile for {arch}:\n{log}", kernel=name, arch=arch, log=log)
        return Compiled(_text(lib.nvrtcGetCUBINSize, lib.nvrtcGetCUBIN, program), read_usage(log), log)
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))


def _text(get_size: ctypes._CFuncPtr, get: ctypes._CFuncPtr, program: ctypes.c_void_p) -> bytes:  # type: ignore[name-defined]
    size = ctypes.c_size_t()
    get_size(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    get(program, buffer)
    return buffer.raw


def read_usage(log: str) -> dict[str, Usage]:
    """Registers, spills and shared memory of each entry from ptxas's verbose log."""
    usage = {}
    for block in re.split(r"Compiling entry function '", log)[1:]:
        name = block.split("'")[0]
        number = {
            key: int(match.group(1)) if (match := re.search(pattern, block)) else 0
            for key, pattern in {
                "registers": r"Used (\d+) registers",
                "stores": r"(\d+) bytes spill stores",
                "loads": r"(\d+) bytes spill loads",
                "shared": r"(\d+) bytes smem",
                "stack": r"(\d+) bytes stack frame",
            }.items()
        }
        usage[name] = Usage(
            number["registers"], number["stores"] + number["loads"], number["shared"], number["stack"]
        )
    return usage

"""Runs the kernel sources on the CPU: a :class:`Device` whose arrays are numpy's. See README.md beside this file."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Sequence

import numpy as np

from tokamask.gpu.arrays import Operand
from tokamask.gpu.manifest import flatten, kernels

HERE = pathlib.Path(__file__).parent
CUDA = HERE.parent.parent / "cuda"
FLAGS = {
    "": ["-O1"],
    "asan": [
        "-O0",
        "-g",
        "-fsanitize=address,undefined",
        "-fsanitize-sections=emu_shared",
        "-fno-sanitize-recover=undefined",
    ],
    "tsan": ["-O1", "-g", "-fsanitize=thread"],
}
SCALARS = {
    "int": ctypes.c_int32,
    "unsigned int": ctypes.c_uint32,
    "long int": ctypes.c_int64,
    "long unsigned int": ctypes.c_uint64,
    "float": ctypes.c_float,
}
SANITIZER = os.environ.get("EMULATOR_SANITIZER", "")


def preload(sanitizer: str) -> dict[str, str]:
    """The environment in which a Python process can load code built with the sanitizer."""

    def library(name: str) -> str:
        return subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()

    if sanitizer == "asan":
        libraries = ":".join(map(library, ("libasan.so", "libubsan.so", "libstdc++.so.6")))
        options = {
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return {"LD_PRELOAD": libraries, "EMULATOR_SANITIZER": "asan", **options}
    if sanitizer == "tsan":
        return {
            "LD_PRELOAD": library("libtsan.so"),
            "EMULATOR_SANITIZER": "tsan",
            "TSAN_OPTIONS": "halt_on_error=1:exitcode=66",
        }
    return {}


def entry_names(source: str) -> list[str]:
    """The ``extern "C" __global__`` functions of a source."""
    bounds = r"(?:__launch_bounds__\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*)?"
    return re.findall(r'extern\s+"C"\s+__global__\s+void\s+' + bounds + r"(\w+)\s*\(", source)


def source_of(path: pathlib.Path) -> str:
    """The flat source of a kernel, without the n-th barrier if ``EMULATOR_MUTANT=name:n`` names it."""
    source = flatten(path.name, path.parent)
    name, _, n = os.environ.get("EMULATOR_MUTANT", "").partition(":")
    return remove_barrier(source, int(n)) if name == path.stem else source


def remove_barrier(source: str, n: int) -> str:
    """The source with its n-th block or warp barrier taken out."""
    start, end = [m.span() for m in BARRIER.finditer(source)][n]
    return source[:start] + ";" + source[end:]


BARRIER = re.compile(r"(?<!void\))\b__sync(?:threads|warp)\(\);")


@functools.cache
def build(path: pathlib.Path, defines: tuple[str, ...], sanitizer: str) -> pathlib.Path:
    """A shared library of one variant, cached by content in the temporary folder."""
    source = source_of(path)
    main = f'#include "{HERE / "emulator.hpp"}"\n{source}\n' + "".join(
        f"EMU_EXPORT({n})\n" for n in entry_names(source)
    )
    flags = [
        "-std=c++20",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-fno-gnu-unique",
        "-ffp-contract=off",
        "-Wall",
        "-Wextra",
    ]
    flags += ["-Wno-unknown-pragmas", "-Wno-array-bounds", *FLAGS[sanitizer], *(f"-D{d}" for d in defines)]
    key = hashlib.sha256(
        repr((main, flags)).encode() + b"".join(p.read_bytes() for p in sorted(HERE.glob("*.hpp")))
    ).hexdigest()[:20]
    folder = pathlib.Path(tempfile.gettempdir()) / "tokamask-emulator"
    folder.mkdir(exist_ok=True)
    out = folder / f"{path.stem}-{sanitizer or 'plain'}-{key}.so"
    if not out.exists():
        scratch = out.with_suffix(f".{os.getpid()}.so")
        done = subprocess.run(
            ["g++", *flags, "-x", "c++", "-", "-o", str(scratch)],
            input=main,
            text=True,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"g++ refuses {path.name} {' '.join(defines)}:\n{done.stderr[:4000]}")
        os.replace(scratch, out)
    return out


@functools.cache
def module(path: pathlib.Path, defines: tuple[str, ...], sanitizer: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(build(path, defines, sanitizer)), mode=os.RTLD_LOCAL | os.RTLD_NOW)


@functools.cache
def parameter_types(path: pathlib.Path, defines: tuple[str, ...], entry: str) -> list[str]:
    signature = getattr(module(path, defines, SANITIZER), f"emu_signature_{entry}")
    signature.restype = ctypes.c_char_p
    return [t.strip() for t in re.search(r"A = \{(.*?)\}", signature().decode()).group(1).split(",")]


def launch(
    path: pathlib.Path,
    entry: str,
    defines: Sequence[str],
    grid: Sequence[int],
    threads: int,
    arguments: Sequence,
    shared_bytes: int = 0,
) -> None:
    """Runs one kernel. Arrays are numpy arrays or operands; scalars must have exactly the kernel's type."""
    defines = tuple(defines)
    types = parameter_types(path, defines, entry)
    if len(arguments) != len(types):
        raise TypeError(f"{entry}: {len(arguments)} arguments for {types}")
    values = []
    for argument, type_ in zip(arguments, types, strict=True):
        if type_.endswith("*"):
            pointer = (
                argument.pointer
                if isinstance(argument, Operand)
                else argument.ctypes.data
                if argument is not None
                else None
            )
            values.append(ctypes.c_void_p(pointer))
            continue
        scalar = SCALARS[type_]
        if not isinstance(argument, np.generic) or np.dtype(scalar) != argument.dtype:
            raise TypeError(f"{entry}: {argument!r} where the kernel takes {type_}")
        values.append(scalar(argument.item()))
    pointers = (ctypes.c_void_p * len(values))(
        *[ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values]
    )
    three = ctypes.c_uint * 3
    run = getattr(module(path, defines, SANITIZER), f"emu_launch_{entry}")
    run(three(*(*grid, 1, 1)[:3]), three(threads, 1, 1), ctypes.c_size_t(shared_bytes), pointers)


class EmulatedDevice:
    """Numpy arrays as device memory. New arrays are filled with a pattern, so that what a kernel leaves unwritten shows."""

    multiprocessors = 4

    def __init__(self, arch: int = 90) -> None:
        self.arch = arch

    def empty(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        array = np.empty(tuple(shape), "uint16" if dtype == "bfloat16" else dtype)
        if array.dtype.kind == "u":
            array.fill(np.iinfo(array.dtype).max)  # 0xFFFF is a NaN of bfloat16
        else:
            array.fill({"f": np.nan, "i": -7, "b": True}[array.dtype.kind])
        return array

    def launch(self, kernel, entry, defines, grid, threads, arguments, shared_bytes=0) -> None:
        described = kernels()[kernel]
        described.check(tuple((n, str(v)) for n, v in defines.items()))
        wanted = described.entry(entry).block(defines)
        assert threads == wanted, f"{entry}: {threads} threads, the manifest says {wanted}"
        flags = [f"{n}={v}" for n, v in defines.items()]
        launch(CUDA / described.file, entry, flags, grid, threads, arguments, shared_bytes)

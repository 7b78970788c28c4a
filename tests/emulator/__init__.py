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
from collections.abc import Callable, Sequence

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
    "tsan": ["-O1", "-g1", "-fsanitize=thread"],  # names and lines; types would cost a third more
}
SCALARS = {
    "int": ctypes.c_int32,
    "unsigned int": ctypes.c_uint32,
    "long int": ctypes.c_int64,
    "long unsigned int": ctypes.c_uint64,
    "float": ctypes.c_float,
}
SANITIZER = os.environ.get("EMULATOR_SANITIZER", "")

# Stacks and TSan's fibers of the 1024 threads that a block may have, made by the first launch that needs them.
ROOMS = (ctypes.c_void_p * 2048)()


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
    """The flat source of a kernel; ``EMULATOR_MUTANT=name:n`` takes out its n-th barrier, ``name:old -> new`` changes what stands there once."""
    source = flatten(path.name, path.parent)
    name, _, change = os.environ.get("EMULATOR_MUTANT", "").partition(":")
    if name != path.stem:
        return source
    if change.isdigit():
        return remove_barrier(source, int(change))
    old, _, new = change.partition(" -> ")
    if source.count(old) != 1:
        raise ValueError(f"{path.name} has {source.count(old)} times: {old}")
    return source.replace(old, new)


def remove_barrier(source: str, n: int) -> str:
    """The source with its n-th block or warp barrier taken out."""
    start, end = [m.span() for m in BARRIER.finditer(source)][n]
    return source[:start] + ";" + source[end:]


BARRIER = re.compile(r"(?<!void\))\b__sync(?:threads|warp)\(\);")


COMPILER = [
    "g++",
    *("-std=c++20", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-array-bounds"),
]


@functools.cache
def headers() -> bytes:
    """All that every kernel is compiled after."""
    return b"".join(p.read_bytes() for p in sorted(HERE.glob("*.hpp")))


def kept(stem: str, suffix: str, described: object, make: Callable[[pathlib.Path], object]) -> pathlib.Path:
    """A file in the temporary folder, made once for what describes it; several processes may ask at the same time."""
    key = hashlib.sha256(repr(described).encode() + headers()).hexdigest()[:20]
    folder = pathlib.Path(tempfile.gettempdir()) / "tokamask-emulator"
    folder.mkdir(exist_ok=True)
    path = folder / f"{stem}-{key}{suffix}"
    if not path.exists():
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        make(scratch)
        os.replace(scratch, path)
    return path


def compile_(arguments: Sequence[str], out: pathlib.Path, what: str, source: str = "") -> None:
    done = subprocess.run(
        [*COMPILER, *arguments, "-o", str(out)], input=source, text=True, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"g++ refuses {what}:\n{done.stderr[:4000]}")


@functools.cache
def prelude(sanitizer: str) -> pathlib.Path:
    """The emulator's headers, precompiled: g++ would spend more time on them than on most kernels."""
    stem, flags = f"prelude-{sanitizer or 'plain'}", FLAGS[sanitizer]
    text = f'#include "{HERE / "emulator.hpp"}"\n'
    header = kept(stem, ".hpp", (text, flags), lambda p: p.write_text(text))
    arguments = [*flags, "-x", "c++-header", str(header)]
    kept(stem, ".hpp.gch", (text, flags), lambda p: compile_(arguments, p, "the emulator"))
    return header


_together: dict[tuple[str, tuple[str, ...]], tuple[tuple[str, ...], ...]] = {}


def together(kernel: str, variants: Sequence[tuple[str, ...]]) -> None:
    """From now on these variants come out of one run of g++, which spends a quarter of the time on each."""
    _together.update({(kernel, variant): tuple(variants) for variant in variants})


@functools.cache
def build(path: pathlib.Path, variants: tuple[tuple[str, ...], ...], sanitizer: str) -> pathlib.Path:
    """A shared library of some variants, each in a namespace of its own, cached by content in the temporary folder."""
    source = source_of(path)
    names, inside = entry_names(source), source.replace('extern "C" __global__', "__global__")
    lines = [f'#include "{prelude(sanitizer)}"']
    for i, defines in enumerate(variants):
        lines += [f"#define {define.replace('=', ' ', 1)}" for define in defines]
        lines += [f"namespace variant_{i} {{", inside, *(f"EMU_EXPORT({n}, {n}_{i})" for n in names), "}"]
        lines += [f"#undef {define.partition('=')[0]}" for define in defines]
    main, flags = "\n".join(lines), [*FLAGS[sanitizer], "-shared", "-x", "c++", "-"]
    what = f"{path.name} {'; '.join(map(' '.join, variants))}"
    return kept(
        f"{path.stem}-{sanitizer or 'plain'}",
        ".so",
        (main, COMPILER, flags),
        lambda p: compile_(flags, p, what, main + "\n"),
    )


@functools.cache
def library(path: pathlib.Path, variants: tuple[tuple[str, ...], ...], sanitizer: str) -> ctypes.CDLL:
    return ctypes.CDLL(str(build(path, variants, sanitizer)), mode=os.RTLD_LOCAL | os.RTLD_NOW)


def exported(path: pathlib.Path, defines: tuple[str, ...], what: str, entry: str) -> ctypes._CFuncPtr:
    """What a library exports for an entry of a variant."""
    variants = _together.get((path.stem, defines), (defines,))
    return getattr(library(path, variants, SANITIZER), f"emu_{what}_{entry}_{variants.index(defines)}")


@functools.cache
def parameter_types(path: pathlib.Path, defines: tuple[str, ...], entry: str) -> list[str]:
    signature = exported(path, defines, "signature", entry)
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
    run = exported(path, defines, "launch", entry)
    run(three(*(*grid, 1, 1)[:3]), three(threads, 1, 1), ctypes.c_size_t(shared_bytes), pointers, ROOMS)


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

"""The kernels that exist, in which variants, within which budget: ``cuda/manifest.toml``, and where the sources are."""

from __future__ import annotations

import functools
import importlib.resources
import itertools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokamask.errors import KernelError

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
SHARED_LIMIT = 48 * 1024  # static shared memory of a block that needs no opt-in

Defines = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Entry:
    """One ``__global__`` function: its block size and the budget that a compiler must keep.

    ``wide_loads`` > 0 says how many 16-byte loads its machine code has at least. ``unit`` > 0 says that ``threads`` serve that many query heads of ``GROUP``, and that a block has enough for all.
    """

    name: str
    threads: int
    registers: int
    shared: int
    unit: int
    wide_loads: int = 0

    def block(self, defines: Mapping[str, object]) -> int:
        """Threads per block of a variant."""
        return self.threads * (-(-int(str(defines["GROUP"])) // self.unit) if self.unit else 1)


@dataclass(frozen=True)
class Kernel:
    """One ``.cu`` file and the values its defines may take."""

    name: str
    file: str
    entries: tuple[Entry, ...]
    axes: tuple[tuple[str, tuple[str, ...]], ...]
    minimum_arch: int

    def variants(self) -> list[Defines]:
        """Every listed combination of defines."""
        names = [name for name, _ in self.axes]
        return [
            tuple(zip(names, values, strict=True)) for values in itertools.product(*(v for _, v in self.axes))
        ]

    def entry(self, name: str) -> Entry:
        """An entry by name."""
        return next(e for e in self.entries if e.name == name)

    def check(self, defines: Defines) -> None:
        """Raises :class:`KernelError` for a define that the kernel does not list."""
        given = dict(defines)
        for name, values in self.axes:
            if given.get(name) not in values:
                message = f"{self.name}: {name}={given.get(name)} is not among {', '.join(values)}"
                raise KernelError(message, kernel=self.name, arch="")


def source_folder() -> Path:
    """The folder of ``.cu`` files: package data of an installed wheel and of an editable install alike."""
    checkout = (
        Path(__file__).resolve().parents[3] / "cuda"
    )  # first, because an editable build's copy goes stale
    for folder in (checkout, Path(str(importlib.resources.files("tokamask"))) / "cuda"):
        if (folder / "manifest.toml").is_file():
            return folder
    raise FileNotFoundError(f"the kernel sources are missing from the installation: {folder}")


def parse(table: dict[str, Any]) -> dict[str, Kernel]:
    """The kernels of a parsed manifest."""
    kernels = {}
    for name, body in table.items():
        entries = tuple(
            Entry(
                entry,
                b["threads"],
                b["registers"],
                b.get("shared", 0),
                b.get("unit", 0),
                b.get("wide_loads", 0),
            )
            for entry, b in body["entries"].items()
        )
        axes = tuple((axis, tuple(map(str, values))) for axis, values in body.get("defines", {}).items())
        kernels[name] = Kernel(name, f"{name}.cu", entries, axes, int(body.get("minimum_arch", 75)))
    return kernels


@functools.cache
def kernels() -> dict[str, Kernel]:
    """All kernels by name."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # the extras cuda12 and cuda13 bring it
        import tomli as tomllib
    return parse(tomllib.loads((source_folder() / "manifest.toml").read_text(encoding="utf-8")))


def flatten(file: str, folder: Path | None = None) -> str:
    """One translation unit: the file with each header of ours put in once, in the place of its first include.

    CuPy and NVRTC then need no include path, and a cache key made from the text covers the headers.
    """
    folder = folder or source_folder()
    seen: set[Path] = set()

    def expand(path: Path) -> list[str]:
        if path in seen:
            return []
        seen.add(path)
        name = Path(os.path.relpath(path, folder)).as_posix()
        lines = [f'#line 1 "{name}"']
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith('#include "'):
                lines += expand((path.parent / line.split('"')[1]).resolve())
                lines.append(f'#line {number + 1} "{name}"')
            elif line.strip() != "#pragma once":
                lines.append(line)
        return lines

    folder = folder.resolve()
    return "\n".join(expand(folder / file)) + "\n"

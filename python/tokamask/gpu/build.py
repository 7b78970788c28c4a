"""Compiles kernels ahead of time, on a machine without a GPU.

    python -m tokamask.gpu.build --arch sm_80,sm_90 --out DIR [--kernel top_k,...] [--define GROUP=4,8] [--json]

Writes one cubin per variant and architecture, for :func:`tokamask.gpu.use_cubins`, and prints what each uses. Needs only the
package nvidia-cuda-nvrtc (or an installed toolkit). Exit code 1 if a variant spills or exceeds its budget, 2 on bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokamask.errors import TokamaskError
from tokamask.gpu import nvrtc
from tokamask.gpu.launch import cubin_name
from tokamask.gpu.manifest import ARCHITECTURES, Defines, Entry, Kernel, kernels


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor holds (CUDA programming guide, table of compute capabilities)."""

    threads: int
    blocks: int
    shared: int
    registers: int = 65536


MULTIPROCESSORS = {
    "sm_75": Multiprocessor(1024, 16, 64 * 1024),
    "sm_80": Multiprocessor(2048, 32, 164 * 1024),
    "sm_86": Multiprocessor(1536, 16, 100 * 1024),
    "sm_89": Multiprocessor(1536, 24, 100 * 1024),
    "sm_90": Multiprocessor(2048, 32, 228 * 1024),
    "sm_100": Multiprocessor(2048, 32, 228 * 1024),
    "sm_120": Multiprocessor(1536, 24, 100 * 1024),
}


def occupancy(arch: str, threads: int, registers: int, shared: int) -> float:
    """Share of a multiprocessor's threads that blocks of this kind can fill. Registers go to warps in units of 256."""
    m = MULTIPROCESSORS[arch]
    warps = -(-threads // 32)
    per_warp = -(-max(registers, 1) * 32 // 256) * 256
    reserved = 0 if arch == "sm_75" else 1024
    blocks = min(
        m.blocks,
        m.threads // threads,
        m.registers // (per_warp * warps),
        m.shared // max(shared + reserved, 1),
    )
    return blocks * threads / m.threads


@dataclass(frozen=True)
class Row:
    """One entry of one cubin."""

    kernel: str
    entry: str
    defines: dict[str, str]
    arch: str
    file: str
    bytes: int
    registers: int
    spills: int
    shared: int
    occupancy: float
    within_budget: bool


def build(kernel: Kernel, defines: Defines, arch: str, folder: Path) -> Iterator[Row]:
    """Compiles one variant into ``folder`` and reports its entries."""
    compiled = nvrtc.compile_kernel(kernel, defines, arch)
    path = folder / cubin_name(kernel.name, defines, arch)
    path.write_bytes(compiled.cubin)
    for entry in kernel.entries:
        usage, threads = compiled.usage[entry.name], entry.block(dict(defines))
        yield Row(
            *(kernel.name, entry.name, dict(defines), arch, path.name, len(compiled.cubin)),
            *(
                usage.registers,
                usage.spills,
                usage.shared,
                round(occupancy(arch, threads, usage.registers, usage.shared), 3),
            ),
            keeps_budget(entry, usage),
        )


def keeps_budget(entry: Entry, usage: nvrtc.Usage) -> bool:
    """No spills, and registers and shared memory within the manifest."""
    return usage.spills == 0 and usage.registers <= entry.registers and usage.shared <= entry.shared


def choose(names: Sequence[str] | None, wanted: dict[str, list[str]]) -> list[tuple[Kernel, Defines]]:
    """The listed variants, narrowed to the named kernels and to the wanted values of defines."""
    known = kernels()
    for name in names or ():
        if name not in known:
            raise SystemExit(f"no kernel {name}: there are {', '.join(known)}")
    return [
        (kernel, variant)
        for kernel in known.values()
        if not names or kernel.name in names
        for variant in kernel.variants()
        if all(dict(variant).get(name, values[0]) in values for name, values in wanted.items())
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tokamask.gpu.build", description="Compile the CUDA kernels ahead of time."
    )
    parser.add_argument(
        "--arch", default="sm_80,sm_90", help=f"comma-separated, of {', '.join(ARCHITECTURES)}"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the cubins, made if absent")
    parser.add_argument("--kernel", help="only these, comma-separated")
    parser.add_argument(
        "--define", action="append", default=[], metavar="NAME=V,V", help="only these values of a define"
    )
    parser.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    options = parser.parse_args(arguments)
    wanted = {name: values.split(",") for name, _, values in (d.partition("=") for d in options.define)}
    archs = options.arch.split(",")
    for arch in archs:
        if arch not in ARCHITECTURES:
            print(f"no architecture {arch}: there are {', '.join(ARCHITECTURES)}", file=sys.stderr)
            return 2
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        chosen = choose(options.kernel.split(",") if options.kernel else None, wanted)
        rows = []
        for kernel, variant in chosen:
            for arch in archs:
                if int(arch[3:]) < kernel.minimum_arch:
                    continue
                for row in build(kernel, variant, arch, options.out):
                    rows.append(row)
                    if not options.json:
                        print_row(row)
    except (TokamaskError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    return 0 if all(row.within_budget for row in rows) else 1


def print_row(row: Row) -> None:
    """One line of the table."""
    variant = " ".join(f"{n}={v}" for n, v in row.defines.items())
    mark = "" if row.within_budget else "  OVER BUDGET"
    print(
        f"{row.entry:18} {variant:36} {row.arch:7} {row.registers:4} registers {row.spills:3} B spilled"
        f" {row.shared:6} B shared {row.occupancy:5.0%} occupancy{mark}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())

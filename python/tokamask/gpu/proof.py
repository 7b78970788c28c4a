"""Compiles every listed variant of every kernel for every architecture and holds the result against what is committed.

    python -m tokamask.gpu.proof [--jobs 2] [--kernel top_k,...] [--write]

Passes if each variant compiles (a kernel that needs a newer card is refused by name, not miscompiled), nothing spills, registers and
static shared memory keep the budgets of ``cuda/manifest.toml``, and each memory-bound entry has at least its listed number of 16-byte loads in
the machine code (left out where nvdisasm is missing). The worst case of each entry and architecture stands in ``cuda/resources.tsv``; with the
compiler that wrote it the table must come out the same, and ``--write`` writes it anew. Exit code 1 if anything fails. No GPU is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tokamask.errors import KernelError
from tokamask.gpu import nvrtc, sass
from tokamask.gpu.build import choose, keeps_budget, occupancy
from tokamask.gpu.manifest import (
    ARCHITECTURES,
    SHARED_LIMIT,
    Defines,
    Entry,
    Kernel,
    flatten,
    kernels,
    source_folder,
)

TABLE = "resources.tsv"
LOOKED_AT = ("sm_75", "sm_80", "sm_90")  # disassembling takes as long as compiling
COLUMNS = "entry", "architecture", "variants", "registers", "shared", "occupancy", "16-byte loads"


@dataclass(frozen=True)
class Finding:
    """One entry of one variant on one architecture. ``wide_loads`` is -1 where nobody looked."""

    entry: str
    arch: str
    registers: int
    shared: int
    occupancy: float
    wide_loads: int
    faults: tuple[str, ...]


def judge(entry: Entry, defines: Defines, arch: str, usage: nvrtc.Usage, wide_loads: int) -> Finding:
    """What one compiled entry uses, and in what it fails."""
    variant = " ".join([entry.name, *(f"{n}={v}" for n, v in defines), arch])
    share = occupancy(arch, entry.block(dict(defines)), usage.registers, usage.shared)
    faults = []
    if not keeps_budget(entry, usage):
        faults.append(f"{variant}: {usage} exceeds {entry}")
    if usage.shared > SHARED_LIMIT or share == 0:
        faults.append(f"{variant}: a block does not fit on a multiprocessor")
    if 0 <= wide_loads < entry.wide_loads:
        faults.append(f"{variant}: {wide_loads} 16-byte loads, {entry.wide_loads} expected")
    return Finding(entry.name, arch, usage.registers, usage.shared, share, wide_loads, tuple(faults))


def ends(kernel: Kernel) -> list[Defines]:
    """The variants whose machine code is looked at (it takes as long as compiling): with the first or the last value of every define."""
    names = [name for name, _ in kernel.axes]
    values = [dict.fromkeys((v[0], v[-1])) for _, v in kernel.axes]
    return [tuple(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def prove(kernel: Kernel, defines: Defines, arch: str) -> list[Finding]:
    """Compiles one variant for one architecture."""
    if int(arch[3:]) < kernel.minimum_arch:
        try:
            nvrtc.compile_kernel(kernel, defines, arch)
        except KernelError:
            return []
        return [Finding(kernel.name, arch, 0, 0, 0, -1, (f"{kernel.name} is not refused on {arch}",))]
    try:
        compiled = nvrtc.compile_kernel(kernel, defines, arch)
    except KernelError as error:
        return [Finding(kernel.name, arch, 0, 0, 0, -1, (str(error),))]
    looks = (
        arch in LOOKED_AT
        and defines in ends(kernel)
        and sass.disassembler() is not None
        and any(e.wide_loads for e in kernel.entries)
    )
    accesses = sass.accesses(compiled.cubin) if looks else {}
    findings = []
    for entry in kernel.entries:
        counts = accesses.get(entry.name, Counter())
        wide = counts.get("LDG.128", 0) + counts.get("LDGSTS.128", 0) if looks and entry.wide_loads else -1
        findings.append(judge(entry, defines, arch, compiled.usage[entry.name], wide))
    return findings


def kept(case: tuple[Kernel, Defines, str]) -> list[Finding]:
    """:func:`prove`, or what it said before: findings stay in the temporary folder by content, so that an interrupted run goes on."""
    kernel, defines, arch = case
    said = (
        kernel,
        flatten(kernel.file),
        nvrtc.options(defines),
        arch,
        nvrtc.version(),
        sass.disassembler() is None,
    )
    key = hashlib.sha256(repr(said).encode()).hexdigest()[:24]
    path = Path(tempfile.gettempdir()) / "tokamask-proof" / f"{key}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps([asdict(f) for f in prove(kernel, defines, arch)]), encoding="utf-8")
        os.replace(scratch, path)
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [Finding(**{**row, "faults": tuple(row["faults"])}) for row in rows]


def summarise(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """The worst case of each entry and architecture, in the order of their names."""
    rows: list[tuple[str, ...]] = []
    key = {arch: i for i, arch in enumerate(ARCHITECTURES)}
    ordered = sorted(findings, key=lambda f: (f.entry, key[f.arch]))
    for (entry, arch), group in itertools.groupby(ordered, lambda f: (f.entry, f.arch)):
        same = list(group)
        wide = min((f.wide_loads for f in same if f.wide_loads >= 0), default=-1)
        rows.append(
            (
                *(entry, arch, str(len(same)), str(max(f.registers for f in same))),
                *(str(max(f.shared for f in same)), f"{min(f.occupancy for f in same):.2f}"),
                "" if wide < 0 else str(wide),
            )
        )
    return rows


def table(rows: list[tuple[str, ...]]) -> str:
    """The file as it is committed."""
    version = ".".join(map(str, nvrtc.version()))
    lines = [
        f"# NVRTC {version}: the most registers and shared bytes, the least occupancy and 16-byte loads of all variants",
        "\t".join(COLUMNS),
        *("\t".join(row) for row in sorted(rows, key=lambda row: (row[0], ARCHITECTURES.index(row[1])))),
    ]
    return "\n".join(lines) + "\n"


def read_table(text: str) -> list[tuple[str, ...]]:
    """The rows of a committed table."""
    return [tuple(line.split("\t")) for line in text.splitlines()[2:]]


def differences(committed: str, rows: list[tuple[str, ...]]) -> list[str]:
    """Rows that are not in the committed table, if the same compiler wrote it; columns that nobody filled are not compared."""
    version = ".".join(map(str, nvrtc.version()))
    if not committed.startswith(f"# NVRTC {version}:"):
        return []
    old = {row[:2]: row for row in read_table(committed)}
    changed = []
    for row in rows:
        was = old.get(row[:2], ("",) * len(row))
        if any(a != b for a, b in zip(was, row, strict=True) if a and b) or not was[0]:
            changed.append(f"{' '.join(row[:2])}: {TABLE} says {was[2:]}, this is {row[2:]}")
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tokamask.gpu.proof", description="Compile every kernel variant."
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--kernel", help="only these, comma-separated")
    parser.add_argument("--write", action="store_true", help=f"write cuda/{TABLE}")
    options = parser.parse_args(arguments)
    names = options.kernel.split(",") if options.kernel else None
    cases = [(k, v, arch) for k, v in choose(names, {}) for arch in ARCHITECTURES]
    random.shuffle(cases)  # so that processes, and runs at the same time, take different ones
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        findings = [f for found in pool.imap_unordered(kept, cases, chunksize=4) for f in found]
    rows, path = summarise(findings), source_folder() / TABLE
    committed = path.read_text(encoding="utf-8") if path.is_file() else ""
    faults = [fault for f in findings for fault in f.faults]
    if options.write:
        others = [r for r in read_table(committed) if r[0] not in {row[0] for row in rows}] if names else []
        committed = table([*others, *rows])
        path.write_text(committed, encoding="utf-8")
    faults += differences(committed, rows)
    for fault in faults:
        print(fault, file=sys.stderr)
    looked = "" if sass.disassembler() else "; nvdisasm is missing: nobody looked for 16-byte loads"
    print(
        f"{len(choose(names, {}))} variants of {len(names or kernels())} kernels on {len(ARCHITECTURES)} architectures: "
        f"{len(findings)} functions compiled, {len(faults)} faults{looked}"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

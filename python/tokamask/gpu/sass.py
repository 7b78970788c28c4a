"""What a cubin's machine code says: which widths of memory accesses each kernel has. Needs NVIDIA's disassembler, no GPU."""

from __future__ import annotations

import functools
import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from tokamask.errors import KernelError

ACCESS = re.compile(r"\b(LDGSTS|LDG|STG|LDL|STL)((?:\.\w+)*)")


@functools.cache
def disassembler() -> Path | None:
    """``nvdisasm`` of the package nvidia-cuda-nvdisasm, else of the search path; None where neither has it."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("**/bin/nvdisasm")):
            return path
    found = shutil.which("nvdisasm")
    return Path(found) if found else None


def accesses(cubin: bytes) -> dict[str, Counter[str]]:
    """How often each access to global and local memory stands in each entry, as ``"LDG.128"``: the instruction and its bits.

    Raises :class:`KernelError` without a disassembler.
    """
    tool = disassembler()
    if tool is None:
        raise KernelError("nvdisasm is missing: pip install nvidia-cuda-nvdisasm", kernel="", arch="")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"nvdisasm refuses the cubin: {done.stderr.strip()}", kernel="", arch="")
    return read_accesses(done.stdout)


def read_accesses(sass: str) -> dict[str, Counter[str]]:
    """The same from the disassembler's text."""
    found: dict[str, Counter[str]] = {}
    for section in re.split(r"\.section\s+\.text\.", sass)[1:]:
        counts = found.setdefault(re.split(r"[,\s]", section, maxsplit=1)[0], Counter())
        for name, suffixes in ACCESS.findall(section):
            width = next(
                (s for s in suffixes.split(".") if s in ("128", "64", "U16", "S16", "U8", "S8")), "32"
            )
            counts[f"{name}.{width}"] += 1
    return found

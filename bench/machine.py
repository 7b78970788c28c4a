"""The machine card: what a number was measured on."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import subprocess
import sys

WANTED_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "bmi2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512vbmi",
    "neon",
    "sve",
)


def card() -> dict[str, object]:
    """Processor, memory, system, versions and date, as plain JSON."""
    from bench.rivals import REGISTRY
    from bench.texts import source

    cpu = _cpuinfo()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "processor": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "flags": [flag for flag in WANTED_FLAGS if flag in cpu.get("flags", cpu.get("Features", "")).split()],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "rust": _first_line(["rustc", "--version"]),
        "commit": _first_line(["git", "rev-parse", "--short", "HEAD"]),
        "input": source(),
        "rivals": {rival.name: rival.version or f"not installed ({rival.absence})" for rival in REGISTRY},
    }


def pin_to_one_core() -> int | None:
    """Keeps this process on its last core, where the system lets it; returns the core."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def line(card: dict) -> str:
    """The card in one sentence for the README."""
    memory, cores = card["memory_gb"], card["cores"]
    flags = "AVX-512" if "avx512f" in card["flags"] else "AVX2" if "avx2" in card["flags"] else "no AVX2"
    return (
        f"{card['processor']}, {cores} cores, {flags}, {memory} GB, {card['system'].split()[0]}, "
        f"Python {card['python']}, {card['date']}, input: {card['input']}"
    )


def _cpuinfo() -> dict[str, str]:
    path = pathlib.Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    pairs = (text.split(":", 1) for text in path.read_text().split("\n\n")[0].splitlines() if ":" in text)
    return {key.strip(): value.strip() for key, value in pairs}


def _first_line(command: list[str]) -> str | None:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.splitlines()[0]


if __name__ == "__main__":
    import json

    sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)
    print(json.dumps(card(), indent=1))

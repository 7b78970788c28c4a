"""Runs the benchmarks: ``python bench/run.py`` measures everything, records it and rewrites the tables.

With names (``python bench/run.py encode mask``) only these operations run, and the result is printed, not
recorded, unless ``--record`` merges it into the newest record.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

from bench import machine, record, report  # noqa: E402
from bench.rivals import REGISTRY  # noqa: E402

# Operations that use all cores; the others run pinned to one.
PARALLEL = {
    *("encode_batch", "train", "generate"),
    *("apply_bitmask", "sample", "top_k", "attention", "prefill", "reduce", "select"),
}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(path.stem.removeprefix("test_") for path in (ROOT / "bench").glob("test_*.py"))
    parser.add_argument(
        "operations", nargs="*", choices=[*known, []], metavar="operation", help=", ".join(known)
    )
    parser.add_argument("--turns", type=int, default=5, help="measurements per case and contestant (5)")
    parser.add_argument("--record", action="store_true", help="merge named operations into the newest record")
    options = parser.parse_args()

    if REGISTRY[0].absence:
        parser.error(f"tokamask itself cannot run here: {REGISTRY[0].absence}")
    started = time.monotonic()
    card = machine.card()
    results = []
    failed = []
    for operation in options.operations or known:
        entries, code = measure(operation, options.turns)
        if code:
            failed.append(operation)
        results += record.rows(entries)
        print(
            f"== {operation}: {len(entries)} measurements, {time.monotonic() - started:.0f} s since the start",
            flush=True,
        )
    print(report.markdown(card, results, everything=True))
    if failed:
        print(f"failed: {', '.join(failed)}; nothing is recorded", file=sys.stderr)
        return 1
    if not options.operations or options.record:
        path = report.save(card, results, merge=bool(options.operations))
        report.rewrite(ROOT)
        print(f"recorded in {path.relative_to(ROOT)}")
    return 0


def measure(operation: str, turns: int) -> tuple[list[dict], int]:
    """One operation in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "benchmark.json"
        command = [
            *(sys.executable, "-m", "pytest", f"bench/test_{operation}.py", "-q", "--no-header", "-rN"),
            *("-o", "filterwarnings=default", "-o", "timeout=900", "-p", "no:randomly", "-p", "no:xdist"),
            *(
                f"--benchmark-json={target}",
                "--benchmark-quiet",
                "--benchmark-disable-gc",
                "--benchmark-warmup=off",
            ),
        ]
        environment = os.environ | {
            "TOKAMASK_BENCH_TURNS": str(turns),
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
        }
        if operation not in PARALLEL:
            environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        pin = None if operation in PARALLEL else machine.pin_to_one_core
        process = subprocess.run(command, cwd=ROOT, env=environment, preexec_fn=pin, check=False)
        entries = json.loads(target.read_text())["benchmarks"] if target.exists() else []
        return entries, process.returncode


if __name__ == "__main__":
    sys.exit(main())

"""From what pytest-benchmark wrote to what the project keeps: one row per case, medians and spread, no samples."""

from __future__ import annotations

import statistics

HIGHER_IS_BETTER = {"MB/s", "/s", "tokens/s", "tokens/step"}


def value(seconds: float, work: float, unit: str) -> float:
    """One measurement in its unit."""
    per_second = {"MB/s": work / 1e6, "/s": work, "tokens/s": work}
    per_step = {"us": 1e6, "ms": 1e3, "s": 1.0}
    return per_second[unit] / seconds if unit in per_second else seconds * per_step[unit] / work


def rows(benchmarks: list[dict]) -> list[dict]:
    """Groups measurements by operation, input and state.

    ``times`` is the median over the turns of (the contestant's time / tokamask's time on the same input):
    above 1, tokamask is faster.
    """
    cases: dict[tuple, dict] = {}
    for entry in benchmarks:
        info = entry["extra_info"]
        if not info:
            continue  # it failed before it was measured
        key = (info["operation"], info["input"], info["state"])
        case = cases.setdefault(
            key, {"unit": info["unit"], "headline": info["headline"], "turns": {}, "digests": {}, "also": {}}
        )
        number = info["value"]
        if number is None:
            number = value(entry["stats"]["median"], info["work"], info["unit"])
        case["turns"].setdefault(info["contestant"], {})[info["turn"]] = number
        case["digests"].setdefault(info["turn"], {})[info["contestant"]] = info["digest"]
        for name, number in info.get("also", {}).items():
            case["also"].setdefault(info["contestant"], {}).setdefault(name, []).append(number)
    return [_row(*key, case) for key, case in cases.items()]


def _row(operation: str, input: str, state: str, case: dict) -> dict:
    ours = case["turns"].get("tokamask", {})
    contestants = {}
    for name, turns in case["turns"].items():
        values = sorted(turns.values())
        more = case["unit"] in HIGHER_IS_BETTER
        paired = [ours[t] / turns[t] if more else turns[t] / ours[t] for t in turns if t in ours]
        contestants[name] = {
            "median": _round(statistics.median(values)),
            "low": _round(values[0]),
            "high": _round(values[-1]),
            "turns": len(values),
            "times": _round(statistics.median(paired)) if paired and name != "tokamask" else None,
            "differs": _differs(name, case["digests"]),
        }
        also = case["also"].get(name)
        if also:
            contestants[name]["also"] = {key: _round(statistics.median(v)) for key, v in also.items()}
    return {
        "operation": operation,
        "input": input,
        "state": state,
        "unit": case["unit"],
        "headline": case["headline"],
        "contestants": contestants,
    }


def _differs(name: str, digests: dict[int, dict[str, str | None]]) -> bool:
    """Whether the results were not those of most contestants in some turn."""
    for by_name in digests.values():
        known = [d for d in by_name.values() if d is not None]
        if known and by_name.get(name) is not None and by_name[name] != statistics.mode(known):
            return True
    return False


def _round(number: float) -> float:
    return float(f"{number:.4g}")

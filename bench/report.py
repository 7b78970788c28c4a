"""Writes the newest record into README.md and the documentation, as tables and plots.

``python bench/report.py`` does it again without measuring.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from bench import machine  # noqa: E402
from bench.record import HIGHER_IS_BETTER  # noqa: E402

RESULTS = ROOT / "bench" / "results"
PLOTS = ROOT / "docs" / "pictures" / "bench"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CLOSE = 1.05
"""Within this factor two contestants count as equal."""

# Ours first; contestants of one plot differ, so there are more of them than rivals of any operation.
PALETTE = ["#0b6e4f", "#c8553d", "#2d5d9f", "#8a5a9f", "#d19c2b", "#777777"]
PALETTE += ["#e08fb0", "#4fb3bf", "#6b4226", "#a3b635", "#1f1f1f", "#f2b48a"]


def newest() -> dict | None:
    """The newest record, or None."""
    paths = sorted(path for path in RESULTS.glob("20*.json"))
    return json.loads(paths[-1].read_text()) if paths else None


def save(card: dict, rows: list[dict], *, merge: bool = False) -> pathlib.Path:
    """Writes a dated record; ``merge`` keeps the newest record's rows of other operations."""
    RESULTS.mkdir(exist_ok=True)
    old = newest() if merge else None
    if old:
        measured = {row["operation"] for row in rows}
        rows = [row for row in old["rows"] if row["operation"] not in measured] + rows
    rows = sorted(rows, key=lambda row: order(row["operation"]))
    path = RESULTS / f"{card['date']}.json"
    path.write_text(_compact({"machine": card, "absent": absent(), "rows": rows}) + "\n")
    return path


def absent() -> dict[str, list[str]]:
    """By operation, the rivals that take part in it but are not installed here."""
    from bench.rivals import REGISTRY

    operations = [path.stem.removeprefix("test_") for path in (ROOT / "bench").glob("test_*.py")]
    missing = {o: [r.name for r in REGISTRY if hasattr(r, o) and r.absence] for o in sorted(operations)}
    return {operation: names for operation, names in missing.items() if names}


ORDER = (
    *(
        "encode",
        "encode_array",
        "unseen_rule",
        "encode_batch",
        "count",
        "append",
        "drop_in",
        "superword",
        "latency",
        "load",
        "adversarial",
        "decode",
    ),
    *("train", "compile_grammar", "mask"),
    *("apply_bitmask", "sample", "top_k", "attention", "prefill", "reduce", "select", "draft", "generate"),
)


def order(operation: str) -> tuple[int, str]:
    """The place of an operation in the tables."""
    return (ORDER.index(operation) if operation in ORDER else len(ORDER), operation)


def markdown(card: dict, rows: list[dict], missing: dict | None = None, *, everything: bool = False) -> str:
    """The table of headline rows, or of all, and the list of what a rival does faster."""
    missing = absent() if missing is None else missing
    lines = [f"Measured on {machine.line(card)}.", ""]
    lines += ["| operation | input | tokamask | rivals (× as slow as tokamask) |", "|---|---|--:|---|"]
    shown = ""
    for row in rows:
        if everything or row["headline"]:
            name = f"`{row['operation']}`" if row["operation"] != shown else ""
            shown = row["operation"]
            text = row["input"] + (f", {row['state']}" if row["state"] else "")
            lines.append(f"| {name} | {text} | {_ours(row)} | {_theirs(row, missing)} |")
    lost = [
        f"{_place(row)}: {name} {_factor(1 / c['times'])} as fast" for row in rows for name, c in slower(row)
    ]
    if lost:
        lines += [
            "",
            f"**Where a rival is faster** ({len(lost)} of {_duels(rows)} comparisons): "
            + "; ".join(lost)
            + ".",
        ]
    elif _duels(rows):
        lines += [
            "",
            f"In none of the {_duels(rows)} comparisons of this run was a rival faster by more than 5 %.",
        ]
    wrong = [f"{_place(row)}: {n}" for row in rows for n, c in row["contestants"].items() if c["differs"]]
    if wrong:
        lines += ["", "Results that differ from the other contestants': " + "; ".join(wrong) + "."]
    return "\n".join(lines)


def slower(row: dict) -> list[tuple[str, dict]]:
    """The rivals that beat tokamask in this row."""
    return [(n, c) for n, c in row["contestants"].items() if c["times"] and c["times"] * CLOSE < 1]


def _duels(rows: list[dict]) -> int:
    return sum(c["times"] is not None for row in rows for c in row["contestants"].values())


def _place(row: dict) -> str:
    return f"`{row['operation']}` {row['input']}" + (f" ({row['state']})" if row["state"] else "")


def _ours(row: dict) -> str:
    ours = row["contestants"].get("tokamask")
    return _cell(ours, row["unit"]) if ours else "-"


def _theirs(row: dict, missing: dict) -> str:
    cells = []
    for name, c in row["contestants"].items():
        if name != "tokamask":
            factor = "" if c["times"] is None else f" ({_factor(c['times'])})"
            cell = f"{name} {_cell(c, row['unit'])}{factor}"
            cells.append(f"**{cell}**" if c["times"] and c["times"] * CLOSE < 1 else cell)
    cells += [f"{name}: not installed" for name in missing.get(row["operation"], [])]
    return ", ".join(cells) or "none"


def _cell(contestant: dict, unit: str) -> str:
    also = "".join(f", {name} {_number(n)}" for name, n in contestant.get("also", {}).items())
    return f"{_number(contestant['median'])} {unit.replace('us', 'µs')}{also}"


def _number(n: float) -> str:
    return f"{n:,.0f}" if n >= 100 else f"{n:.2g}" if n < 10 else f"{n:.0f}"


def _factor(times: float) -> str:
    return f"{times:.0f}×" if times >= 10 else f"{times:.1f}×" if times >= 0.95 else f"{times:.2f}×"


def _compact(record: dict) -> str:
    """JSON with one row a line, so that a diff of two records can be read."""
    text = json.dumps({key: value for key, value in record.items() if key != "rows"}, indent=1)
    rows = ",\n".join("  " + json.dumps(row) for row in record["rows"])
    return f'{text[:-2]},\n "rows": [\n{rows}\n ]\n}}'


def between(text: str, new: str) -> str:
    """The text with what stands between the markers replaced."""
    if BEGIN not in text:
        return text
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{new}\n{END}", text, flags=re.DOTALL)


def rewrite(root: pathlib.Path) -> None:
    """Rewrites the tables and draws the plots from the newest record."""
    record = newest()
    if record is None:
        raise SystemExit("no record in bench/results: run `python bench/run.py` first")
    arguments = record["machine"], record["rows"], record["absent"]
    readme = root / "README.md"
    readme.write_text(between(readme.read_text(), markdown(*arguments)))
    operations = draw(record["rows"])
    page = root / "docs" / "explanation" / "numbers.md"
    if page.exists():
        plots = "\n".join(
            f"![{o}: every input and contestant](../pictures/bench/{o}.svg)\n" for o in operations
        )
        page.write_text(between(page.read_text(), plots + "\n" + markdown(*arguments, everything=True)))


def draw(rows: list[dict]) -> list[str]:
    """One plot per operation: a bar for each contestant on each input, the spread over the turns as a line."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "tokamask", "svg.fonttype": "path", "font.size": 9})
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    PLOTS.mkdir(parents=True, exist_ok=True)
    colours = dict(zip(_names(rows), PALETTE * 2, strict=False))
    operations = sorted({row["operation"] for row in rows}, key=order)
    for operation in operations:
        chosen = [row for row in rows if row["operation"] == operation]
        names = _names(chosen)
        bars = sum(len(row["contestants"]) for row in chosen)
        figure, axes = plt.subplots(figsize=(7.5, 0.9 + 0.17 * bars + 0.12 * len(chosen)))
        place = 0.0
        ticks = []
        for row in chosen:
            start = place
            for name in names:
                c = row["contestants"].get(name)
                if c:
                    spread = [[c["median"] - c["low"]], [c["high"] - c["median"]]]
                    axes.barh(place, c["median"], 0.9, color=colours[name], xerr=spread, error_kw={"lw": 0.8})
                    axes.text(c["high"] * 1.05, place, _number(c["median"]), va="center", fontsize=7)
                    place += 1
            label = row["input"] + (f", {row['state']}" if row["state"] else "")
            ticks.append(((start + place - 1) / 2, label))
            place += 0.7
        axes.set_yticks(*map(list, zip(*ticks, strict=True)))
        axes.invert_yaxis()
        axes.set_xscale("log")
        few = axes.get_xlim()[1] < 100 * axes.get_xlim()[0]
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        units = sorted({row["unit"] for row in chosen})
        better = "more is better" if units[0] in HIGHER_IS_BETTER else "less is better"
        axes.set_xlabel(f"{' / '.join(units).replace('us', 'µs')}, logarithmic ({better})")
        axes.set_title(operation, loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        handles = [plt.Rectangle((0, 0), 1, 1, color=colours[name]) for name in names]
        axes.legend(handles, names, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(
            PLOTS / f"{operation}.svg", bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
        plt.close(figure)
    return operations


def _names(rows: list[dict]) -> list[str]:
    seen = dict.fromkeys(name for row in rows for name in row["contestants"])
    return ["tokamask", *sorted(seen.keys() - {"tokamask"})] if "tokamask" in seen else sorted(seen)


if __name__ == "__main__":
    rewrite(ROOT)

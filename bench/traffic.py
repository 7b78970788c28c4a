"""Array functions against the least bytes that they must move, at four sizes each.

``python bench/traffic.py`` prints a table, with the read bandwidth that numpy reaches in the same run, and with ``--plot FILE`` draws bytes
against time. On all cores; a straight line is time in proportion to bytes.
"""

from __future__ import annotations

import argparse
import math
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from bench import arrays  # noqa: E402

COLOURS = ("#2f7ebc", "#8a5fb0", "#c77a1b", "#50803a", "#b8405e", "#3c8f8a", "#6b4226")


def fastest(function, seconds: float = 0.4) -> float:
    """Seconds of the fastest call in about so many seconds: what the machine can do, whatever else runs on it."""
    best, end = math.inf, time.perf_counter() + seconds
    while best is math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def bandwidth(threads: int = 2) -> float:
    """Bytes a second that sums over memory read, all threads together."""
    parts = [np.ones(1 << 25, np.int64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = fastest(lambda: list(pool.map(np.sum, parts)))
    return threads * parts[0].nbytes / seconds


def cases():
    """(operation, size, least bytes, call)."""
    import tokamask as tm

    for dtype in ("float32", "bfloat16"):
        for length in (2048, 8192, 32_768, 131_072):
            x = arrays.paged(1, length, None, dtype, 0)
            given = (x.q, x.k_cache, x.v_cache, x.page_table)
            run = lambda given=given, x=x: tm.attention.decode(*given, seq_lens=x.seq_lens)  # noqa: E731
            yield f"decode, {dtype}", f"{length:,} tokens", 2 * x.k_cache.nbytes, run
    for dtype in ("bfloat16", "float32"):
        for selected in (512, 2048, 8192, 32_768):
            x = arrays.paged(1, 131_072, selected, dtype, 0)
            given = (x.q, x.k_cache, x.v_cache, x.page_table, x.selected)
            run = lambda given=given, x=x: tm.attention.sparse_decode(*given, seq_lens=x.seq_lens)  # noqa: E731
            moved = 2 * 8 * selected * 128 * x.q.itemsize + x.selected.nbytes
            yield f"sparse_decode, {dtype}", f"{selected:,} of 131,072 tokens", moved, run
    for rows in (1, 4, 16, 64):
        logits, mask = arrays.logits(rows, 0), arrays.bitmask(rows, 0, 0.3)
        run = lambda x=logits: tm.selection.top_k(x, 50)  # noqa: E731
        yield "top_k, k 50", f"{rows} x {logits.shape[1]:,}", logits.nbytes, run
        run = lambda x=logits, m=mask: tm.sampling.sample(x, bitmask=m, top_p=0.9, seed=1)  # noqa: E731
        yield "sample, mask of 30 %", f"{rows} x {logits.shape[1]:,}", logits.nbytes + mask.nbytes, run
        own = logits.copy()
        run = lambda x=own, m=mask: tm.apply_bitmask(x, m)  # noqa: E731
        yield "apply_bitmask, 30 %", f"{rows} x {logits.shape[1]:,}", logits.nbytes + mask.nbytes, run


def plot(points: dict[str, list[tuple[float, float]]]) -> str:
    """Time over bytes, both logarithmic, as SVG."""
    everything = [point for line in points.values() for point in line]
    lows, highs = ([f(math.log10(p[i]) for p in everything) for i in (0, 1)] for f in (min, max))
    width, height, left, top = 640, 400, 70, 20

    def place(point):
        x, y = ((math.log10(point[i]) - lows[i]) / (highs[i] - lows[i]) for i in (0, 1))
        return left + x * (width - left - 190), top + (1 - y) * (height - top - 50)

    body = []
    for i, axis in enumerate(("bytes that must move", "time")):
        for power in range(math.ceil(lows[i]), math.floor(highs[i]) + 1):
            x, y = place((10**power, 10 ** lows[1]) if i == 0 else (10 ** lows[0], 10**power))
            label = (
                ("1 s", *(f"{10**n} {u}" for u in ("ms", "µs") for n in (2, 1, 0)))[-power]
                if i
                else f"{10 ** (power - 6):g} MB"
            )
            anchor = "middle" if i == 0 else "end"
            dx, dy = (0, 18) if i == 0 else (-8, 4)
            body.append(
                f'<text x="{x + dx:.0f}" y="{y + dy:.0f}" text-anchor="{anchor}" fill="#5f6b7a">{label}</text>'
            )
            ends = (x, top, x, height - 50) if i == 0 else (left, y, width - 190, y)
            body.append(
                '<line x1="{:.0f}" y1="{:.0f}" x2="{:.0f}" y2="{:.0f}" stroke="#e4e7eb"/>'.format(*ends)
            )
        if i == 0:
            body.append(
                f'<text x="{(left + width - 190) / 2}" y="{height - 8}" text-anchor="middle">{axis}</text>'
            )
    for colour, (name, line) in zip(COLOURS, points.items(), strict=True):
        places = [place(point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        row = top + 20 + 22 * list(points).index(name)
        body.append(f'<text x="{width - 178}" y="{row}" fill="{colour}">{name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=pathlib.Path, help="an SVG file to write")
    options = parser.parse_args()
    full = bandwidth()
    print(f"Read bandwidth (numpy sums, two threads): {full / 1e9:.1f} GB/s.\n")
    print("| operation | size | least bytes | time | GB/s | of the bandwidth |\n|---|---|--:|--:|--:|--:|")
    points: dict[str, list[tuple[float, float]]] = {}
    for name, size, moved, run in cases():
        seconds = fastest(run)
        points.setdefault(name, []).append((moved, seconds))
        rate = moved / seconds
        print(
            f"| {name} | {size} | {moved / 1e6:,.1f} MB | {seconds * 1e6:,.0f} µs | {rate / 1e9:.1f} | {rate / full:.0%} |",
            flush=True,
        )
    if options.plot:
        options.plot.write_text(plot(points), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

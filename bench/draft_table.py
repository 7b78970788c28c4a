"""Every drafting method on recorded outputs, and what the store costs.

``python bench/draft_table.py`` prints tokens per forward pass at 32 and 64 nodes for the sets and their second slices (our own
rows; ``--all`` adds the published methods, half an hour; ``--slice`` names one set). ``--stream N`` serves N tokens of text that never repeats for long instead,
and prints what the process grew by. ``--sessions SECONDS`` serves 32 sessions at a time on 2 threads that share a store, then the same
requests one by one, and compares the totals. Every row starts with nothing learned; traces are replayed in recorded order.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import gc
import pathlib
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

from bench.data import unpacked  # noqa: E402

SLICES = {
    "smollm2": ("smollm2_traces", 0, None),
    "gsm8k": ("gsm8k_gpt3_traces", 0, 200),
    "aider": ("aider_chat_traces", 0, 40),
    "gsm8k, next 200": ("gsm8k_gpt3_traces", 200, 400),
    "aider, next 40": ("aider_chat_traces", 40, 80),
}
LIVE = 32
"""Sessions that live at a time in a stream."""


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="the published methods too")
    parser.add_argument("--slice", action="append", choices=list(SLICES), help="a set; may be repeated")
    parser.add_argument("--stream", type=int, metavar="N", help="serve so many tokens and measure memory")
    parser.add_argument("--sessions", type=float, metavar="SECONDS", help="serve 32 sessions on 2 threads")
    options = parser.parse_args()
    if options.stream:
        return stream(options.stream)
    if options.sessions:
        return sessions(options.sessions)
    for name in options.slice or SLICES:
        traces = traces_of(name)
        if traces is None:
            print("the large data (draft_traces_open.tar.xz) is absent", file=sys.stderr)
            return 2
        rows(name, traces, options.all)
    return 0


def traces_of(name: str) -> list | None:
    """The traces of a slice, in recorded order; None where the large data is absent."""
    from tokamask.replay import read_traces

    file, start, end = SLICES[name]
    folder = unpacked("draft_traces_open.tar.xz")
    return None if folder is None else list(read_traces(folder / "open" / f"{file}.jsonl"))[start:end]


def rows(name: str, traces: list, published: bool) -> None:
    """Prints the table of one slice."""
    import tokamask as tm
    from tokamask.methods import METHODS
    from tokamask.replay import replay, table

    logits = traces[0].topk_ids is not None
    methods = {"tokamask": (tm.Drafter, False)}
    if logits:
        methods["tokamask, recycled logits"] = (tm.Drafter, True)
    for method, make in METHODS.items() if published else ():
        needs_logits = "recycling" in method or "next-next" in method
        if logits or not needs_logits:
            methods[method] = (make, needs_logits)
    results = {
        method: {b: replay(make(), traces, budget=b, recycle=recycle) for b in (32, 64)}
        for method, (make, recycle) in methods.items()
    }
    print(f"\n{name}: {len(traces)} outputs\n{table(results)}", flush=True)
    if logits:
        plain, recycled = (results[m][32].by_source for m in list(methods)[:2])
        below = [k for k in plain if recycled[k].mean_accepted < plain[k].mean_accepted]
        print(f"of {len(plain)} categories below tokens only with logits: {', '.join(below) or 'none'}")
    promised = results["tokamask"][32]
    accepted = (promised.tokens - promised.steps) / promised.steps
    print(f"promised {promised.expected / promised.steps:.2f} accepted tokens a step, kept {accepted:.2f}")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * 4096


def stream(tokens: int) -> int:
    """Serves requests of 600 tokens, 32 at a time, and prints the growth of the process by and by."""
    import tokamask as tm

    rng = np.random.default_rng(0)
    drafter, live = tm.Drafter(), collections.deque()
    gc.collect()
    before, served, due = resident(), 0, tokens // 10
    while served < tokens:
        text = rng.zipf(1.2, 600).clip(1, 49_151).astype(np.uint32)
        session = drafter.session(text[:100])
        session.propose(32)
        session.update(text[100:])
        served += 500
        live.append(session)
        if len(live) > LIVE:
            live.popleft()
        if served >= due:
            grown = resident() - before
            print(
                f"{served:>10} tokens: {grown / 1e6:7.1f} MB, {grown / served:6.1f} bytes a token", flush=True
            )
            due += tokens // 10
    return 0


def sessions(seconds: float) -> int:
    """Serves requests on two threads, 32 sessions at a time, every fifth dropped half-way; exit code 1 where totals differ."""
    import tokamask as tm

    texts = np.random.default_rng(0).zipf(1.3, (LIVE * 8, 400)).clip(1, 49_151).astype(np.uint32)

    def serve(drafter, first: int, until: float | None, rounds: int | None) -> tuple[int, int]:
        """Half of the sessions side by side, round after round: how many rounds, and tokens of them."""
        done = served = 0
        while done != rounds and (until is None or time.monotonic() < until):
            numbers = [(done * LIVE + first + n) % len(texts) for n in range(LIVE // 2)]
            live = {n: drafter.session(texts[n][:40]) for n in numbers}
            for start in range(40, 400, 4):
                for n in [*live]:
                    tree = live[n].propose(32)
                    live[n].update(texts[n][start : start + 4], tree=tree)
                    served += 4
                    if n % 5 == 0 and start > 200:
                        del live[n]  # dropped mid-way
            done += 1
        return done, served

    shared, before, until = tm.Drafter(), resident(), time.monotonic() + seconds
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(serve, shared, half * LIVE // 2, until, None) for half in (0, 1)]
        counts = [half.result() for half in halves]
    grown, serial = resident() - before, tm.Drafter()
    for half, (done, _) in enumerate(counts):
        serve(serial, half * LIVE // 2, None, done)
    total = sum(served for _, served in counts)
    print(
        f"2 threads: {total} tokens of {sum(n for n, _ in counts) * LIVE // 2} sessions, {total / seconds:.0f} a second"
    )
    print(f"store {shared.nbytes / 1e6:.1f} MB, the process grew by {grown / 1e6:.1f} MB")
    print(
        f"learned {shared.tokens} tokens; one by one {serial.tokens} tokens, store {serial.nbytes / 1e6:.1f} MB"
    )
    return int(not shared.tokens == serial.tokens == total)


if __name__ == "__main__":
    sys.exit(main())

"""How many nodes to draft: the rule from a verify-cost curve against every fixed budget, on recorded outputs.

``python bench/draft_budget.py`` prints, for several cost curves, the tokens per time (1 = no drafts) that fixed budgets give and
that the rule gives, which knows the curve and the probabilities of the nodes. Fixed budgets of 2, 4, 6 and 8 are the choices of
SpecKV; its learnt choice among them is bounded by the best of them at every step, which is what the rule approximates.
``--categories`` replays the decoding loops of the demo engine and of transformers on the recorded outputs, category by category: which
drafts the rule makes while it learns the engine's times from noisy forwards, and what they were worth at those times. It needs
no model and does not depend on the machine's load; ``bench/drafted.py`` is the same with the models themselves.
``--reliability FILE.svg`` draws promised against observed acceptance instead. Every run starts with nothing learned.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

from bench.draft_table import SLICES, traces_of  # noqa: E402

CURVES = {
    "flat (a GPU with room)": [1.0, 1.0, 1.0, 1.02, 1.05, 1.1, 1.25],
    "half a step at 8 rows": [1.0, 1.07, 1.2, 1.5, 2.2, 3.6, 6.5],
    "gemma-3-270m, llama.cpp, 2 cores": [16.7, 19.8, 25.0, 36.0, 54.8, 99.5, 188.9],
    "SmolLM2-135M, llama.cpp, 2 cores": [9.9, 14.4, 22.7, 38.1, 75.6, 138.5, 279.7],
    "every row a whole step": [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0],
}
"""Times of a forward over 1, 2, 4, ... 64 rows; the two of llama.cpp were measured, the others are bounds."""
ENGINES = {
    "demo": ([34.3, 34.3, 35.6, 46.5, 77.6, 110.9], 24, False),
    "transformers": ([71.0, 121.0, 121.0, 126.0, 200.0], 8, True),
}
"""Milliseconds of a forward over 1, 2, 4, ... rows on two quiet cores (Zen 4), most guesses, and whether only a chain is verified."""
SLOW_MOMENT = 0.05
"""Share of forwards that take twice their time; all others wobble by a fifth."""
RESAMPLES = 2000
FIXED = (2, 4, 6, 8, 16, 32)


class Watched:
    """A method whose trees are looked at."""

    def __init__(self, method) -> None:
        self.method, self.trees = method, []

    def session(self, *args, **options):
        """Starts a request."""
        session, trees = self.method.session(*args, **options), self.trees
        propose = session.propose

        class Session:
            update = session.update

            def propose(self, budget):
                trees.append(propose(budget))
                return trees[-1]

        return Session()


def rate(traces, curve, budget, cost=None) -> float:
    """Tokens per time, in units of a step without drafts."""
    import tokamask as tm
    from tokamask.replay import replay

    watched = Watched(tm.Drafter(verify_cost=cost))
    result = replay(watched, traces, budget=budget)
    rows = np.array([len(tree) + 1 for tree in watched.trees])
    times = np.interp(rows, 2.0 ** np.arange(len(curve)), np.array(curve) / curve[0])
    return result.tokens / float(times.sum())


def categories(traces) -> None:
    """Prints, by category, the factor of drafts on the time of decoding, and its 5th percentile over resampled outputs."""
    engines = {name: served(traces, *engine) for name, engine in ENGINES.items()}
    print(
        f"{'category':26}{'outputs':>8}"
        + "".join(f"{name:>14}{'at least':>10}{'tokens/step':>12}" for name in ENGINES)
    )
    kinds = np.array([trace.source for trace in traces])
    for kind in [*sorted(set(kinds)), "all"]:
        chosen = np.flatnonzero((kinds == kind) | (kind == "all"))
        line = f"{kind:26}{len(chosen):8}"
        for times in engines.values():
            drafted, plain, tokens, steps = times[chosen].T
            picks = np.random.default_rng(0).integers(0, len(chosen), (RESAMPLES, len(chosen)))
            least = np.quantile(plain[picks].sum(axis=1) / drafted[picks].sum(axis=1), 0.05)
            line += f"{plain.sum() / drafted.sum():14.2f}{least:10.2f}{tokens.sum() / steps.sum():12.2f}"
        print(line)


def served(traces, curve, budget, chain) -> np.ndarray:
    """Of each output: time with drafts, without, tokens and forwards."""
    import tokamask as tm
    from tokamask import verify_greedy

    rng, drafter, out = np.random.default_rng(0), tm.Drafter(), []
    widths = 2.0 ** np.arange(len(curve))
    for trace in traces:
        output, position, spent, steps = trace.output_ids, 1, 0.0, 0
        session = drafter.session(trace.prompt_ids)
        top = trace.topk_ids
        session.update(output[:1], topk_ids=top[:1])
        while position < len(output):
            tree = session.propose(min(budget, len(output) - position - 1), chain=chain)
            time = float(np.interp(len(tree) + 1, widths, curve))
            noise = rng.lognormal(0.0, 0.2) * (2.0 if rng.random() < SLOW_MOMENT else 1.0)
            drafter.observe(len(tree) + 1, time * noise)
            rest = output[position:]
            targets = [rest[depth] if depth < len(rest) else -1 for depth in [0, *tree.depths.tolist()]]
            end = min(position + len(verify_greedy(tree, targets)[2]) + 1, len(output))
            session.update(output[position:end], topk_ids=top[position:end])
            spent, steps, position = spent + time, steps + 1, end
        out.append((spent, curve[0] * (len(output) - 1), len(output) - 1, steps))
    return np.array(out)


def nodes(traces) -> tuple[np.ndarray, np.ndarray]:
    """Promised probability of every drafted node, and whether it was accepted."""
    import tokamask as tm

    promised, kept = [], []
    drafter = tm.Drafter()
    for trace in traces:
        session, position = drafter.session(trace.prompt_ids), 1
        session.update(trace.output_ids[:1])
        while position < len(trace.output_ids):
            tree = session.propose(32)
            rest, reached, accepted = trace.output_ids[position:], {-1: 0}, 0
            for node, (token, parent) in enumerate(
                zip(tree.token_ids.tolist(), tree.parents.tolist(), strict=True)
            ):
                depth = reached.get(parent)
                if depth is not None and depth >= len(rest):
                    continue  # the output ended
                right = depth is not None and rest[depth] == token
                if right:
                    reached[node] = depth + 1
                    accepted = max(accepted, depth + 1)
                promised.append(float(tree.probs[node]))
                kept.append(right)
            session.update(rest[: accepted + 1])
            position += accepted + 1
    return np.array(promised), np.array(kept)


def reliability(path: pathlib.Path) -> None:
    """Draws how often nodes of a promised probability were accepted."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="#9aa5b1", linewidth=1)
    for name, colour in (("smollm2", "#0b6e4f"), ("gsm8k", "#b5651d")):
        p, hit = nodes(traces_of(name))
        bins = (20 * p).astype(int).clip(0, 19)
        points = [(p[bins == b].mean(), hit[bins == b].mean()) for b in range(20) if (bins == b).sum() >= 30]
        axes.plot(
            *zip(*points, strict=True), "o-", color=colour, markersize=4, label=f"{name}, {len(p)} nodes"
        )
        error, sure = np.mean([abs(a - b) for a, b in points]), p > 0.8
        print(f"{name}: mean distance from the diagonal {error:.3f} over {len(p)} nodes;", end=" ")
        print(f"above 0.8 promised {p[sure].mean():.3f}, kept {hit[sure].mean():.3f} of {sure.sum()}")
    axes.set(xlabel="promised probability of acceptance", ylabel="observed rate", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("bins of 0.05", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--categories", action="store_true")
    parser.add_argument("--reliability", type=pathlib.Path, metavar="FILE.svg")
    parser.add_argument("--set", default="smollm2", choices=list(SLICES))
    options = parser.parse_args()
    traces = traces_of(options.set)
    if traces is None:
        print("the large data (draft_traces_open.tar.xz) is absent", file=sys.stderr)
        return 2
    if options.categories:
        categories(traces)
        return 0
    if options.reliability:
        reliability(options.reliability)
        return 0
    print(
        f"{options.set}: tokens per time, 1 = no drafts\n{'cost of a step':34}"
        + "".join(f"{f'{n} nodes':>10}" for n in FIXED)
        + f"{'the rule':>10}"
    )
    below = collections.Counter()
    for name, curve in CURVES.items():
        fixed = [rate(traces, curve, budget) for budget in FIXED]
        ours = rate(traces, curve, 63, cost=curve)
        below[ours < max(*fixed, 1.0)] += 1
        print(f"{name:34}" + "".join(f"{value:10.3f}" for value in fixed) + f"{ours:10.3f}", flush=True)
    print(f"the rule is best, or as good as not drafting, on {below[False]} of {len(CURVES)} curves")
    return 0


if __name__ == "__main__":
    sys.exit(main())

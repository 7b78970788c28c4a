"""What drafts are worth end to end: tokens per second with them against without, category by category.

``python bench/drafted.py`` runs the demo engine, ``--engine transformers`` the same weights in transformers (needs torch).
Each prompt is answered twice in a row, with drafts and without, in an order that alternates; the factor of a category is
the quotient of its total times, its lower bound the 5th percentile over resampled pairs. Prefill counts. The drafter
starts empty and serves all prompts. Exit code 1 where a text differs.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

from bench import traces  # noqa: E402

RESAMPLES = 2000
Write = Callable[[list[int], bool], list[int]]


def demo(tokens: int) -> Write:
    """The demo engine."""
    from tokamask.demo.generate import Model, _Run

    model = Model.load(progress=False)
    model.engine.prefill([1, 2, 3])
    model.drafter()  # measures the cost of wider steps
    print("ms by rows:", [round(ms, 1) for ms in model.engine.verify_cost()], flush=True)
    return lambda prompt, drafts: _Run(model, None, prompt, tokens, 0.0, 0, drafts, None).write().ids


def transformers(tokens: int) -> Write:
    """``generate`` of transformers, with our loop or its own."""
    import torch

    from bench.torch_model import load
    from tokamask.integrations.transformers import DraftedGeneration

    model = load()
    eos = model.config.eos_token_id
    loop = DraftedGeneration()
    settings = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": eos, "pad_token_id": eos}

    def write(prompt: list[int], drafts: bool) -> list[int]:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        extra = {"custom_generate": loop} if drafts else {}
        return model.generate(ids, attention_mask=mask, **settings, **extra)[0, len(prompt) :].tolist()

    write([1, 2, 3], True)  # measures the cost of wider steps
    return write


def lower_bound(with_drafts: np.ndarray, without: np.ndarray) -> float:
    """5th percentile of the factor over resampled pairs."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(without), (RESAMPLES, len(without)))
    return float(np.quantile(without[picks].sum(axis=1) / with_drafts[picks].sum(axis=1), 0.05))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=["demo", "transformers"], default="demo")
    parser.add_argument("--each", type=int, default=4, help="prompts of each category (4)")
    parser.add_argument("--tokens", type=int, default=96, help="most tokens of an answer (96)")
    parser.add_argument("--only", action="append", help="a category; may be repeated")
    options = parser.parse_args()
    _, recorded = traces.load()
    prompts = collections.defaultdict(list)
    for trace in recorded:
        kind = trace.get("source", "demo")
        if len(prompts[kind]) < options.each and (not options.only or kind in options.only):
            prompts[kind].append(trace["prompt_ids"])
    write = (demo if options.engine == "demo" else transformers)(options.tokens)
    differ, turn, all_pairs = 0, 0, []
    print(
        f"{'category':28}{'prompts':>8}{'tokens/s':>10}{'without':>9}{'factor':>8}{'at least':>9}{'equal':>7}"
    )
    for kind in sorted(kind for kind in prompts if prompts[kind]):
        pairs, tokens, equal = [], 0, 0
        for prompt in prompts[kind]:
            seconds, texts = [0.0, 0.0], [[], []]
            for drafts in (turn % 2, 1 - turn % 2):
                start = time.perf_counter()
                texts[drafts] = write(prompt, bool(drafts))
                seconds[drafts] = time.perf_counter() - start
            turn += 1
            pairs.append(seconds)
            tokens += len(texts[0])
            equal += texts[0] == texts[1]
        differ += len(pairs) - equal
        all_pairs += pairs
        without, drafted = np.array(pairs).T
        print(
            f"{kind:28}{len(pairs):8}{tokens / drafted.sum():10.1f}{tokens / without.sum():9.1f}"
            f"{without.sum() / drafted.sum():8.2f}{lower_bound(drafted, without):9.2f}{equal:4}/{len(pairs)}",
            flush=True,
        )
    without, drafted = np.array(all_pairs).T
    print(f"all: {without.sum() / drafted.sum():.2f}, at least {lower_bound(drafted, without):.2f}")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())

"""What drafts are worth end to end: tokens per second with them against without, category by category.

``python bench/drafted.py`` runs the demo engine, ``--engine transformers`` the same weights in transformers (needs torch).
Each prompt is answered twice in a row, with drafts and without, in an order that alternates; the factor of a category is
the quotient of its total times, its lower bound the 5th percentile over resampled pairs. Prefill counts. The drafter
starts empty, without a cost curve, and serves all prompts. Factors of wall time and of CPU time stand side by side: beside
other work on the machine only the latter mean much, and with ``--threads 1``, as threads that wait may spin.
``--control`` answers both times without drafts: how far chance alone moves the factors. Exit code 1 where a text differs.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the folder of this file would shadow packages

from bench import traces  # noqa: E402
from bench.data import unpacked  # noqa: E402

RESAMPLES = 2000
THREADS = ("TOKAMASK_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
LONGEST_PROMPT = 500
"""Tokens beyond which a prompt is left out: the time of an answer would be its prefill."""
Write = Callable[[list[int], bool], tuple[list[int], int]]
"""Answers a prompt, with drafts or without: the tokens, and forward passes after the prompt's."""
Engine = tuple[Write, Callable[[], list[float]]]
"""With it, seconds of a step over 1, 2, 4, ... rows as learned so far."""


def demo(tokens: int) -> Engine:
    """The demo engine."""
    from tokamask.demo.generate import Model, _Run

    model = Model.load(progress=False)
    model.engine.prefill([1, 2, 3])
    model.engine.step(1)  # warms up

    def write(prompt: list[int], drafts: bool) -> tuple[list[int], int]:
        done = _Run(model, None, prompt, tokens, 0.0, 0, drafts, None).write()
        return done.ids, done.stats["forwards"]

    return write, lambda: model.drafter.verify_cost


def transformers(tokens: int) -> Engine:
    """``generate`` of transformers, with our loop or its own."""
    import torch

    from bench.torch_model import load
    from tokamask.integrations.transformers import DraftedGeneration

    model = load()
    eos = model.config.eos_token_id
    loop = DraftedGeneration()
    settings = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": eos, "pad_token_id": eos}

    def write(prompt: list[int], drafts: bool) -> tuple[list[int], int]:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        extra, before = {"custom_generate": loop} if drafts else {}, loop.forwards
        new = model.generate(ids, attention_mask=mask, **settings, **extra)[0, len(prompt) :].tolist()
        return new, loop.forwards - before - 1 if drafts else len(new) - 1

    write([1, 2, 3], False)  # warms up
    return write, lambda: loop.drafter.verify_cost


def lower_bound(with_drafts: np.ndarray, without: np.ndarray) -> float:
    """5th percentile of the factor over resampled pairs."""
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(without), (RESAMPLES, len(without)))
    return float(np.quantile(without[picks].sum(axis=1) / with_drafts[picks].sum(axis=1), 0.05))


def prompts(each: int, only: list[str] | None) -> dict[str, list[list[int]]]:
    """Prompts by category: those of the recorded outputs, and of Spec-Bench more where there are few."""
    _, recorded = traces.load()
    found = collections.defaultdict(list)
    for trace in recorded:
        if len(trace["prompt_ids"]) <= LONGEST_PROMPT:
            found[trace.get("source", "demo")].append(trace["prompt_ids"])
    few = [kind for kind in only or found if len(found[kind]) < each]
    if (folder := unpacked("draft_traces_open.tar.xz")) and few:
        from tokamask.demo.chat import chat_ids

        tokenizer, template = chat()
        for line in (folder / "open" / "spec_bench_question.jsonl").read_text(encoding="utf-8").splitlines():
            question = json.loads(line)
            ids = chat_ids(tokenizer, template, question["turns"][0])
            kind = found[f"specbench/{question['category']}"]
            if len(ids) <= LONGEST_PROMPT and ids not in kind:
                kind.append(ids)
    return {kind: found[kind][:each] for kind in sorted(found) if found[kind] and (not only or kind in only)}


def chat() -> tuple:
    """Tokenizer and chat template of the demo's model."""
    import tokamask as tm
    from tokamask.demo import weights
    from tokamask.demo.model_file import find_model

    file = find_model()
    return tm.Tokenizer.from_file(file), weights._config(weights._open(file), str(file)).chat_template


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=["demo", "transformers"], default="demo")
    parser.add_argument("--each", type=int, default=4, help="prompts of each category (4)")
    parser.add_argument("--tokens", type=int, default=64, help="most tokens of an answer (64)")
    parser.add_argument(
        "--seconds", type=float, default=60, help="no further prompt of a category after so long (60)"
    )
    parser.add_argument("--only", action="append", help="a category; may be repeated")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the model (all)")
    parser.add_argument("--control", action="store_true", help="no drafts in either answer")
    options = parser.parse_args()
    # Libraries read them when they are imported, so a process of its own begins with them.
    threads = {name: str(options.threads) for name in THREADS}
    if any(os.environ.get(name) != value for name, value in threads.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **threads})
    write, curve = (demo if options.engine == "demo" else transformers)(options.tokens)
    differ, turn, every = 0, 0, []
    print(
        f"{'category':26}{'prompts':>8}{'tokens/step':>12}{'tokens/s':>9}{'without':>8}"
        f"{'wall':>7}{'at least':>9}{'CPU':>7}{'at least':>9}{'equal':>7}"
    )
    for kind, asked in prompts(options.each, options.only).items():
        pairs, tokens, steps, equal, begun = [], 0, 0, 0, time.monotonic()
        for prompt in asked:
            if pairs and time.monotonic() - begun > options.seconds:
                break
            times, texts = [(0.0, 0.0)] * 2, [[], []]
            for drafts in (turn % 2, 1 - turn % 2):
                start, start_cpu = time.perf_counter(), time.process_time()
                texts[drafts], forwards = write(prompt, bool(drafts) and not options.control)
                times[drafts] = time.perf_counter() - start, time.process_time() - start_cpu
                steps += forwards + 1 if drafts else 0
            turn += 1
            pairs.append(times)
            tokens += len(texts[0])
            equal += texts[0] == texts[1]
        differ += len(pairs) - equal
        every += pairs
        print(
            f"{kind:26}{len(pairs):8}{tokens / steps:12.2f}{factors(pairs, tokens)}{equal:4}/{len(pairs)}",
            flush=True,
        )
    print(f"{'all':46}{factors(every)}")
    print("seconds by rows:", [round(seconds, 4) for seconds in curve()])
    return int(differ > 0)


def factors(pairs: list, tokens: int = 0) -> str:
    """Columns of a row: tokens per second, factors and their lower bounds."""
    without, drafted = np.array(pairs).transpose(1, 2, 0)  # by clock, then pair
    rates = f"{tokens / drafted[0].sum():9.1f}{tokens / without[0].sum():8.1f}" if tokens else " " * 17
    for with_drafts, plain in zip(drafted, without, strict=True):
        rates += f"{plain.sum() / with_drafts.sum():7.2f}{lower_bound(with_drafts, plain):9.2f}"
    return rates


if __name__ == "__main__":
    sys.exit(main())

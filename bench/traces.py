"""Recorded greedy outputs of real models, and their replay: what a drafter's guesses would have been worth.

Greedy verification of a draft is exact without the model: walk the tree along the recorded output.
"""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass, field

from bench.data import ROOT, unpacked


@dataclass
class Replay:
    """Totals of a replay."""

    tokens: int = 0
    steps: int = 0
    times: list[float] = field(default_factory=list)
    """Seconds of propose and update of each step."""

    def microseconds(self, quantile: float) -> float:
        """A quantile of them."""
        return 1e6 * sorted(self.times)[int(quantile * (len(self.times) - 1))]


@functools.cache
def load() -> tuple[str, list[dict]]:
    """(name, traces): the large data's in recorded order where present, else the ten of the tests."""
    folder = unpacked("draft_traces_open.tar.xz")
    if folder is None:
        path, name = ROOT / "tests" / "data" / "demo_traces.jsonl", "10 outputs of SmolLM2-135M"
    else:
        path, name = folder / "open" / "smollm2_traces.jsonl", "103 outputs of SmolLM2-135M"
    return name, [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def replay(drafter, traces: list[dict], budget: int, *, with_logits: bool) -> Replay:
    """Runs every trace through a drafter.

    ``drafter(prompt_ids, prompt_topk)`` starts a request and returns ``propose(budget) -> (token_ids, parents)``
    and ``observe(tokens, topk)``. Only these two calls are timed.
    """
    total = Replay()
    clock = time.perf_counter
    for trace in traces:
        output = trace["output_ids"]
        top = trace.get("top8_ids") if with_logits else None
        propose, observe = drafter(trace["prompt_ids"], trace.get("prompt_top8_ids") if with_logits else None)
        observe(output[:1], top[:1] if top else None)
        position = 1
        while position < len(output):
            start = clock()
            token_ids, parents = propose(budget)
            middle = clock()
            accepted = longest_path(token_ids, parents, output, position)
            new = output[position : position + accepted + 1]
            resumed = clock()
            observe(new, top[position : position + len(new)] if top else None)
            seconds = clock() - resumed + middle - start
            total.times.append(seconds)
            total.steps += 1
            total.tokens += len(new)
            position += len(new)
    return total


def longest_path(token_ids, parents, output: list[int], position: int) -> int:
    """Length of the longest path from the root that the output follows."""
    children: dict[tuple[int, int], int] = {}
    for node, (token, parent) in enumerate(zip(token_ids, parents, strict=True)):
        children.setdefault((int(parent), int(token)), node)
    node, length = -1, 0
    while position + length < len(output):
        node = children.get((node, output[position + length]), -2)
        if node < 0:
            break
        length += 1
    return length

"""How many tokens a drafting method saves, measured offline on recorded outputs.

A trace holds the prompt of a request and the output that a model wrote for it. A draft is accepted exactly as far as it agrees
with that output, so no model is needed. Traces must be replayed in the order of their recording: later prompts may quote
earlier outputs, and in another order a method would be shown the future.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tokamask.draft import verify_greedy
from tokamask.errors import ShapeError

if TYPE_CHECKING:
    from tokamask import Drafter
    from tokamask.methods import Method


@dataclass
class Trace:
    """One recorded request."""

    prompt_ids: list[int]
    output_ids: list[int]
    source: str = ""
    """What kind of text it is; results are also given by kind."""
    topk_ids: list[list[int]] | None = None
    """The model's likeliest tokens at each output position, if recorded: row ``i`` is what output ``i`` was chosen from."""
    topk_logprobs: list[list[float]] | None = None
    prompt_topk: list[list[int]] | None = None
    """The same after each prompt token."""


def read_traces(path: str | os.PathLike[str]) -> Iterator[Trace]:
    """Reads a trace per line of JSON: ``prompt_ids``, ``output_ids`` and optionally ``source``, ``top8_ids``,
    ``top8_logprobs``, ``prompt_top8_ids``. Raises ``ShapeError`` naming the line that is not a trace.
    """
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                prompt, output = row["prompt_ids"], row["output_ids"]
                if not all(type(token) is int and 0 <= token < 2**31 for token in [*prompt, *output]):
                    raise TypeError("token ids")
            except (ValueError, KeyError, TypeError) as error:
                expected = "a JSON object with prompt_ids and output_ids, lists of token ids"
                message = f"{os.fspath(path)}, line {number}: expected {expected}"
                raise ShapeError(message, name=f"line {number}", expected=expected, got=line[:60]) from error
            top = [row.get(name) for name in ("top8_ids", "top8_logprobs", "prompt_top8_ids")]
            yield Trace(prompt, output, str(row.get("source", "")), *top)


@dataclass
class Result:
    """What a replay measured."""

    tokens: int = 0
    steps: int = 0
    """Target forwards."""
    drafted: int = 0
    """Nodes sent to verification."""
    expected: float = 0.0
    """Accepted nodes that the drafts' own probabilities promised."""
    times: list[float] = field(default_factory=list)
    """Seconds of propose and update of each step."""
    by_source: dict[str, Result] = field(default_factory=dict)

    @property
    def mean_accepted(self) -> float:
        """Tokens per target forward, the bonus token included: 1 without drafts."""
        return self.tokens / max(self.steps, 1)

    def microseconds(self, quantile: float) -> float:
        """A quantile of the time of one step's propose and update."""
        times = sorted(self.times)
        return 1e6 * times[min(len(times) - 1, int(quantile * len(times)))] if times else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "mean_accepted": round(self.mean_accepted, 4),
            "steps": self.steps,
            "drafted": round(self.drafted / max(self.steps, 1), 2),
            "expected": round(1 + self.expected / max(self.steps, 1), 3),
            "us_p50": round(self.microseconds(0.5), 1),
            "us_p99": round(self.microseconds(0.99), 1),
            "by_source": {name: round(r.mean_accepted, 4) for name, r in self.by_source.items()},
        }


def replay(
    method: Drafter | Method, traces: Iterable[Trace], *, budget: int = 32, recycle: bool = False
) -> Result:
    """Replays traces one after another through a fresh ``method``.

    Parameters
    ----------
    method : Drafter or a method of ``tokamask.methods``
        It keeps what it learns from trace to trace.
    traces : iterable of Trace
        In recorded order.
    budget : int
        Most nodes per draft.
    recycle : bool
        Hand the recorded likeliest tokens to the method too. Those of rejected nodes were not recorded.

    """
    result = Result()
    for trace in traces:
        if len(trace.output_ids) < 2:
            continue
        kind = result.by_source.setdefault(trace.source, Result())
        top = trace.topk_ids if recycle else None
        session = method.session(trace.prompt_ids, prompt_topk=trace.prompt_topk if recycle else None)
        # The prefill writes the first token; drafts begin after it.
        session.update(trace.output_ids[:1], **_rows(trace, top, 0, 1))
        position = 1
        while position < len(trace.output_ids):
            start = time.perf_counter()
            tree = session.propose(budget)
            proposed = time.perf_counter() - start
            rest = trace.output_ids[position : position + int(tree.depths[-1] if len(tree) else 0) + 1]
            targets = [rest[depth] if depth < len(rest) else -1 for depth in [0, *tree.depths.tolist()]]
            path = verify_greedy(tree, targets)[2]
            end = min(position + len(path) + 1, len(trace.output_ids))
            rows = _rows(trace, top, position, end)
            start = time.perf_counter()
            session.update(trace.output_ids[position:end], **rows)
            seconds = proposed + time.perf_counter() - start
            for total in (result, kind):
                total.tokens += end - position
                total.steps += 1
                total.drafted += len(tree)
                total.expected += float(tree.probs.sum())
                total.times.append(seconds)
            position = end
    return result


def _rows(trace: Trace, top: list[list[int]] | None, start: int, end: int) -> dict[str, Sequence[Any]]:
    if top is None:
        return {}
    return {"topk_ids": top[start:end]}


def table(results: dict[str, dict[int, Result]]) -> str:
    """Lines of text: a method per line, tokens per forward at each budget, then cost at the first budget."""
    budgets = sorted({budget for row in results.values() for budget in row})
    width = max([len(name) for name in results] + [6])
    head = "".join(f"{'B=' + str(budget):>9}" for budget in budgets)
    lines = [f"{'method':{width}}{head}{'drafted':>9}{'us p50':>9}{'us p99':>9}"]
    for name, row in results.items():
        first = row[budgets[0]]
        cells = "".join(f"{row[budget].mean_accepted:9.3f}" for budget in budgets)
        cost = f"{first.drafted / max(first.steps, 1):9.1f}{first.microseconds(0.5):9.1f}{first.microseconds(0.99):9.1f}"
        lines.append(f"{name:{width}}{cells}{cost}")
    return "\n".join(lines)

"""Guessing the next tokens: tokens per verification step (what it is worth) and the median time of a step's propose and update, with the 99th percentile beside it (what it costs).

Every turn starts with nothing learned. "+ logits" hands over the model's runners-up, which only some can use.
"""

import pytest

from bench import traces
from bench.rivals import contestants, prepared

BUDGET = 32


@pytest.mark.parametrize("contestant", contestants("draft"))
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("what", ["tokens/step", "us", "us, 99th percentile"])
def test_draft(measure, contestant, logits, what, turn):
    name, recorded = traces.load()
    if logits and (not contestant.uses_logits or "top8_ids" not in recorded[0]):
        pytest.skip("no logits, or no use for them")
    if what == "tokens/step" and turn:
        pytest.skip("the same in every turn")
    drafter = prepared(contestant, "draft")
    measure(
        lambda: traces.replay(drafter(), recorded, BUDGET, with_logits=logits),
        value=lambda total: (
            total.tokens / total.steps
            if what == "tokens/step"
            else total.microseconds(0.5 if what == "us" else 0.99)
        ),
        unit=what.split(",")[0],
        input=f"{name}, {BUDGET} nodes" + (" + logits" if logits else ""),
        state={"us": "", "tokens/step": "worth"}.get(what, "99th percentile"),
        headline=not logits,
    )

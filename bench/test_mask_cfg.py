"""Context-free grammars: the mask before every token, and its acceptance. Mean per token, one thread.

fresh: a grammar that the engine has not seen. repeat: the same compiled grammars and texts again. Lark's notation
where an engine reads it, EBNF otherwise; texts that match and, up to their first wrong token, texts that do not.
"""

import pytest

from bench import grammars, masks, vocabularies
from bench.rivals import contestants, prepared

VOCABULARIES = vocabularies.for_masks()[:1]
KEPT: dict = {}
"""What was compiled last: both states of a turn use it."""


@pytest.mark.parametrize("contestant", contestants("mask_cfg"))
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("state", ["fresh", "repeat"])
@pytest.mark.parametrize("case", grammars.CASES, ids=lambda case: case.name)
def test_mask_cfg(measure, contestant, vocabulary, state, case, turn):
    engine = prepared(contestant, "mask_cfg", vocabularies.load(vocabulary))
    key = (contestant.name, vocabulary, case.name)
    if KEPT.get(key, (None,))[0] != turn:
        grammars.warm(engine)
        KEPT[key] = (turn, engine.compile_cfg(case.renamed(turn)))
    compiled = KEPT[key][1]

    def run():
        times = masks.Walk()
        for text in (*case.valid, *case.invalid):
            masks.walk_while_allowed(engine, compiled, masks.ids(vocabulary, text), times)
        return times

    judged = grammars.judged(contestant, vocabulary)
    measure(
        run,
        value=masks.Walk.mean,
        also=lambda times: {**times.quantiles(), f"right (of {grammars.TEXTS})": judged},
        unit="us",
        input=f"{case.name}, {vocabulary} ({vocabularies.load(vocabulary).size:,} tokens)",
        state=state,
        headline=state == "fresh",
    )

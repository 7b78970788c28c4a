"""The mask before every token and the acceptance of the token, along a document. Mean per token, one thread.

fresh: a schema that the engine has not seen. repeat: the same compiled grammar and document again.
"""

import pytest

from bench import masks, vocabularies
from bench.rivals import contestants, prepared

CASES = masks.rows_of_the_table()


@pytest.mark.parametrize("contestant", contestants("mask"))
@pytest.mark.parametrize(("vocabulary", "kind"), CASES)
@pytest.mark.parametrize("state", ["fresh", "repeat"])
def test_mask(measure, contestant, vocabulary, kind, state, turn):
    engine = prepared(contestant, "mask", vocabularies.load(vocabulary))
    work = compiled(contestant, vocabulary, kind, turn)

    def run():
        times = masks.Walk()
        for grammar, token_ids in work:
            masks.walk(engine, grammar, token_ids, times)
        return times

    takes = len(masks.taken(contestant, vocabulary, kind))
    measure(
        run,
        value=masks.Walk.mean,
        also=lambda times: {**times.quantiles(), f"takes (of {len(masks.cases(kind))})": takes},
        unit="us",
        input=f"{kind}, {vocabulary} ({vocabularies.load(vocabulary).size:,} tokens)",
        state=state,
        headline=state == "fresh" and vocabulary == vocabularies.for_masks()[0],
    )


def compiled(contestant, vocabulary, kind, turn, kept={}):  # noqa: B006
    """The turn's share of the schemas, compiled anew; both states of a turn use it."""
    key = (contestant.name, vocabulary, kind)
    if kept.get(key, (None,))[0] != turn:
        engine = prepared(contestant, "mask", vocabularies.load(vocabulary))
        share = masks.common(vocabulary, kind)
        share = share[turn % 5 :: 5] if kind == "real schemas" else share
        kept[key] = (
            turn,
            [(engine.compile(case.renamed(turn)), masks.ids(vocabulary, case.document)) for case in share],
        )
    return kept[key][1]

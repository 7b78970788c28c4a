"""llguidance: masks from a lazily built parser over a token trie."""

from bench.rivals import Rival


class LLGuidance(Rival):
    name = "llguidance"
    distribution = "llguidance"
    needs = ("llguidance",)


ADAPTER = LLGuidance()

"""xgrammar: masks with precomputed token tables. It needs torch and transformers to import."""

from bench.rivals import Rival


class XGrammar(Rival):
    name = "xgrammar"
    distribution = "xgrammar"
    needs = ("torch", "xgrammar")


ADAPTER = XGrammar()

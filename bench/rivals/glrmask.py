"""glrmask: a parser's states and the vocabulary precomputed into one automaton."""

import numpy as np

from bench.rivals import Rival


class Engine:
    """It masks ordinary tokens only; whether the text may end is asked for apart and added."""

    def __init__(self, files):
        import glrmask

        self.package = glrmask
        ordinary = {i: token for i, token in enumerate(files.tokens) if i not in files.special.values()}
        self.vocabulary = glrmask.Vocab.from_id_to_bytes(ordinary)
        self.eos = files.special[files.eos]
        self.row = np.zeros(-(-files.size // 32), np.int32)

    def compile(self, schema):
        return self._compiled(self.package.Grammar.from_json_schema(schema))

    def compile_cfg(self, case):
        return self._compiled(self.package.Grammar.from_lark(case.lark))

    def _compiled(self, grammar):
        return grammar.compile(self.vocabulary, mask_strategy=self.package.MaskStrategy.AUTO)

    def start(self, compiled):
        state, row, octets = compiled.start(), self.row, self.row.view(np.uint8)
        octet, bit = self.eos >> 3, 1 << (self.eos & 7)

        def fill():
            state.fill_mask(row)
            if state.is_accepting():
                octets[octet] |= bit

        return fill, state.commit_token, row

    def small(self, compiled, token_ids, place):
        """The operations on one state, by name."""
        state = compiled.start()
        for token_id in token_ids[:place]:
            state.commit_token(token_id)
        row, allowed = self.row, token_ids[place]

        def copy_and_accept():
            state.copy().commit_token(allowed)

        return {
            "unchanged state": lambda: state.fill_mask(row),
            "new state": compiled.start,
            "fork": state.copy,
            "accept and rollback": copy_and_accept,
        }


class GlrMask(Rival):
    name = "glrmask"
    distribution = "glrmask"
    needs = ("glrmask",)

    def mask(self, files):
        return Engine(files)

    compile_grammar = mask_cfg = mask


ADAPTER = GlrMask()

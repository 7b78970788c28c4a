"""llguidance: masks from a lazily built parser over a token trie."""

import numpy as np

from bench.rivals import Rival


class Engine:
    def __init__(self, files):
        import llguidance

        self.package = llguidance
        self.tokenizer = llguidance.LLTokenizer(
            files.tokenizer_json.read_text(encoding="utf-8"),
            n_vocab=files.size,
            eos_token=files.special[files.eos],
        )
        self.row = np.zeros(-(-files.size // 32), np.int32)

    def compile(self, schema):
        return self._matcher(self.package.LLMatcher.grammar_from_json_schema(schema))

    def compile_cfg(self, case):
        return self._matcher(self.package.LLMatcher.grammar_from_lark(case.lark))

    def _matcher(self, grammar):
        matcher = self.package.LLMatcher(self.tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def start(self, compiled):
        matcher = compiled.deep_copy()
        address, size, compute = self.row.ctypes.data, self.row.nbytes, matcher.unsafe_compute_mask_ptr
        return lambda: compute(address, size), matcher.consume_token, self.row

    def small(self, compiled, token_ids, place):
        """The operations on one state, by name."""
        matcher = compiled.deep_copy()
        matcher.consume_tokens(token_ids[:place])
        address, size, compute = self.row.ctypes.data, self.row.nbytes, matcher.unsafe_compute_mask_ptr
        allowed = token_ids[place]

        def there_and_back():
            matcher.consume_token(allowed)
            matcher.rollback(1)

        return {
            "unchanged state": lambda: compute(address, size),
            "new state": compiled.deep_copy,
            "fork": matcher.deep_copy,
            "is_allowed": lambda: matcher.validate_tokens([allowed]),
            "accept and rollback": there_and_back,
        }


class LLGuidance(Rival):
    name = "llguidance"
    distribution = "llguidance"
    needs = ("llguidance",)

    def mask(self, files):
        return Engine(files)

    compile_grammar = mask_cfg = mask


ADAPTER = LLGuidance()

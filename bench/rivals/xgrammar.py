"""xgrammar: masks with precomputed token tables. It needs torch and transformers to import."""

from bench.rivals import Rival


class Engine:
    """Its compliant mode: any white space, undeclared properties as the schema says."""

    def __init__(self, files):
        import xgrammar

        self.package = xgrammar
        info = xgrammar.TokenizerInfo(
            files.tokens,
            xgrammar.VocabType.RAW,
            vocab_size=files.size,
            stop_token_ids=[files.special[files.eos]],
        )
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        self.mask = xgrammar.allocate_token_bitmask(1, files.size)
        self.row = self.mask.numpy()[0]

    def compile(self, schema):
        return self.compiler.compile_json_schema(schema, any_whitespace=True, strict_mode=False)

    def compile_cfg(self, case):
        return self.compiler.compile_grammar(case.ebnf)

    def start(self, compiled):
        matcher = self.package.GrammarMatcher(compiled)
        mask, fill_next = self.mask, matcher.fill_next_token_bitmask

        def fill():
            if not fill_next(mask, 0):
                mask.fill_(-1)

        return fill, matcher.accept_token, self.row


class XGrammar(Rival):
    name = "xgrammar"
    distribution = "xgrammar"
    needs = ("torch", "transformers", "xgrammar")

    def mask(self, files):
        return Engine(files)

    compile_grammar = mask_cfg = mask

    def apply_bitmask(self):
        import torch
        import xgrammar

        def prepare(logits, bitmask):
            own, mask = torch.from_numpy(logits.copy()), torch.from_numpy(bitmask)
            return lambda: xgrammar.apply_token_bitmask_inplace(own, mask)

        return prepare


ADAPTER = XGrammar()

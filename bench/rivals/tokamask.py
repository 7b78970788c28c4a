"""tokamask itself, by its public names."""

import os

from bench.rivals import Rival


class Engine:
    def __init__(self, files):
        import tokamask as tm

        self.package = tm
        self.vocabulary = tm.Vocabulary(
            [token or None for token in files.tokens],
            special=files.special,
            eos_ids=[files.special[files.eos]],
        )
        self.mask = tm.allocate_bitmask(1, files.size)
        self.limits = tm.Limits()

    def compile(self, schema, **options):
        grammar = self.package.Grammar.json_schema(schema, **options)
        return self.package.compile(grammar, self.vocabulary, limits=self.limits, cache=False)

    def compile_cfg(self, case):
        return self.package.compile(self.package.Grammar.lark(case.lark), self.vocabulary, cache=False)

    def start(self, compiled):
        matcher = compiled.matcher()
        mask, fill = self.mask, matcher.fill_bitmask
        return lambda: fill(mask, 0), matcher.accept, mask[0]

    def small(self, compiled, token_ids, place):
        """The operations on one state, by name."""
        matcher = compiled.matcher()
        matcher.accept_prefix(token_ids[:place])
        mask, allowed = self.mask, token_ids[place]
        fill, accept, rollback = matcher.fill_bitmask, matcher.accept, matcher.rollback

        def there_and_back():
            accept(allowed)
            rollback()

        return {
            "unchanged state": lambda: fill(mask),
            "shared row": matcher.mask_row,
            "new state": compiled.matcher,
            "fork": matcher.fork,
            "is_allowed": lambda: matcher.is_allowed(allowed),
            "accept and rollback": there_and_back,
        }


class Tokamask(Rival):
    name = "tokamask"
    distribution = "tokamask"
    needs = ("tokamask",)
    uses_logits = True

    @staticmethod
    def _tokenizer(files):
        import tokamask as tm

        if files.tiktoken:
            return tm.Tokenizer.from_tiktoken(
                files.tiktoken, pattern=files.pattern, special_tokens=files.special
            )
        return tm.Tokenizer.from_file(files.gguf)

    def encode(self, files):
        return self._tokenizer(files).encode

    def append(self, files):
        tokenizer = self._tokenizer(files)

        def start():
            growing = tokenizer.appender()

            def add(text):
                growing.append(text)
                return len(growing)

            return add

        return start

    def count(self, files):
        return self._tokenizer(files).count

    def drop_in(self, files):
        from tokamask.compat import tiktoken

        return tiktoken.Encoding(
            files.name, pat_str=files.pattern, mergeable_ranks=files.ranks, special_tokens=files.special
        ).encode

    def encode_array(self, files):
        return self._tokenizer(files).encode_array

    def encode_batch(self, files):
        return self._tokenizer(files).encode_batch

    def decode(self, files):
        return self._tokenizer(files).decode

    def load(self, files):
        import tokamask as tm

        return lambda: tm.Tokenizer.from_file(files.tokenizer_json)

    def load_compiled(self, files):
        import tokamask as tm
        from bench.data import cached

        tokenizer = tm.Tokenizer.from_file(files.tokenizer_json)
        built = int(os.stat(tm._core.__file__).st_mtime)  # a file of another build may have other tables
        path = cached(f"{files.name}-{built}.tokamask", tokenizer.save)
        return lambda: tm.Tokenizer.from_file(path)

    def superword(self, files, form):
        import tokamask as tm

        tokenizer = tm.Tokenizer.from_file(files.tokenizer_json)
        return tokenizer.encode if form == "list" else tokenizer.encode_array

    def marked(self, files, form):
        import tokamask as tm

        tokenizer = tm.Tokenizer.from_file(files.path)
        return tokenizer.encode if form == "list" else tokenizer.encode_array

    latency = adversarial = encode_array

    def train(self, vocab_size):
        import tokamask as tm

        return lambda path: tm.train.bpe(path, vocab_size=vocab_size, progress=False)

    def count_pretokens(self):
        import tokamask as tm

        return lambda path: tm.train.count(path, progress=False)

    def train_superbpe(self, vocab_size):
        import tokamask as tm

        sizes = {"vocab_size": vocab_size, "transition": vocab_size * 3 // 4}
        return lambda path: tm.train.superbpe(path, **sizes, progress=False)

    def mask(self, files):
        return Engine(files)

    compile_grammar = mask_cfg = mask

    def sample(self):
        import tokamask as tm

        sample = tm.sampling.sample
        return lambda logits, bitmask, **options: (
            lambda: sample(logits, bitmask=bitmask, seed=1, **options)[0]
        )

    def apply_bitmask(self):
        import tokamask as tm

        def prepare(logits, bitmask):
            own = logits.copy()
            return lambda: tm.apply_bitmask(own, bitmask)

        return prepare

    def top_k(self):
        import tokamask as tm

        return lambda scores, k: lambda: tm.selection.top_k(scores, k)

    def attention(self):
        import tokamask as tm

        def prepare(x):
            if x.selected is None:
                return lambda: tm.attention.decode(
                    x.q, x.k_cache, x.v_cache, x.page_table, seq_lens=x.seq_lens
                )
            return lambda: tm.attention.sparse_decode(
                x.q, x.k_cache, x.v_cache, x.page_table, x.selected, seq_lens=x.seq_lens
            )

        return prepare

    def prefill(self):
        import numpy as np

        import tokamask as tm

        def prepare(q, k, v, *, blocks=None, selected=None):
            if selected is not None:
                return lambda: tm.attention.selected_prefill(q, k, v, selected)
            indptr = np.r_[0, blocks.sum(axis=1).cumsum()].astype(np.int32)
            indices = np.nonzero(blocks)[1].astype(np.int32)
            return lambda: tm.attention.block_sparse_prefill(q, k, v, indptr, indices)

        return prepare

    def reduce(self):
        import tokamask as tm

        return lambda how, x, count: lambda: getattr(tm.selection, how)(x, count)

    def select(self):
        import tokamask as tm

        def prepare(name, arguments, options):
            name = name.partition(" ")[0]
            places = (tm.attention, tm.selection, tm.sampling, tm)
            run = next(getattr(place, name) for place in places if hasattr(place, name))
            return lambda: run(*arguments, **options)

        return prepare

    def draft(self):
        import numpy as np

        import tokamask as tm

        def new():
            drafter = tm.Drafter()

            def start(prompt_ids, prompt_topk):
                topk = None if prompt_topk is None else np.asarray(prompt_topk, np.uint32)
                session = drafter.session(prompt_ids, prompt_topk=topk)

                def propose(budget):
                    tree = session.propose(budget)
                    return tree.token_ids, tree.parents

                def observe(tokens, topk):
                    session.update(tokens, topk_ids=None if topk is None else np.asarray(topk, np.uint32))

                return propose, observe

            return start

        return new

    def generate(self):
        import time
        from types import SimpleNamespace

        from tokamask.demo.generate import Model, generate

        loaded = Model.load(progress=False)

        def write(prompt, schema, drafts):
            model = Model(
                loaded.engine, loaded.tokenizer
            )  # its drafter is new: a text is never its own draft
            start = time.perf_counter()
            done = generate(prompt, schema=schema, drafts=drafts, max_tokens=120, model=model)
            return SimpleNamespace(ids=done.ids, text=done.text, seconds=time.perf_counter() - start)

        return write


ADAPTER = Tokamask()

"""tokamask itself, by its public names."""

from bench.rivals import Rival


class Tokamask(Rival):
    name = "tokamask"
    distribution = "tokamask"
    needs = ("tokamask",)

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

    def encode_array(self, files):
        return self._tokenizer(files).encode_array

    def encode_batch(self, files):
        return self._tokenizer(files).encode_batch

    def decode(self, files):
        return self._tokenizer(files).decode

    def train(self, vocab_size):
        import tokamask as tm

        return lambda path: tm.train.bpe(path, vocab_size=vocab_size, progress=False)

    def train_superbpe(self, vocab_size):
        import tokamask as tm

        sizes = {"vocab_size": vocab_size, "transition": vocab_size * 3 // 4}
        return lambda path: tm.train.superbpe(path, **sizes, progress=False)

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

    def draft(self):
        import tokamask as tm

        drafter = tm.Drafter()

        def serve(texts, steps):
            each = steps // len(texts)
            for text in texts:
                session = drafter.session(text[:200])
                for start in range(200, 200 + 2 * each, 2):
                    session.propose(32)
                    session.update(text[start : start + 2])

        return serve


ADAPTER = Tokamask()

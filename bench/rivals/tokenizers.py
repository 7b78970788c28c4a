"""Hugging Face tokenizers, from a tokenizer.json."""

from bench.rivals import Rival


class Tokenizers(Rival):
    name = "tokenizers"
    distribution = "tokenizers"
    needs = ("tokenizers",)

    @staticmethod
    def _tokenizer(files):
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer_json))
        tokenizer.encode_special_tokens = True  # text of special tokens is ordinary text, as for the others
        return tokenizer

    def encode(self, files):
        tokenizer = self._tokenizer(files)
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, files):
        encode = self._tokenizer(files).encode_batch_fast
        return lambda texts: [row.ids for row in encode(texts, add_special_tokens=False)]

    def superword(self, files, form):
        return self.encode(files)  # lists are all it has

    adversarial = encode

    def marked(self, files, form):
        return self.encode(files) if form == "list" and files.tokenizer_json else None

    def load(self, files):
        return lambda: self._tokenizer(files)

    def decode(self, files):
        decode = self._tokenizer(files).decode
        return lambda ids: decode(ids, skip_special_tokens=False)

    def train(self, vocab_size):
        import tokenizers

        def run(path):
            tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
            tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
            trainer = tokenizers.trainers.BpeTrainer(
                vocab_size=vocab_size,
                initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
                show_progress=False,
            )
            tokenizer.train([str(path)], trainer)

        return run


ADAPTER = Tokenizers()

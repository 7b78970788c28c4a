"""fastokens: a rebuild of Hugging Face's tokenizers; its lists share their int objects."""

from bench.rivals import Rival, again


class Fastokens(Rival):
    name = "fastokens"
    distribution = "fastokens"
    needs = ("fastokens",)

    @staticmethod
    def _tokenizer(files):
        from fastokens import _native

        return _native.Tokenizer.from_file(str(files.tokenizer_json))

    def encode(self, files):
        encode = self._tokenizer(files).encode
        return lambda text: encode(text, add_special_tokens=False).ids

    def append(self, files):
        return again(self.encode(files))

    def count(self, files):
        encode = self.encode(files)
        return lambda text: len(encode(text))

    def decode(self, files):
        return self._tokenizer(files).decode

    def load(self, files):
        return lambda: self._tokenizer(files)

    def marked(self, files, form):
        return self.encode(files) if form == "list" and files.tokenizer_json else None

    def superword(self, files, form):
        return self.encode(files)  # lists are all it has

    latency = adversarial = encode


ADAPTER = Fastokens()

"""gigatoken: byte-pair encoding with hand-written scanners for known split rules."""

from bench.rivals import Rival


class Gigatoken(Rival):
    name = "gigatoken"
    distribution = "gigatoken"
    needs = ("gigatoken",)

    @staticmethod
    def _tokenizer(files):
        import gigatoken

        return gigatoken.Tokenizer(str(files.tokenizer_json))

    def takes(self, vocabulary):
        return vocabulary in (
            "o200k",
            "llama3",
        )  # it wants all bytes in the vocabulary and a rule that it knows

    def encode(self, files):
        encode = self._tokenizer(files).encode
        return lambda text: encode(text).tolist()

    def encode_array(self, files):
        return self._tokenizer(files).encode

    def encode_batch(self, files):
        return self._tokenizer(files).encode_batch

    def decode(self, files):
        decode = self._tokenizer(files).decode
        return lambda ids: decode(ids).decode(errors="replace")  # it gives bytes

    def marked(self, files, form):
        import gigatoken

        if files.tokenizer_json:
            encode = self._tokenizer(files).encode
        else:
            encode = gigatoken.Tokenizer.from_sentencepiece(str(files.model)).encode
        return encode if form == "array" else lambda text: encode(text).tolist()

    def load(self, files):
        return lambda: self._tokenizer(files)

    latency = adversarial = encode_array


ADAPTER = Gigatoken()

"""gigabpe: byte-level BPE training in Rust."""

from bench.rivals import Rival


class Gigabpe(Rival):
    name = "gigabpe"
    distribution = "gigabpe"
    needs = ("gigabpe",)

    def train(self, vocab_size):
        import gigabpe

        return lambda path: gigabpe.train_bpe([str(path)], vocab_size, pretokenizer="bytelevel")


ADAPTER = Gigabpe()

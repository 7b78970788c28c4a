"""SentencePiece itself."""

from bench.rivals import Rival


class SentencePiece(Rival):
    name = "sentencepiece"
    distribution = "sentencepiece"
    needs = ("sentencepiece",)

    def marked(self, files, form):
        from sentencepiece import SentencePieceProcessor

        if form != "list" or files.model is None:
            return None
        return SentencePieceProcessor(model_file=str(files.model)).encode


ADAPTER = SentencePiece()

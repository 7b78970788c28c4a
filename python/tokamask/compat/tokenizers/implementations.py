"""Tokenizers with their components already chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tokamask.compat.tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers
from tokamask.compat.tokenizers.models import BPE, Unigram, WordPiece
from tokamask.compat.tokenizers.tokenizer import Tokenizer


class BaseTokenizer:
    """A :class:`Tokenizer` and the options it was made of; every method of the tokenizer is one of this object.

    Examples
    --------
    >>> BaseTokenizer(Tokenizer(BPE())).get_vocab_size()
    0
    """

    def __init__(self, tokenizer: Tokenizer, parameters: dict[str, Any] | None = None) -> None:
        self.__dict__["_tokenizer"] = tokenizer
        self.__dict__["_parameters"] = parameters or {}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in self._parameters.items())
        return f"Tokenizer(vocabulary_size={self._tokenizer.get_vocab_size()}, {options})"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.__dict__["_tokenizer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tokenizer, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def normalize(self, sequence: str) -> str:
        """The normal form of a text."""
        normalizer = self._tokenizer.normalizer
        return sequence if normalizer is None else str(normalizer.normalize_str(sequence))

    def encode(
        self, sequence: Any, pair: Any = None, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Any:
        """The encoding of a text, or of two."""
        if sequence is None:
            raise ValueError("encode: `sequence` can't be `None`")
        return self._tokenizer.encode(sequence, pair, is_pretokenized, add_special_tokens)

    def encode_batch(
        self, inputs: Any, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Any:
        """The encodings of many texts."""
        if inputs is None:
            raise ValueError("encode_batch: `inputs` can't be `None`")
        return self._tokenizer.encode_batch(inputs, is_pretokenized, add_special_tokens)

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        if ids is None:
            raise ValueError("None input is not valid. Should be a list of integers.")
        return str(self._tokenizer.decode(ids, skip_special_tokens))

    def save_model(self, directory: str, prefix: str | None = None) -> list[str]:
        """Writes the model's own files."""
        paths: list[str] = self._tokenizer.model.save(directory, prefix)
        return paths

    def _learn(self, files: Any, texts: Any, trainer: Any, length: int | None = None) -> None:
        if texts is None:
            self._tokenizer.train([files] if isinstance(files, str) else files, trainer=trainer)
        else:
            self._tokenizer.train_from_iterator(texts, trainer=trainer, length=length)


def _normalizer(*parts: Any) -> Any:
    kept = [part for part in parts if part is not None]
    return None if not kept else kept[0] if len(kept) == 1 else normalizers.Sequence(kept)


def _unicode(name: str | None) -> Any:
    return None if not name else normalizers.unicode_normalizer_from_str(name)


_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class BertWordPieceTokenizer(BaseTokenizer):
    """BERT's."""

    def __init__(
        self,
        vocab: Any = None,
        unk_token: Any = "[UNK]",
        sep_token: Any = "[SEP]",
        cls_token: Any = "[CLS]",
        pad_token: Any = "[PAD]",
        mask_token: Any = "[MASK]",
        clean_text: bool = True,
        handle_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        lowercase: bool = True,
        wordpieces_prefix: str = "##",
    ) -> None:
        options = {
            name: value for name, value in locals().items() if name not in ("self", "vocab", "__class__")
        }
        tokenizer = Tokenizer(WordPiece(vocab, unk_token=str(unk_token)))
        for token in (unk_token, sep_token, cls_token, pad_token, mask_token):
            if tokenizer.token_to_id(str(token)) is not None:
                tokenizer.add_special_tokens([str(token)])
        tokenizer.normalizer = normalizers.BertNormalizer(
            clean_text, handle_chinese_chars, strip_accents, lowercase
        )
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        if vocab is not None:
            around = [(str(token), tokenizer.token_to_id(str(token))) for token in (sep_token, cls_token)]
            for name, (_, token_id) in zip(("sep_token", "cls_token"), around, strict=True):
                if token_id is None:
                    raise TypeError(f"{name} not found in the vocabulary")
            tokenizer.post_processor = processors.BertProcessing(*around)  # type: ignore[arg-type]
        tokenizer.decoder = decoders.WordPiece(prefix=wordpieces_prefix)
        super().__init__(tokenizer, {"model": "BertWordPiece", **options})

    @staticmethod
    def from_file(vocab: str, **options: Any) -> BertWordPieceTokenizer:
        """From a ``vocab.txt``."""
        return BertWordPieceTokenizer(WordPiece.read_file(vocab), **options)

    def train(
        self,
        files: Any = None,
        vocab_size: int = 30000,
        min_frequency: int = 2,
        limit_alphabet: int = 1000,
        initial_alphabet: Sequence[str] = (),
        special_tokens: Sequence[Any] = _BERT,
        show_progress: bool = True,
        wordpieces_prefix: str = "##",
        *,
        texts: Any = None,
        length: int | None = None,
    ) -> None:
        """Learns from files."""
        trainer = trainers.WordPieceTrainer(
            vocab_size,
            min_frequency,
            show_progress,
            special_tokens,
            limit_alphabet,
            initial_alphabet,
            wordpieces_prefix,
        )
        self._learn(files, texts, trainer, length)

    def train_from_iterator(self, iterator: Iterable[Any], *args: Any, **options: Any) -> None:
        """Learns from texts."""
        self.train(None, *args, texts=iterator, **options)


class CharBPETokenizer(BaseTokenizer):
    """BPE over characters, words ended by a suffix."""

    def __init__(
        self,
        vocab: Any = None,
        merges: Any = None,
        unk_token: Any = "<unk>",
        suffix: str = "</w>",
        dropout: float | None = None,
        lowercase: bool = False,
        unicode_normalizer: str | None = None,
        bert_normalizer: bool = True,
        split_on_whitespace_only: bool = False,
    ) -> None:
        hidden = ("self", "vocab", "merges", "__class__")
        options = {name: value for name, value in locals().items() if name not in hidden}
        tokenizer = Tokenizer(
            BPE(vocab, merges, dropout=dropout, unk_token=str(unk_token), end_of_word_suffix=suffix)
        )
        if tokenizer.token_to_id(str(unk_token)) is not None:
            tokenizer.add_special_tokens([str(unk_token)])
        tokenizer.normalizer = _normalizer(
            _unicode(unicode_normalizer),
            normalizers.BertNormalizer(lowercase=False) if bert_normalizer else None,
            normalizers.Lowercase() if lowercase else None,
        )
        cut = pre_tokenizers.WhitespaceSplit if split_on_whitespace_only else pre_tokenizers.BertPreTokenizer
        tokenizer.pre_tokenizer = cut()
        tokenizer.decoder = decoders.BPEDecoder(suffix=suffix)
        super().__init__(tokenizer, {"model": "BPE", **options})

    @staticmethod
    def from_file(vocab_filename: str, merges_filename: str, **options: Any) -> CharBPETokenizer:
        """From ``vocab.json`` and ``merges.txt``."""
        return CharBPETokenizer(*BPE.read_file(vocab_filename, merges_filename), **options)

    def train(
        self,
        files: Any = None,
        vocab_size: int = 30000,
        min_frequency: int = 2,
        special_tokens: Sequence[Any] = ("<unk>",),
        limit_alphabet: int = 1000,
        initial_alphabet: Sequence[str] = (),
        suffix: str | None = "</w>",
        show_progress: bool = True,
        *,
        texts: Any = None,
        length: int | None = None,
    ) -> None:
        """Learns from files."""
        trainer = trainers.BpeTrainer(
            vocab_size,
            min_frequency,
            show_progress,
            special_tokens,
            limit_alphabet,
            initial_alphabet,
            end_of_word_suffix=suffix,
        )
        self._learn(files, texts, trainer, length)

    def train_from_iterator(self, iterator: Iterable[Any], *args: Any, **options: Any) -> None:
        """Learns from texts."""
        self.train(None, *args, texts=iterator, **options)


class ByteLevelBPETokenizer(BaseTokenizer):
    """GPT-2's."""

    def __init__(
        self,
        vocab: Any = None,
        merges: Any = None,
        add_prefix_space: bool = False,
        lowercase: bool = False,
        dropout: float | None = None,
        unicode_normalizer: str | None = None,
        continuing_subword_prefix: str | None = None,
        end_of_word_suffix: str | None = None,
        trim_offsets: bool = False,
    ) -> None:
        hidden = ("self", "vocab", "merges", "__class__")
        options = {name: value for name, value in locals().items() if name not in hidden}
        model = BPE(
            vocab,
            merges,
            dropout=dropout,
            continuing_subword_prefix=continuing_subword_prefix or "",
            end_of_word_suffix=end_of_word_suffix or "",
        )
        tokenizer = Tokenizer(model if vocab is not None else BPE())
        tokenizer.normalizer = _normalizer(
            _unicode(unicode_normalizer), normalizers.Lowercase() if lowercase else None
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
        super().__init__(tokenizer, {"model": "ByteLevelBPE", **options})

    @staticmethod
    def from_file(vocab_filename: str, merges_filename: str, **options: Any) -> ByteLevelBPETokenizer:
        """From ``vocab.json`` and ``merges.txt``."""
        return ByteLevelBPETokenizer(*BPE.read_file(vocab_filename, merges_filename), **options)

    def train(
        self,
        files: Any = None,
        vocab_size: int = 30000,
        min_frequency: int = 2,
        show_progress: bool = True,
        special_tokens: Sequence[Any] = (),
        *,
        texts: Any = None,
        length: int | None = None,
    ) -> None:
        """Learns from files."""
        trainer = trainers.BpeTrainer(
            vocab_size,
            min_frequency,
            show_progress,
            special_tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )
        self._learn(files, texts, trainer, length)

    def train_from_iterator(self, iterator: Iterable[Any], *args: Any, **options: Any) -> None:
        """Learns from texts."""
        self.train(None, *args, texts=iterator, **options)


class SentencePieceBPETokenizer(BaseTokenizer):
    """BPE over characters, spaces made visible."""

    def __init__(
        self,
        vocab: Any = None,
        merges: Any = None,
        unk_token: Any = "<unk>",
        replacement: str = "▁",
        add_prefix_space: bool = True,
        dropout: float | None = None,
        fuse_unk: bool = False,
    ) -> None:
        hidden = ("self", "vocab", "merges", "__class__")
        options = {name: value for name, value in locals().items() if name not in hidden}
        tokenizer = Tokenizer(
            BPE(vocab, merges, dropout=dropout, unk_token=str(unk_token), fuse_unk=fuse_unk)
        )
        if tokenizer.token_to_id(str(unk_token)) is not None:
            tokenizer.add_special_tokens([str(unk_token)])
        tokenizer.normalizer = normalizers.NFKC()
        scheme = "always" if add_prefix_space else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement, scheme)
        tokenizer.decoder = decoders.Metaspace(replacement, scheme)
        super().__init__(tokenizer, {"model": "SentencePieceBPE", **options})

    @staticmethod
    def from_file(vocab_filename: str, merges_filename: str, **options: Any) -> SentencePieceBPETokenizer:
        """From ``vocab.json`` and ``merges.txt``."""
        return SentencePieceBPETokenizer(*BPE.read_file(vocab_filename, merges_filename), **options)

    def train(
        self,
        files: Any = None,
        vocab_size: int = 30000,
        min_frequency: int = 2,
        special_tokens: Sequence[Any] = ("<unk>",),
        limit_alphabet: int = 1000,
        initial_alphabet: Sequence[str] = (),
        show_progress: bool = True,
        *,
        texts: Any = None,
        length: int | None = None,
    ) -> None:
        """Learns from files."""
        trainer = trainers.BpeTrainer(
            vocab_size, min_frequency, show_progress, special_tokens, limit_alphabet, initial_alphabet
        )
        self._learn(files, texts, trainer, length)

    def train_from_iterator(self, iterator: Iterable[Any], *args: Any, **options: Any) -> None:
        """Learns from texts."""
        self.train(None, *args, texts=iterator, **options)


class SentencePieceUnigramTokenizer(BaseTokenizer):
    """Unigram, spaces made visible."""

    def __init__(self, vocab: Any = None, replacement: str = "▁", add_prefix_space: bool = True) -> None:
        from tokamask.compat.tokenizers.regex import Regex

        tokenizer = Tokenizer(Unigram(vocab) if vocab is not None else Unigram())
        spaces = normalizers.Replace(Regex(" {2,}"), " ")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
        scheme = "always" if add_prefix_space else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement, scheme)
        tokenizer.decoder = decoders.Metaspace(replacement, scheme)
        options = {"replacement": replacement, "add_prefix_space": add_prefix_space}
        super().__init__(tokenizer, {"model": "SentencePieceUnigram", **options})

    def train(
        self,
        files: Any = None,
        vocab_size: int = 8000,
        show_progress: bool = True,
        special_tokens: Sequence[Any] | None = None,
        initial_alphabet: Sequence[str] | None = None,
        unk_token: str | None = None,
        *,
        texts: Any = None,
        length: int | None = None,
    ) -> None:
        """Learns from files."""
        trainer = trainers.UnigramTrainer(
            vocab_size, show_progress, special_tokens or (), initial_alphabet or (), unk_token=unk_token
        )
        self._learn(files, texts, trainer, length)

    def train_from_iterator(self, iterator: Iterable[Any], *args: Any, **options: Any) -> None:
        """Learns from texts."""
        self.train(None, *args, texts=iterator, **options)

"""``Tokenizer``: the pipeline of components, with the original's methods."""

from __future__ import annotations

import asyncio
import collections
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from tokamask import Tokenizer as Core
from tokamask import _core
from tokamask.compat.tokenizers import added, component, models, normalizers, pre_tokenizers, processors
from tokamask.compat.tokenizers.added import AddedToken
from tokamask.compat.tokenizers.alphabet import CHARS
from tokamask.compat.tokenizers.component import shown_fields
from tokamask.compat.tokenizers.decoders import Decoder
from tokamask.compat.tokenizers.encoding import Encoding
from tokamask.compat.tokenizers.normalized import NormalizedString
from tokamask.compat.tokenizers.pretokenized import PreTokenizedString, Split, Token
from tokamask.errors import TokamaskError, UnsupportedComponentError

_STRATEGIES = ("longest_first", "only_first", "only_second")


class Tokenizer:
    """A tokenizer put together from components, as ``tokenizers.Tokenizer``.

    Parameters
    ----------
    model : Model

    Examples
    --------
    >>> tokenizer = Tokenizer.from_file("tokenizer.json")  # doctest: +SKIP
    >>> tokenizer.encode("my name").tokens  # doctest: +SKIP
    ['my', 'Ġname']
    """

    def __init__(self, model: models.Model) -> None:
        self._model = model
        self._normalizer: Any = None
        self._pre_tokenizer: Any = None
        self._post_processor: Any = None
        self._decoder: Any = None
        self._truncation: dict[str, Any] | None = None
        self._padding: dict[str, Any] | None = None
        self._added: dict[int, AddedToken] = {}
        self._ids: dict[str, int] = {}
        self._encode_special = False
        self._stamp: Any = None
        self._version = 0

    # Components

    model = property(lambda self: self._model, lambda self, value: self._put("_model", value))
    normalizer = property(lambda self: self._normalizer, lambda self, value: self._put("_normalizer", value))
    pre_tokenizer = property(
        lambda self: self._pre_tokenizer, lambda self, value: self._put("_pre_tokenizer", value)
    )
    post_processor = property(
        lambda self: self._post_processor, lambda self, value: self._put("_post_processor", value)
    )
    decoder = property(lambda self: self._decoder, lambda self, value: self._put("_decoder", value))

    @property
    def encode_special_tokens(self) -> bool:
        """Text of special tokens is ordinary text."""
        return self._encode_special

    @encode_special_tokens.setter
    def encode_special_tokens(self, value: bool) -> None:
        self._put("_encode_special", value)

    def _put(self, name: str, value: Any) -> None:
        setattr(self, name, value)
        self._version += 1

    def _refresh(self) -> None:
        """What is derived from the components, once for every state of them."""
        stamp = (self._version, component.changes)
        if self._stamp == stamp:
            return
        self._raw: dict[str, tuple[int, AddedToken]] = {}
        self._normal: dict[str, tuple[int, AddedToken]] = {}
        self._forms: dict[int, str] = {}
        for token_id, token in self._added.items():
            content = token.content
            if token.normalized and self._normalizer is not None:
                content = self._normalizer.normalize_str(content)
                self._forms[token_id] = content
            if content and not (token.special and self._encode_special):
                (self._normal if token.normalized else self._raw)[content] = (token_id, token)
        self._core: Core | None = None
        self._core_tried = False
        self._knows_places = False
        self._stamp = stamp

    def _fast(self) -> Core | None:
        """The tokenizer of the Rust core with the same components, if it reads them."""
        self._refresh()
        if not self._core_tried:
            self._core_tried = True
            random = isinstance(self._model, models.BPE) and self._model.dropout
            if not random and not self._encode_special:
                try:
                    self._core = Core.from_bytes(self._json(short=True).encode())
                except (TokamaskError, Exception):  # a custom component has no JSON, an odd one no fast path
                    self._core = None
            # The core leaves bytes without a token out, and with them parts that count as words here.
            self._knows_places = (
                self._core is not None
                and self._normalizer is None
                and all(char in self._model._vocab for char in CHARS)
                and not any(token.lstrip or token.rstrip for token in self._added.values())
            )
        return self._core

    # Files

    def _json(self, short: bool = False) -> str:
        state = self._state()
        if short:
            state.update(truncation=None, padding=None)
        return json.dumps(state, ensure_ascii=False)

    def _state(self) -> dict[str, Any]:
        tokens = [
            {
                "id": token_id,
                "content": token.content,
                **{
                    flag: getattr(token, flag)
                    for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
                },
            }
            for token_id, token in sorted(self._added.items())
        ]
        truncation = self._truncation and {
            "direction": self._truncation["direction"].capitalize(),
            "max_length": self._truncation["max_length"],
            "strategy": "".join(word.capitalize() for word in self._truncation["strategy"].split("_")),
            "stride": self._truncation["stride"],
        }
        padding = self._padding and {
            "strategy": {"Fixed": self._padding["length"]}
            if self._padding["length"] is not None
            else "BatchLongest",
            "direction": self._padding["direction"].capitalize(),
            "pad_to_multiple_of": self._padding["pad_to_multiple_of"],
            "pad_id": self._padding["pad_id"],
            "pad_type_id": self._padding["pad_type_id"],
            "pad_token": self._padding["pad_token"],
        }
        parts = (self._normalizer, self._pre_tokenizer, self._post_processor, self._decoder)
        names = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        return {
            "version": "1.0",
            "truncation": truncation,
            "padding": padding,
            "added_tokens": tokens,
            **{
                name: None if part is None else part.to_json()
                for name, part in zip(names, parts, strict=True)
            },
            "model": self._model.to_json(),
        }

    def to_str(self, pretty: bool = False) -> str:
        """The tokenizer as the text of a tokenizer.json."""
        if pretty:
            return json.dumps(self._state(), ensure_ascii=False, indent=2)
        return json.dumps(self._state(), ensure_ascii=False, separators=(",", ":"))

    def save(self, path: str, pretty: bool = True) -> None:
        """Writes a tokenizer.json."""
        Path(path).write_text(self.to_str(pretty), encoding="utf-8")

    @classmethod
    def from_str(cls, json_text: str) -> Tokenizer:
        """The tokenizer of the text of a tokenizer.json; named components that are not known raise."""
        try:
            state = json.loads(json_text)
            return cls._of(state)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise Exception(f"not a tokenizer.json: {error}") from None

    @classmethod
    def _of(cls, state: dict[str, Any]) -> Tokenizer:
        model = dict(state["model"])
        kind = model.get("type") or (
            "BPE" if "merges" in model else "Unigram" if "unk_id" in model else "WordPiece"
        )
        tokenizer = cls(models.Model.from_json({**model, "type": kind}))
        kinds = (normalizers.Normalizer, pre_tokenizers.PreTokenizer, processors.PostProcessor, Decoder)
        for name, base in zip(
            ("normalizer", "pre_tokenizer", "post_processor", "decoder"), kinds, strict=True
        ):
            if state.get(name) is not None:
                setattr(tokenizer, f"_{name}", base.from_json(state[name]))
        for entry in state.get("added_tokens") or []:
            entry = dict(entry)
            token_id = entry.pop("id")
            token = AddedToken(**entry)
            tokenizer._added[token_id] = token
            tokenizer._ids[token.content] = token_id
        if state.get("truncation"):
            options = dict(state["truncation"])
            name = options["strategy"]
            strategy = "".join(
                "_" + c.lower() if c.isupper() and at else c.lower() for at, c in enumerate(name)
            )
            tokenizer.enable_truncation(
                options["max_length"],
                options.get("stride", 0),
                strategy,
                options.get("direction", "Right").lower(),
            )
        if state.get("padding"):
            options = dict(state["padding"])
            strategy = options.pop("strategy")
            length = strategy["Fixed"] if isinstance(strategy, dict) else None
            tokenizer.enable_padding(**{**options, "direction": options["direction"].lower()}, length=length)
        tokenizer._version += 1
        return tokenizer

    @classmethod
    def from_file(cls, path: str) -> Tokenizer:
        """The tokenizer of a tokenizer.json."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise Exception(f"{error.strerror} (os error {error.errno})") from None
        return cls.from_str(text)

    @classmethod
    def from_buffer(cls, buffer: bytes) -> Tokenizer:
        """The tokenizer of the bytes of a tokenizer.json."""
        try:
            return cls.from_str(bytes(buffer).decode())
        except Exception as error:
            raise ValueError(f"Cannot instantiate Tokenizer from buffer: {error}") from None

    @classmethod
    def from_pretrained(cls, identifier: str, revision: str = "main", token: str | None = None) -> Tokenizer:
        """The tokenizer of a folder or of a name on the hub."""
        if os.path.isdir(identifier):
            return cls.from_file(os.path.join(identifier, "tokenizer.json"))
        import huggingface_hub

        return cls.from_file(
            huggingface_hub.hf_hub_download(identifier, "tokenizer.json", revision=revision, token=token)
        )

    def __getstate__(self) -> bytes:
        return self.to_str().encode()

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(type(self).from_str(state.decode()).__dict__)

    def __reduce__(self) -> Any:
        return _restored, (type(self), self.__getstate__())

    def __getnewargs__(self) -> tuple[Any]:
        return (models.BPE(),)

    def __repr__(self) -> str:
        return self._printed(None)

    def __str__(self) -> str:
        return self._printed(5)

    def _printed(self, most: int | None) -> str:
        state = self._state()
        for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model"):
            state[name] = getattr(self, f"_{name}")
        return f"Tokenizer({shown_fields(state, most)})"

    # Vocabulary

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Tokens and ids."""
        vocab = dict(self._model._vocab)
        return {**vocab, **self._ids} if with_added_tokens else vocab

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """How many tokens there are."""
        size = len(self._model._vocab)
        return size + sum(i not in _ids_of(self._model) for i in self._added) if with_added_tokens else size

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The added tokens by id."""
        return dict(sorted(self._added.items()))

    def token_to_id(self, token: str) -> int | None:
        """The id of a token."""
        found = self._ids.get(token)
        return self._model.token_to_id(token) if found is None else found

    def id_to_token(self, id: int) -> str | None:
        """The token of an id."""
        token = self._added.get(id)
        return self._model.id_to_token(id) if token is None else token.content

    def add_tokens(self, tokens: Iterable[Any]) -> int:
        """Adds tokens; how many were new."""
        return sum([self._add(AddedToken.of(token)) for token in tokens])

    def add_special_tokens(self, tokens: Iterable[Any]) -> int:
        """Adds special tokens; how many were new."""
        return sum([self._add(AddedToken.of(token, special=True)) for token in tokens])

    def _add(self, token: AddedToken) -> bool:
        if not token.content or token in self._added.values():
            return False
        token_id = self.token_to_id(token.content)
        if token_id is None:
            size = len(self._model._vocab)
            token_id = max(max(self._added, default=-1) + 1, size)
        self._added[token_id] = token
        self._ids[token.content] = token_id
        self._version += 1
        return True

    # Truncation and padding

    def enable_truncation(
        self, max_length: int, stride: int = 0, strategy: str = "longest_first", direction: str = "right"
    ) -> None:
        """Cuts every text to so many tokens, special ones included."""
        if strategy not in _STRATEGIES:
            raise ValueError(
                f"Unknown `strategy`: `{strategy}`. Use one of `longest_first`, `only_first`, or `only_second`"
            )
        if direction not in ("left", "right"):
            raise ValueError(f"Unknown `direction`: `{direction}`. Use one of `left` or `right`.")
        if stride and stride >= max_length:
            raise Exception(
                f"tokenizer stride set to {stride}, which is greater than or equal to its effective max length of {max_length}"
            )
        self._truncation = {
            "max_length": max_length,
            "stride": stride,
            "strategy": strategy,
            "direction": direction,
        }

    def no_truncation(self) -> None:
        """Cuts nothing any more."""
        self._truncation = None

    @property
    def truncation(self) -> dict[str, Any] | None:
        """The options of :meth:`enable_truncation`, or None."""
        return self._truncation and dict(self._truncation)

    def enable_padding(
        self,
        *,
        direction: str = "right",
        pad_id: int = 0,
        pad_type_id: int = 0,
        pad_token: str = "[PAD]",
        length: int | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        """Fills every text to ``length`` tokens, or to the longest of its batch."""
        if direction not in ("left", "right"):
            raise ValueError(f"Unknown `direction`: `{direction}`. Use one of `left` or `right`")
        self._padding = {
            "length": length,
            "pad_to_multiple_of": pad_to_multiple_of,
            "pad_id": pad_id,
            "pad_token": pad_token,
            "pad_type_id": pad_type_id,
            "direction": direction,
        }

    def no_padding(self) -> None:
        """Fills nothing any more."""
        self._padding = None

    @property
    def padding(self) -> dict[str, Any] | None:
        """The options of :meth:`enable_padding`, or None."""
        return self._padding and dict(self._padding)

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """How many tokens the post-processor puts round one text or two."""
        return self._post_processor.num_special_tokens_to_add(is_pair) if self._post_processor else 0

    # Text to ids

    def encode(
        self, sequence: Any, pair: Any = None, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Encoding:
        """The encoding of a text, or of two."""
        first = self._sequence(_checked(sequence, is_pretokenized), 0)
        second = None if pair is None else self._sequence(_checked(pair, is_pretokenized), 1)
        return self.post_process(first, second, add_special_tokens)

    def encode_batch(
        self, input: Any, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> list[Encoding]:
        """The encodings of many texts or pairs of texts."""
        encodings = []
        for sequence, pair in _inputs(input, is_pretokenized):
            encodings.append(self.encode(sequence, pair, is_pretokenized, add_special_tokens))
        if self._padding is not None:
            _pad(encodings, self._padding)
        return encodings

    def encode_batch_fast(
        self, input: Any, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> list[Encoding]:
        """The same without offsets: where the Rust core knows all components, it alone does the work."""
        core = None if is_pretokenized else self._fast()
        if core is None:
            return self.encode_batch(input, is_pretokenized, add_special_tokens)
        pairs = list(_inputs(input, is_pretokenized))
        texts = [cast(str, _checked(text, False)) for both in pairs for text in both if text is not None]
        lists = iter(_core.encode_lists(core, texts, "all"))
        other = 0 if self._post_processor is None else 1  # as there, where alone it is 1
        encodings = []
        for _, pair in pairs:
            first = self._bare(next(lists), 0)
            second = None if pair is None else self._bare(next(lists), other)
            encodings.append(self.post_process(first, second, add_special_tokens))
        if self._padding is not None:
            _pad(encodings, self._padding)
        return encodings

    def _bare(self, ids: list[int], type_id: int) -> Encoding:
        """An encoding that knows its ids and tokens only."""
        encoding = Encoding()
        size = len(ids)
        encoding.ids, encoding.type_ids = ids, [type_id] * size
        encoding.tokens = [cast(str, self.id_to_token(token_id)) for token_id in ids]
        encoding.word_ids, encoding.offsets = [None] * size, [(0, 0)] * size
        encoding.special_tokens_mask, encoding.attention_mask = [0] * size, [1] * size
        return encoding

    async def async_encode(
        self, sequence: Any, pair: Any = None, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> Encoding:
        """:meth:`encode` in a thread."""
        return await asyncio.to_thread(self.encode, sequence, pair, is_pretokenized, add_special_tokens)

    async def async_encode_batch(
        self, input: Any, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> list[Encoding]:
        """:meth:`encode_batch` in a thread."""
        return await asyncio.to_thread(self.encode_batch, input, is_pretokenized, add_special_tokens)

    async def async_encode_batch_fast(
        self, input: Any, is_pretokenized: bool = False, add_special_tokens: bool = True
    ) -> list[Encoding]:
        """:meth:`encode_batch_fast` in a thread."""
        return await asyncio.to_thread(self.encode_batch_fast, input, is_pretokenized, add_special_tokens)

    def _sequence(self, sequence: str | Sequence[str], type_id: int) -> Encoding:
        self._refresh()
        if isinstance(sequence, str):
            return self._native(sequence, type_id) or self._text(sequence, type_id, None)
        words = [self._text(word, type_id, nth) for nth, word in enumerate(sequence)]
        return Encoding.merge(words, False)

    def _native(self, text: str, type_id: int) -> Encoding | None:
        """What :meth:`_text` gives, by the Rust core alone, if that only cuts the text and merges its bytes."""
        core = self._fast()
        if core is None or not self._knows_places:
            return None
        try:
            places = core.encode_with_offsets(text, allowed_special="all")
        except UnsupportedComponentError:
            self._knows_places = False
            return None
        encoding = self._bare(places.ids.tolist(), type_id)
        encoding.offsets = list(map(tuple, places.offsets.tolist()))
        # Added tokens count as words of their own.
        words = places.word_ids
        fresh = (words < 0) | (words != np.concatenate([words[:1] - 1, words[:-1]]))
        encoding.word_ids = (np.cumsum(fresh) - 1).tolist()
        return encoding

    def _text(self, text: str, type_id: int, word: int | None) -> Encoding:
        whole = PreTokenizedString(text)
        self._take(whole, self._raw)
        if self._normalizer is not None:
            whole.normalize(self._normalizer.normalize)
            whole.splits = [s for s in whole.splits if s.tokens is not None or s.normalized.normalized]
        self._take(whole, self._normal)
        if self._pre_tokenizer is not None:
            self._pre_tokenizer.pre_tokenize(whole)
        whole.tokenize(self._model.tokenize)
        return whole.to_encoding(type_id, word)

    def _take(self, whole: PreTokenizedString, tokens: dict[str, tuple[int, AddedToken]]) -> None:
        """Makes tokens of the added tokens in a text."""
        if not tokens:
            return

        def cut(_: int, part: NormalizedString) -> list[Any]:
            text, at = part.normalized, 0
            parts: list[Any] = []
            for start, end, token_id in added.find(text, tokens):
                if start > at:
                    parts.append(part._part(at, start))
                piece = part._part(start, end)
                parts.append(
                    Split(piece, [Token(token_id, piece.normalized, (0, len(piece.normalized.encode())))])
                )
                at = end
            if at < len(text):
                parts.append(part._part(at, len(text)))
            return parts

        whole.split(cut)

    def post_process(
        self, encoding: Encoding, pair: Encoding | None = None, add_special_tokens: bool = True
    ) -> Encoding:
        """Truncation, the post-processor and padding."""
        encoding = encoding._copy()
        pair = None if pair is None else pair._copy()
        if self._truncation is not None:
            extra = self.num_special_tokens_to_add(pair is not None) if add_special_tokens else 0
            _truncate(
                encoding,
                pair,
                {**self._truncation, "max_length": max(0, self._truncation["max_length"] - extra)},
            )
        if self._post_processor is None:
            parts = processors.default([encoding] if pair is None else [encoding, pair])
            done = Encoding.merge(parts, False)
        else:
            done = self._post_processor.process(encoding, pair, add_special_tokens)
        if self._padding is not None:
            _pad([done], self._padding)
        return done

    # Ids to text

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids; those of no token are left out."""
        self._refresh()
        tokens = []
        for token_id in ids:
            token_id = int(token_id)
            known = self._added.get(token_id)
            token = self._forms.get(token_id) or self.id_to_token(token_id)
            # One whose normal form is another text is not taken for special there.
            if skip_special_tokens and known is not None and known.special and token == known.content:
                continue
            if token is not None:
                tokens.append(token)
        return " ".join(tokens) if self._decoder is None else self._decoder.decode(tokens)

    def decode_batch(self, sequences: Iterable[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """The texts of many rows of ids."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    async def async_decode_batch(
        self, sequences: Iterable[Sequence[int]], skip_special_tokens: bool = True
    ) -> list[str]:
        """:meth:`decode_batch` in a thread."""
        return await asyncio.to_thread(self.decode_batch, list(sequences), skip_special_tokens)

    # Training

    def train(self, files: Sequence[str], trainer: Any = None) -> None:
        """Learns the model from files, line by line."""

        def lines() -> Iterator[str]:
            for path in files:
                with open(path, encoding="utf-8", newline="") as file:
                    yield from file

        self.train_from_iterator(lines(), trainer)

    def _count(self, iterator: Any) -> dict[str, int]:
        """How often each part occurs in texts, or in lists of texts."""
        counts: collections.Counter[str] = collections.Counter()
        for item in iterator:
            for text in [item] if isinstance(item, str) else item:
                whole = PreTokenizedString(text)
                if self._normalizer is not None:
                    whole.normalize(self._normalizer.normalize)
                if self._pre_tokenizer is not None:
                    self._pre_tokenizer.pre_tokenize(whole)
                counts.update(split.normalized.normalized for split in whole.splits)
        counts.pop("", None)
        return dict(counts)

    def train_from_iterator(self, iterator: Any, trainer: Any = None, length: int | None = None) -> None:
        """Learns the model from texts, or from lists of texts."""
        trainer = trainer or self._model.get_trainer()
        if self._model.TYPE != trainer.MODEL:
            raise Exception(f"{trainer.TYPE} can only train a {trainer.MODEL}")
        model = trainer._train(self._count(iterator))
        for name in ("unk_token", "byte_fallback", "fuse_unk", "dropout", "max_input_chars_per_word"):
            if type(model) is type(self._model) and hasattr(model, name):
                setattr(model, name, getattr(self._model, name))
        # The object stays the same, as those who hold it expect.
        if type(model) is type(self._model):
            self._model.__dict__.update(model.__dict__)
        else:
            self._model = model
        self._version += 1
        self.add_special_tokens(getattr(trainer, "_found", None) or trainer.special_tokens)


def _restored(cls: type[Tokenizer], state: bytes) -> Tokenizer:
    return cls.from_str(state.decode())


def _ids_of(model: models.Model) -> set[int]:
    return set(model._vocab.values())


def _checked(sequence: Any, is_pretokenized: bool) -> str | list[str]:
    """One text, or a list of words."""
    if not is_pretokenized:
        if not isinstance(sequence, str):
            raise TypeError("TextInputSequence must be str")
        try:
            sequence.encode()
        except UnicodeEncodeError:
            raise TypeError("TextInputSequence must be str") from None
        return str(sequence)
    if isinstance(sequence, np.ndarray):
        sequence = sequence.tolist()
    if not isinstance(sequence, (list, tuple)) or not all(isinstance(word, str) for word in sequence):
        raise TypeError("PreTokenizedInputSequence must be Union[List[str], Tuple[str]]; got another InputSequence, "
                        "InputSequence must be Union[List[str], Tuple[str]]")  # fmt: skip
    return [str(word) for word in sequence]


def _inputs(batch: Any, is_pretokenized: bool) -> Iterator[tuple[Any, Any]]:
    """Texts and their pairs."""
    if isinstance(batch, np.ndarray):
        batch = batch.tolist()
    if isinstance(batch, (str, bytes)) or not isinstance(batch, Iterable):
        raise TypeError(f"argument 'input': expected a sequence, got {type(batch).__name__}")
    for item in batch:
        if isinstance(item, np.ndarray):
            item = item.tolist()
        both = isinstance(item, (list, tuple)) and len(item) == 2
        if is_pretokenized:
            both = both and all(isinstance(part, (list, tuple, np.ndarray)) for part in item)
        yield (item[0], item[1]) if both else (item, None)


def _truncate(encoding: Encoding, pair: Encoding | None, options: dict[str, Any]) -> None:
    most, stride, direction = options["max_length"], options["stride"], options["direction"]
    if most == 0:
        encoding.truncate(0, stride, direction)
        if pair is not None:
            pair.truncate(0, stride, direction)
        return
    total = len(encoding) + (0 if pair is None else len(pair))
    if total <= most:
        return
    if options["strategy"] == "longest_first":
        if pair is None:
            encoding.truncate(most, stride, direction)
            return
        small, large = sorted((len(encoding), len(pair)))
        large = small if small > most else max(small, most - small)
        if small + large > most:
            small, large = most // 2, most // 2 + most % 2
        swapped = len(encoding) > len(pair)
        encoding.truncate(large if swapped else small, stride, direction)
        pair.truncate(small if swapped else large, stride, direction)
        return
    target = encoding if options["strategy"] == "only_first" else pair
    if target is None:
        raise Exception("Truncation error: Second sequence not provided")
    if len(target) <= total - most:
        raise Exception("Truncation error: Sequence to truncate too short to respect the provided max_length")
    target.truncate(len(target) - (total - most), stride, direction)


def _pad(encodings: list[Encoding], options: dict[str, Any]) -> None:
    length = options["length"]
    if length is None:
        length = max(map(len, encodings), default=0)
    multiple = options["pad_to_multiple_of"]
    if multiple:
        length += -length % multiple
    others = {name: options[name] for name in ("direction", "pad_id", "pad_type_id", "pad_token")}
    for encoding in encodings:
        encoding.pad(length, **others)

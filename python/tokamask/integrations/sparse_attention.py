"""Sparse decode attention inside Hugging Face transformers: ``attn_implementation="tokamask_sparse"``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

import tokamask as tm
from tokamask.errors import ShapeError

NAME = "tokamask_sparse"


class SparseAttention:
    """Steps of one token attend to the first tokens, the last ones, and those between that get most votes of all heads.

    The choice is :func:`tokamask.selection.token_select`, made anew in every layer and step; the cache itself stays whole. Longer inputs
    (the prompt), padded batches and tokens not yet past ``dense_below`` go to transformers' own attention. Keys and values are read
    where the cache holds them.

    Parameters
    ----------
    keep_ratio : float
        Share of the tokens that is kept, in (0, 1]; 1 is dense attention.
    keep : int, optional
        A number of tokens in place of the share.
    n_init, n_local : int
        First and last tokens, which are among those kept.

    Examples
    --------
    >>> register(keep_ratio=0.25)
    >>> model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="tokamask_sparse")
    >>> model.generate(**inputs)

    """

    def __init__(
        self, *, keep_ratio: float = 1.0, keep: int | None = None, n_init: int = 4, n_local: int = 32
    ) -> None:
        if not 0 < keep_ratio <= 1 or (keep is not None and keep < n_init + n_local + 1):
            expected = f"keep_ratio in (0, 1], keep above n_init + n_local = {n_init + n_local}"
            got = f"keep_ratio {keep_ratio}, keep {keep}"
            raise ShapeError(f"keep: expected {expected}, got {got}", name="keep", expected=expected, got=got)
        self.keep_ratio, self.keep, self.n_init, self.n_local = keep_ratio, keep, n_init, n_local

    def kept(self, tokens: int) -> int:
        """How many of so many tokens a step attends to."""
        if self.keep is not None:
            return min(self.keep, tokens)
        return min(max(int(np.ceil(self.keep_ratio * tokens)), self.n_init + self.n_local + 1), tokens)

    def __call__(
        self,
        module: Any,
        query: Any,
        key: Any,
        value: Any,
        attention_mask: Any,
        scaling: float | None = None,
        dropout: float = 0.0,
        **options: Any,
    ) -> tuple[Any, None]:
        """``query`` [batch, heads, n, head_dim], ``key`` and ``value`` [batch, kv_heads, tokens, ..]: output [batch, n, heads, v_dim]."""
        batch, _, n, _ = query.shape
        tokens = key.shape[2]
        masked = attention_mask is not None and n == 1 and not _sees_all(attention_mask)
        if n > 1 or masked or dropout or (torch.is_grad_enabled() and query.requires_grad):
            return sdpa_attention_forward(  # type: ignore[no-any-return]
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
            )
        # The cache as one page per sequence: [batch, tokens, kv_heads, dim], no copy.
        q, k, v = query[:, :, 0].contiguous(), key.transpose(1, 2), value.transpose(1, 2)
        device = query.device
        pages = torch.arange(batch, dtype=torch.int32, device=device)[:, None]
        lengths = torch.full((batch,), tokens, dtype=torch.int32, device=device)
        kept = self.kept(tokens)
        if kept == tokens:
            o = tm.attention.decode(q, k, v, pages, seq_lens=lengths, scale=scaling)
        else:
            voted = kept - self.n_init - self.n_local
            counts: dict[str, Any] = {
                "k": voted,
                "n_init": self.n_init,
                "n_local": self.n_local,
                "scale": scaling,
            }
            selected = tm.selection.token_select(q, k, pages, seq_lens=lengths, **counts)
            o = tm.attention.sparse_decode(q, k, v, pages, selected, seq_lens=lengths, scale=scaling)
        return o[:, None], None


def _sees_all(mask: Any) -> bool:
    """Whether a mask (bool, or added to scores) hides nothing."""
    return bool(mask.all()) if mask.dtype == torch.bool else not bool(mask.any())


def register(**settings: Any) -> SparseAttention:
    """Makes ``attn_implementation="tokamask_sparse"`` known; the arguments are those of :class:`SparseAttention`.

    A later call replaces the settings for every model that uses the name.
    """
    attention = SparseAttention(**settings)
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return attention

"""The array functions as torch operators: ``import tokamask.integrations.torch`` defines ``torch.ops.tokamask.*``.

One registration serves every device: an operator calls the public function of the same name, which goes by where its tensors live. Each
has a fake kernel, so that ``torch.compile`` and ``torch.export`` see shapes and types without running it. Operators return new tensors,
but for ``apply_bitmask_``, which changes its logits, and ``append_kv_``, which changes the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import tokamask as tm

OPERATORS = (
    "apply_bitmask_",
    "sample",
    "top_k",
    "token_select",
    "append_kv_",
    "decode",
    "sparse_decode",
    "tree_decode",
    "merge_states",
)
"""What is defined, under ``torch.ops.tokamask``."""

_library = torch.library.Library("tokamask", "DEF")  # lives as long as this module: the operators go with it


def _define(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    name = schema.partition("(")[0]
    _library.define(schema)
    for device in ("CPU", "CUDA"):
        _library.impl(name, run, device)
    torch.library.register_fake(f"tokamask::{name}", fake, lib=_library)


def _apply_bitmask(logits: Tensor, bitmask: Tensor, rows: Tensor | None = None) -> None:
    tm.apply_bitmask(logits, bitmask, rows)


_define(
    "apply_bitmask_(Tensor(a!) logits, Tensor bitmask, Tensor? rows=None) -> ()",
    _apply_bitmask,
    lambda logits, bitmask, rows=None: None,
)


def _sample(
    logits: Tensor,
    bitmask: Tensor | None,
    seed: int,
    step: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> tuple[Tensor, Tensor]:
    laws: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    return tm.sampling.sample(logits, bitmask=bitmask, seed=seed, step=step, **laws)


_define(
    "sample(Tensor logits, Tensor? bitmask, int seed, int step=0, float temperature=1.0, int top_k=0, float top_p=1.0, "
    "float min_p=0.0) -> (Tensor, Tensor)",
    _sample,
    lambda logits, *laws, **more: (
        logits.new_empty(logits.shape[0], dtype=torch.int32),
        logits.new_empty(logits.shape[0], dtype=torch.float32),
    ),
)


def _top_k(scores: Tensor, k: int, lengths: Tensor | None = None) -> Tensor:
    return tm.selection.top_k(scores, k, lengths=lengths)


_define(
    "top_k(Tensor scores, int k, Tensor? lengths=None) -> Tensor",
    _top_k,
    lambda scores, k, lengths=None: scores.new_empty((scores.shape[0], k), dtype=torch.int32),
)


def _token_select(
    q: Tensor,
    k_cache: Tensor,
    page_table: Tensor,
    seq_lens: Tensor,
    k: int,
    n_init: int = 128,
    n_local: int = 512,
    scale: float | None = None,
) -> Tensor:
    counts: dict[str, Any] = {"k": k, "n_init": n_init, "n_local": n_local, "scale": scale}
    return tm.selection.token_select(q, k_cache, page_table, seq_lens=seq_lens, **counts)


_define(
    "token_select(Tensor q, Tensor k_cache, Tensor page_table, Tensor seq_lens, int k, int n_init=128, int n_local=512, "
    "float? scale=None) -> Tensor",
    _token_select,
    lambda q, k_cache, page_table, seq_lens, k, n_init=128, n_local=512, scale=None: q.new_empty(
        (q.shape[0], 1, n_init + k + n_local), dtype=torch.int32
    ),
)


def _append_kv(
    k: Tensor,
    v: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    page_table: Tensor,
    seq_lens: Tensor,
    indptr: Tensor | None = None,
    low: Tensor | None = None,
    high: Tensor | None = None,
) -> None:
    bounds = None if low is None or high is None else (low, high)
    options: dict[str, Any] = {"seq_lens": seq_lens, "indptr": indptr, "bounds": bounds}
    tm.attention.append_kv(k, v, k_cache, v_cache, page_table, **options)


_define(
    "append_kv_(Tensor k, Tensor v, Tensor(a!) k_cache, Tensor(b!) v_cache, Tensor page_table, Tensor seq_lens, "
    "Tensor? indptr=None, Tensor(c!)? low=None, Tensor(d!)? high=None) -> ()",
    _append_kv,
    lambda *arrays, **more: None,
)


def _decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    page_table: Tensor,
    seq_lens: Tensor,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    options = {"seq_lens": seq_lens, "scale": scale, "sinks": sinks, "return_lse": True}
    return tm.attention.decode(q, k_cache, v_cache, page_table, **options)  # type: ignore[no-any-return]


def _fake_decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, *rest: Any, **more: Any
) -> tuple[Tensor, Tensor]:
    rows = q.shape[:2]
    return q.new_empty((*rows, v_cache.shape[3])), q.new_empty(rows, dtype=torch.float32)


_define(
    "decode(Tensor q, Tensor k_cache, Tensor v_cache, Tensor page_table, Tensor seq_lens, float? scale=None, "
    "Tensor? sinks=None) -> (Tensor, Tensor)",
    _decode,
    _fake_decode,
)


def _sparse_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    page_table: Tensor,
    selected: Tensor,
    seq_lens: Tensor,
    scale: float | None = None,
    sinks: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    options = {"seq_lens": seq_lens, "scale": scale, "sinks": sinks, "return_lse": True}
    return tm.attention.sparse_decode(q, k_cache, v_cache, page_table, selected, **options)  # type: ignore[no-any-return]


_define(
    "sparse_decode(Tensor q, Tensor k_cache, Tensor v_cache, Tensor page_table, Tensor selected, Tensor seq_lens, "
    "float? scale=None, Tensor? sinks=None) -> (Tensor, Tensor)",
    _sparse_decode,
    _fake_decode,
)


def _tree_decode(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    page_table: Tensor,
    tree_mask: Tensor,
    k_tree: Tensor,
    v_tree: Tensor,
    seq_lens: Tensor,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    arrays = (q, k_cache, v_cache, page_table, tree_mask, k_tree, v_tree)
    return tm.attention.tree_decode(*arrays, seq_lens=seq_lens, scale=scale, return_lse=True)  # type: ignore[no-any-return]


_define(
    "tree_decode(Tensor q, Tensor k_cache, Tensor v_cache, Tensor page_table, Tensor tree_mask, Tensor k_tree, Tensor v_tree, "
    "Tensor seq_lens, float? scale=None) -> (Tensor, Tensor)",
    _tree_decode,
    lambda q, k_cache, v_cache, *rest, **more: (
        q.new_empty((*q.shape[:3], v_cache.shape[3])),
        q.new_empty(q.shape[:3], dtype=torch.float32),
    ),
)


def _merge_states(v: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    return tm.attention.merge_states(v, lse)


_define(
    "merge_states(Tensor v, Tensor lse) -> (Tensor, Tensor)",
    _merge_states,
    lambda v, lse: (
        v.new_empty((v.shape[0], *v.shape[2:])),
        lse.new_empty((lse.shape[0], lse.shape[2])),
    ),
)

"""Attention of decode-time queries over a paged KV cache: dense, over selected tokens, over draft trees.

Layout: ``k_cache`` [pages, page_size, num_kv_heads, head_dim] and ``v_cache`` [pages, page_size, num_kv_heads, v_dim], of the type
of ``q`` (float32, float16 or bfloat16; in numpy uint16 holds bfloat16 bits); pages, slots and heads may be strided, so halves of
one combined array will do. Token ``i`` of sequence ``b`` is slot ``i % page_size`` of page ``page_table[b, i // page_size]``. Query
head ``h`` reads KV head ``h // (num_q_heads // num_kv_heads)``. Sums are float32. ``lse`` is the natural logarithm of the sum of
``exp(scale * q . k)``, -inf where nothing is seen; the output there is 0.
"""

from __future__ import annotations

from typing import Any

from tokamask import _core
from tokamask.gpu.arrays import is_cuda
from tokamask.paged import append_kv, kv_views, page_table
from tokamask.shapes import (
    FLOATS,
    Shapes,
    as_numpy,
    cuda_function,
    dtype_name,
    natural,
    output,
    refuse,
    scale_of,
)

__all__ = [
    "append_kv",
    "block_sparse_prefill",
    "decode",
    "hybrid_attention",
    "kv_views",
    "lightning",
    "merge_states",
    "page_table",
    "selected_prefill",
    "sparse_decode",
    "tree_decode",
]


def _check_cache(shapes: Shapes, q: Any, k_cache: Any, v_cache: Any, page_table: Any, seq_lens: Any) -> None:
    dtype = (dtype_name(q),)
    shapes.check("k_cache", k_cache, dtype, "pages", "page_size", "num_kv_heads", "head_dim")
    shapes.check("v_cache", v_cache, dtype, "pages", "page_size", "num_kv_heads", "v_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    if shapes["num_kv_heads"] == 0 or shapes["num_q_heads"] % shapes["num_kv_heads"]:
        raise refuse("q", f"a multiple of {shapes['num_kv_heads']} heads", q)


def decode(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    *,
    seq_lens: Any,
    scale: float | None = None,
    sinks: Any = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """Dense attention of one query per sequence over all its tokens.

    Moves 2 * seq_len * num_kv_heads * head_dim elements per sequence once, whatever the number of query heads.

    Parameters
    ----------
    q : [batch, num_q_heads, head_dim]
    k_cache, v_cache : see the module
    page_table : int32 [batch, max_pages]
        Page numbers; entries past the last used page may be anything.
    seq_lens : int32 [batch]
        Tokens of each sequence, 0 included.
    scale : float, optional
        Multiplies scores; 1 / sqrt(head_dim) unless given.
    sinks : float32 [num_q_heads], optional
        Logits that take weight and give nothing: the output is multiplied by ``exp(lse) / (exp(lse) + exp(sink))``; ``lse`` is
        returned without them.
    return_lse : bool
        Whether to return ``lse`` as well.
    out : [batch, num_q_heads, v_dim], optional
        Where to put the output, C-contiguous.

    Returns
    -------
    o : [batch, num_q_heads, v_dim], type of ``q``
    lse : float32 [batch, num_q_heads]
        With ``return_lse`` only.

    Examples
    --------
    >>> k = np.zeros((1, 4, 1, 2), np.float32)  # one page of four slots
    >>> v = np.arange(8, dtype=np.float32).reshape(1, 4, 1, 2)
    >>> q, page_table, seq_lens = np.ones((1, 1, 2), np.float32), np.zeros((1, 1), np.int32), np.array([3], np.int32)
    >>> tm.attention.decode(q, k, v, page_table, seq_lens=seq_lens).tolist()  # the mean of three values
    [[[2.0, 3.0]]]

    """
    if is_cuda(q):
        options = {"scale": scale, "sinks": sinks, "return_lse": return_lse, "out": out}
        run = cuda_function("attention", "decode", q)
        return run(q, k_cache, v_cache, page_table, seq_lens=seq_lens, **options)
    return _decode(q, k_cache, v_cache, page_table, None, seq_lens, scale, sinks, return_lse, out)


def sparse_decode(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    selected: Any,
    *,
    seq_lens: Any,
    scale: float | None = None,
    sinks: Any = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """Attention over the selected tokens only: what every selector of :mod:`tokamask.selection` feeds.

    Moves 2 * k * num_kv_heads * head_dim elements per sequence.

    Parameters
    ----------
    q, k_cache, v_cache, page_table, seq_lens, scale, sinks, return_lse, out
        As in :func:`decode`.
    selected : int32 [batch, num_kv_heads or 1, k]
        Token positions; one list may serve all heads. Entries outside [0, seq_len) are holes (-1 by convention). A token
        named twice counts twice.

    Returns
    -------
    o : [batch, num_q_heads, v_dim], type of ``q``
    lse : float32 [batch, num_q_heads]
        With ``return_lse`` only.

    Examples
    --------
    >>> k = np.zeros((1, 4, 1, 2), np.float32)  # one page of four slots
    >>> v = np.arange(8, dtype=np.float32).reshape(1, 4, 1, 2)
    >>> q, page_table, seq_lens = np.ones((1, 1, 2), np.float32), np.zeros((1, 1), np.int32), np.array([3], np.int32)
    >>> selected = np.array([[[0, 1, -1]]], np.int32)
    >>> tm.attention.sparse_decode(q, k, v, page_table, selected, seq_lens=seq_lens).tolist()
    [[[1.0, 2.0]]]

    """
    if is_cuda(q):
        options = {"scale": scale, "sinks": sinks, "return_lse": return_lse, "out": out}
        run = cuda_function("attention", "sparse_decode", q)
        return run(q, k_cache, v_cache, page_table, selected, seq_lens=seq_lens, **options)
    return _decode(q, k_cache, v_cache, page_table, selected, seq_lens, scale, sinks, return_lse, out)


def _decode(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    selected: Any,
    seq_lens: Any,
    scale: float | None,
    sinks: Any,
    return_lse: bool,
    out: Any,
) -> Any:
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "batch", "num_q_heads", "head_dim")
    _check_cache(shapes, q, k_cache, v_cache, page_table, seq_lens)
    if selected is not None:
        heads = 1 if len(selected.shape) == 3 and selected.shape[1] == 1 else "num_kv_heads"
        shapes.check("selected", selected, ("int32",), "batch", heads, "k")
    if sinks is not None:
        shapes.check("sinks", sinks, ("float32",), "num_q_heads")
    rows = shapes["batch"], shapes["num_q_heads"]
    out = output("out", out, q, (*rows, shapes["v_dim"]), dtype_name(q))
    lse = output("lse", None, q, rows, "float32")
    _core.decode(
        as_numpy(q),
        as_numpy(k_cache),
        as_numpy(v_cache),
        as_numpy(page_table),
        None if selected is None else as_numpy(selected),
        as_numpy(seq_lens),
        scale_of(shapes, scale),
        None if sinks is None else as_numpy(sinks),
        as_numpy(out),
        as_numpy(lse),
    )
    return (out, lse) if return_lse else out


def tree_decode(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    page_table: Any,
    tree_mask: Any,
    k_tree: Any,
    v_tree: Any,
    *,
    seq_lens: Any,
    scale: float | None = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """Attention of the nodes of a draft tree over the cached prefix and their own ancestors.

    Each key and value of the prefix is read once for all nodes.

    Parameters
    ----------
    q : [batch, nodes, num_q_heads, head_dim]
        With a :class:`tokamask.DraftTree` of n tokens: n + 1 nodes, node 0 the root.
    k_cache, v_cache, page_table, seq_lens, scale, return_lse
        As in :func:`decode`; the cache holds the prefix, without the nodes.
    tree_mask : uint64 [nodes, ceil(nodes / 64)] or [batch, nodes, ceil(nodes / 64)]
        Bit ``j % 64`` of word ``j // 64`` of row ``i``: node ``i`` sees node ``j`` (its ancestors and itself), as
        :meth:`tokamask.DraftTree.mask` gives it. A row of zeros is padding: output 0, lse -inf.
    k_tree : [batch, nodes, num_kv_heads, head_dim]
    v_tree : [batch, nodes, num_kv_heads, v_dim]
        Keys and values of the nodes.
    out : [batch, nodes, num_q_heads, v_dim], optional
        Where to put the output, C-contiguous.

    Returns
    -------
    o : [batch, nodes, num_q_heads, v_dim], type of ``q``
    lse : float32 [batch, nodes, num_q_heads]
        With ``return_lse`` only.

    Examples
    --------
    >>> tree = tm.DraftTree([5, 6], [-1, -1])  # two guesses after the root
    >>> cache, page_table = np.zeros((1, 4, 1, 1), np.float32), np.zeros((1, 1), np.int32)
    >>> seq_lens = np.array([0], np.int32)  # an empty prefix
    >>> q = np.zeros((1, 3, 1, 1), np.float32)
    >>> v = np.array([2, 4, 8], np.float32).reshape(1, 3, 1, 1)
    >>> o = tm.attention.tree_decode(q, cache, cache, page_table, tree.mask(), q, v, seq_lens=seq_lens)
    >>> o.ravel().tolist()  # the root, and each guess with the root
    [2.0, 3.0, 5.0]

    """
    if is_cuda(q):
        options = {"seq_lens": seq_lens, "scale": scale, "return_lse": return_lse, "out": out}
        run = cuda_function("attention", "tree_decode", q)
        return run(q, k_cache, v_cache, page_table, tree_mask, k_tree, v_tree, **options)
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "batch", "nodes", "num_q_heads", "head_dim")
    _check_cache(shapes, q, k_cache, v_cache, page_table, seq_lens)
    dtype = (dtype_name(q),)
    shapes.check("k_tree", k_tree, dtype, "batch", "nodes", "num_kv_heads", "head_dim")
    shapes.check("v_tree", v_tree, dtype, "batch", "nodes", "num_kv_heads", "v_dim")
    words = -(-shapes["nodes"] // 64)
    if len(getattr(tree_mask, "shape", ())) == 2:
        tree_mask = tree_mask[None]
    rows = 1 if getattr(tree_mask, "shape", (0,))[0] == 1 else "batch"
    shapes.check("tree_mask", tree_mask, ("uint64",), rows, "nodes", words)
    sizes = shapes["batch"], shapes["nodes"], shapes["num_q_heads"]
    out = output("out", out, q, (*sizes, shapes["v_dim"]), dtype_name(q))
    lse = output("lse", None, q, sizes, "float32")
    _core.tree_decode(
        as_numpy(q),
        as_numpy(k_cache),
        as_numpy(v_cache),
        as_numpy(page_table),
        as_numpy(tree_mask),
        as_numpy(k_tree),
        as_numpy(v_tree),
        as_numpy(seq_lens),
        scale_of(shapes, scale),
        as_numpy(out),
        as_numpy(lse),
    )
    return (out, lse) if return_lse else out


def merge_states(v: Any, lse: Any, *, out: Any = None, lse_out: Any = None) -> tuple[Any, Any]:
    """Attention over a union of disjoint parts from attention over each part.

    Parameters
    ----------
    v : float32, float16 or bfloat16 [rows, parts, heads, dim]
        Outputs over each part.
    lse : float32 [rows, parts, heads]
        Natural logarithms. A part with -inf weighs nothing, whatever its ``v`` holds.
    out : [rows, heads, dim], lse_out : float32 [rows, heads], optional
        Where to put the results.

    Returns
    -------
    v : [rows, heads, dim]
    lse : float32 [rows, heads]
        0 and -inf where every part has -inf.

    Examples
    --------
    >>> v = np.array([2, 4], np.float32).reshape(1, 2, 1, 1)
    >>> merged, lse = tm.attention.merge_states(v, np.zeros((1, 2, 1), np.float32))
    >>> merged.ravel().tolist()
    [3.0]

    """
    if is_cuda(v):
        return cuda_function("attention", "merge_states", v)(v, lse, out=out, lse_out=lse_out)  # type: ignore[no-any-return]
    shapes = Shapes()
    shapes.check("v", v, FLOATS, "rows", "parts", "heads", "dim")
    shapes.check("lse", lse, ("float32",), "rows", "parts", "heads")
    rows = shapes["rows"], shapes["heads"]
    out = output("out", out, v, (*rows, shapes["dim"]), dtype_name(v))
    lse_out = output("lse_out", lse_out, v, rows, "float32")
    _core.merge_states(as_numpy(v), as_numpy(lse), as_numpy(out), as_numpy(lse_out))
    return out, lse_out


def lightning(q: Any, k: Any, v: Any, decay: Any, *, state: Any = None, out: Any = None) -> tuple[Any, Any]:
    """Linear attention with decay: ``o_t = q_t S_t``, ``S_t = exp(-decay) * S_(t-1) + k_t v_t``, per head.

    Prefill and decode are the same call; pass the state on. The recurrence of Lightning Attention-2 (arXiv 2401.04658), from its
    published form and not compared with the authors' code; scale ``q`` beforehand if the model does.

    Parameters
    ----------
    q, k : float32, float16 or bfloat16 [batch, heads, tokens, dk]
    v : [batch, heads, tokens, dv]
    decay : float32 [heads]
        Slopes, 0 or more; 0 keeps everything.
    state : float32 [batch, heads, dk, dv], optional
        Zeros unless given; updated in place.
    out : [batch, heads, tokens, dv], optional
        Where to put the output, C-contiguous.

    Returns
    -------
    o : [batch, heads, tokens, dv], type of ``q``
    state : float32 [batch, heads, dk, dv]
        After the last token.

    Examples
    --------
    >>> x = np.array([1, 2, 3], np.float32).reshape(1, 1, 3, 1)
    >>> o, state = tm.attention.lightning(x * 0 + 1, x * 0 + 1, x, np.zeros(1, np.float32))
    >>> o.ravel().tolist(), state.ravel().tolist()
    ([1.0, 3.0, 6.0], [6.0])

    """
    if is_cuda(q):
        return cuda_function("attention", "lightning", q)(q, k, v, decay, state=state, out=out)  # type: ignore[no-any-return]
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "batch", "heads", "tokens", "dk")
    shapes.check("k", k, (dtype_name(q),), "batch", "heads", "tokens", "dk")
    shapes.check("v", v, (dtype_name(q),), "batch", "heads", "tokens", "dv")
    shapes.check("decay", decay, ("float32",), "heads")
    sizes = shapes["batch"], shapes["heads"], shapes["dk"], shapes["dv"]
    if state is None:
        state = output("state", None, q, sizes, "float32")
        state[...] = 0
    state = output("state", state, q, sizes, "float32")
    out = output("out", out, q, tuple(v.shape), dtype_name(q))
    _core.lightning(*map(as_numpy, (q, k, v, decay, state, out)))
    return out, state


def _check_prefill(q: Any, k: Any, v: Any) -> Shapes:
    """Queries beside the keys and values of one sequence."""
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "queries", "num_q_heads", "head_dim")
    shapes.check("k", k, (dtype_name(q),), "tokens", "num_kv_heads", "head_dim")
    shapes.check("v", v, (dtype_name(q),), "tokens", "num_kv_heads", "v_dim")
    if shapes["num_kv_heads"] == 0 or shapes["num_q_heads"] % shapes["num_kv_heads"]:
        raise refuse("q", f"a multiple of {shapes['num_kv_heads']} heads", q)
    if shapes["v_dim"] == 0:
        raise refuse("v", "v_dim above 0", v)
    return shapes


def block_sparse_prefill(
    q: Any,
    k: Any,
    v: Any,
    indptr: Any,
    indices: Any,
    *,
    block: tuple[int, int] = (64, 64),
    causal: bool = True,
    scale: float | None = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """Attention of many queries of one sequence over the blocks of keys that each block of queries names.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [queries, num_q_heads, head_dim]
    k, v : [tokens, num_kv_heads, head_dim or v_dim], type of ``q``
        Tokens and heads may be strided. On CUDA, values have the width and the strides of keys.
    indptr : int32 [query_blocks + 1] or [num_kv_heads, query_blocks + 1]
        Block ``i`` of queries sees the key blocks ``indices[indptr[i]:indptr[i + 1]]``; per KV head, if there is a row for each.
    indices : int32 [any]
        Numbers of key blocks, in any order. A block named twice counts twice.
    block : (int, int)
        Queries and keys of a block; the last of each may be short.
    causal : bool
        Whether a query sees no key after its own position. The last query stands at the last key.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    return_lse : bool
        Whether to return ``lse`` as well.
    out : [queries, num_q_heads, v_dim], optional

    Returns
    -------
    o : [queries, num_q_heads, v_dim], type of ``q``
        0 where nothing is seen.
    lse : float32 [queries, num_q_heads]
        With ``return_lse`` only.

    Examples
    --------
    >>> x = np.arange(4, dtype=np.float32).reshape(4, 1, 1)
    >>> own = np.arange(3, dtype=np.int32)  # block i sees block i
    >>> o = tm.attention.block_sparse_prefill(x * 0, x, x, own, own[:2], block=(2, 2))
    >>> o.ravel().tolist()
    [0.0, 0.5, 2.0, 2.5]

    """
    if is_cuda(q):
        run = cuda_function("attention", "block_sparse_prefill", q)
        options = {"block": block, "causal": causal, "scale": scale, "return_lse": return_lse, "out": out}
        return run(q, k, v, indptr, indices, **options)
    shapes = _check_prefill(q, k, v)
    rows, columns = (natural("block", size, 1) for size in block)
    places = -(-shapes["queries"] // rows) + 1
    if len(getattr(indptr, "shape", ())) == 2:
        shapes.check("indptr", indptr, ("int32",), "num_kv_heads", places)
    else:
        shapes.check("indptr", indptr, ("int32",), places)
        indptr = indptr[None]
    shapes.check("indices", indices, ("int32",), "blocks")
    if causal and shapes["queries"] > shapes["tokens"]:
        raise refuse("q", f"at most tokens={shapes['tokens']} queries", q)
    sizes = shapes["queries"], shapes["num_q_heads"]
    out = output("out", out, q, (*sizes, shapes["v_dim"]), dtype_name(q))
    lse = output("lse", None, q, sizes, "float32")
    arrays = as_numpy(q), as_numpy(k), as_numpy(v), as_numpy(indptr), as_numpy(indices)
    factor = scale_of(shapes, scale)
    _core.block_sparse_prefill(*arrays, (rows, columns), causal, factor, as_numpy(out), as_numpy(lse))
    return (out, lse) if return_lse else out


def selected_prefill(
    q: Any,
    k: Any,
    v: Any,
    selected: Any,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    out: Any = None,
) -> Any:
    """Causal attention among the selected tokens of each head as if there were no others: compress, attend, scatter.

    What Token Sparse Attention does with the choice of :func:`tokamask.selection.token_sparse_select`. Nothing is gathered into an
    array first. A token that is not selected gets 0 and lives by the residual stream.

    Parameters
    ----------
    q : float32, float16 or bfloat16 [tokens, num_q_heads, head_dim]
        After RoPE.
    k, v : [tokens, num_kv_heads, head_dim or v_dim], type of ``q``
        Keys after RoPE; tokens and heads may be strided. On CUDA, values have the width and the strides of keys.
    selected : int32 [num_q_heads, c]
        Ascending positions, -1 padded.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    return_lse : bool
        Whether to return ``lse`` as well.
    out : [tokens, num_q_heads, v_dim], optional

    Returns
    -------
    o : [tokens, num_q_heads, v_dim], type of ``q``
    lse : float32 [tokens, num_q_heads]
        With ``return_lse`` only; -inf for tokens that are not selected.

    Examples
    --------
    >>> x = np.arange(4, dtype=np.float32).reshape(4, 1, 1)
    >>> o = tm.attention.selected_prefill(x * 0, x, x, np.array([[1, 3]], np.int32))
    >>> o.ravel().tolist()
    [0.0, 1.0, 0.0, 2.0]

    """
    if is_cuda(q):
        run = cuda_function("attention", "selected_prefill", q)
        return run(q, k, v, selected, scale=scale, return_lse=return_lse, out=out)
    shapes = _check_prefill(q, k, v)
    if shapes["queries"] != shapes["tokens"]:
        raise refuse("q", f"tokens={shapes['tokens']} queries", q)
    shapes.check("selected", selected, ("int32",), "num_q_heads", "c")
    sizes = shapes["tokens"], shapes["num_q_heads"]
    out = output("out", out, q, (*sizes, shapes["v_dim"]), dtype_name(q))
    lse = output("lse", None, q, sizes, "float32")
    arrays = as_numpy(q), as_numpy(k), as_numpy(v), as_numpy(selected)
    _core.selected_prefill(*arrays, scale_of(shapes, scale), as_numpy(out), as_numpy(lse))
    return (out, lse) if return_lse else out


def hybrid_attention(
    q: Any,
    k: Any,
    v: Any,
    salient: Any,
    phi_q: Any,
    phi_k: Any,
    *,
    window: int,
    scale: float | None = None,
    out: Any = None,
) -> Any:
    """Softmax attention over a window and the salient tokens before it, linear attention over the rest, normalised together.

    A token is routed when it leaves the window: a salient one stays for the softmax, any other goes into the state of the linear part.
    The operator only, after the abstract of STILL (arXiv 2602.02180): the features come from a trained model, and no parity is claimed.

    Parameters
    ----------
    q, k : float32, float16 or bfloat16 [batch, heads, tokens, head_dim]
    v : [batch, heads, tokens, v_dim]
    salient : bool [batch, heads, tokens]
    phi_q, phi_k : float32 [batch, heads, tokens, features]
        Not negative: their products stand beside ``exp(scale * q . k)``.
    window : int
        The last tokens, the query's own included; 1 or more.
    scale : float, optional
        1 / sqrt(head_dim) unless given.
    out : [batch, heads, tokens, v_dim], optional

    Returns
    -------
    [batch, heads, tokens, v_dim], type of ``q``

    Examples
    --------
    >>> x = np.arange(3, dtype=np.float32).reshape(1, 1, 3, 1)
    >>> nothing, ones = np.zeros((1, 1, 3), np.bool_), np.ones((1, 1, 3, 1), np.float32)
    >>> tm.attention.hybrid_attention(x * 0, x, x, nothing, ones, ones, window=1).ravel().tolist()
    [0.0, 0.5, 1.0]

    """
    if is_cuda(q):
        cuda_function("attention", "hybrid_attention", q)  # raises: there is no kernel
    shapes = Shapes()
    shapes.check("q", q, FLOATS, "batch", "heads", "tokens", "head_dim")
    shapes.check("k", k, (dtype_name(q),), "batch", "heads", "tokens", "head_dim")
    shapes.check("v", v, (dtype_name(q),), "batch", "heads", "tokens", "v_dim")
    shapes.check("salient", salient, ("bool",), "batch", "heads", "tokens")
    shapes.check("phi_q", phi_q, ("float32",), "batch", "heads", "tokens", "features")
    shapes.check("phi_k", phi_k, ("float32",), "batch", "heads", "tokens", "features")
    out = output("out", out, q, tuple(v.shape), dtype_name(q))
    arrays = as_numpy(q), as_numpy(k), as_numpy(v), as_numpy(salient), as_numpy(phi_q), as_numpy(phi_k)
    _core.hybrid_attention(*arrays, natural("window", window, 1), scale_of(shapes, scale), as_numpy(out))
    return out

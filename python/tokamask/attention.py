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
from tokamask.shapes import FLOATS, Shapes, as_numpy, cuda_function, dtype_name, output, refuse


def _check_cache(shapes: Shapes, q: Any, k_cache: Any, v_cache: Any, page_table: Any, seq_lens: Any) -> None:
    dtype = (dtype_name(q),)
    shapes.check("k_cache", k_cache, dtype, "pages", "page_size", "num_kv_heads", "head_dim")
    shapes.check("v_cache", v_cache, dtype, "pages", "page_size", "num_kv_heads", "v_dim")
    shapes.check("page_table", page_table, ("int32",), "batch", "max_pages")
    shapes.check("seq_lens", seq_lens, ("int32",), "batch")
    if shapes["num_kv_heads"] == 0 or shapes["num_q_heads"] % shapes["num_kv_heads"]:
        raise refuse("q", f"a multiple of {shapes['num_kv_heads']} heads", q)


def _scale(shapes: Shapes, scale: float | None) -> float:
    return float(shapes["head_dim"] ** -0.5 if scale is None else scale)


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
        _scale(shapes, scale),
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
        _scale(shapes, scale),
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

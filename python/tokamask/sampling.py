"""Sampling from logits under a grammar bitmask, exactly reproducible on every device."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.rejection import sample_awrs as sample_awrs
from tokamask.shapes import (
    FLOATS,
    Shapes,
    as_numpy,
    cuda_function,
    library,
    natural,
    output,
    per_row,
    refuse,
)

_FLOAT32, _INT32 = np.dtype(np.float32), np.dtype(np.int32)


def _check_mask(shapes: Shapes, bitmask: Any, rows: Any) -> None:
    """Mask rows [mask_rows, ceil(vocab_size / 32)] and the choice among them."""
    words = -(-shapes["vocab_size"] // 32)
    if rows is None:
        shapes.check("bitmask", bitmask, ("int32",), "batch", words)
    else:
        shapes.check("bitmask", bitmask, ("int32",), "mask_rows", words)
        shapes.check("rows", rows, ("int32",), "batch")


def _ids(ids: Any) -> Any:
    return None if ids is None else np.ascontiguousarray(as_numpy(ids))


def apply_bitmask(logits: Any, bitmask: Any, rows: Any = None) -> None:
    """Writes -inf over the logits that a bitmask forbids, in place.

    Parameters
    ----------
    logits : float32, float16 or bfloat16 [batch, vocab_size]
        numpy (bfloat16 as uint16), torch or CuPy; rows may be strided. Changed in place.
    bitmask : int32 [mask_rows, ceil(vocab_size / 32)]
        Bit ``v % 32`` of word ``v // 32`` allows token ``v``; bits at and beyond ``vocab_size`` are ignored.
    rows : int32 [batch], optional
        The mask row of each logits row, -1 to leave it alone. Without it there is one mask row per logits row.

    Raises
    ------
    ShapeError
        An array is not of these types and shapes, or ``rows`` names a mask row that is not there.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> logits = np.zeros((1, 3), np.float32)
    >>> tm.apply_bitmask(logits, np.array([[0b101]], np.int32))
    >>> logits.tolist()
    [[0.0, -inf, 0.0]]

    """
    if rows is None and type(logits) is np.ndarray and type(bitmask) is np.ndarray:
        # The usual call takes as long as its checks: these are as strict as those below, in a fifth of the time.
        shape = logits.shape
        whole = len(shape) == 2 and bitmask.shape == (shape[0], -(-shape[1] // 32))
        if whole and logits.dtype == _FLOAT32 and bitmask.dtype == _INT32:
            _core.apply_bitmask(_one_row(logits), _one_row(bitmask), None)
            return
    if is_cuda(logits):
        cuda_function("sampling", "apply_bitmask", logits)(logits, bitmask, rows)
        return
    shapes = Shapes()
    shapes.check("logits", logits, FLOATS, "batch", "vocab_size")
    _check_mask(shapes, bitmask, rows)
    chosen = None if rows is None else as_numpy(rows)
    _core.apply_bitmask(_one_row(as_numpy(logits)), _one_row(as_numpy(bitmask)), chosen)


def pack_bitmask(allowed: Any, *, vocab_size: int | None = None) -> Any:
    """Bitmask rows of what is allowed, told token by token or as lists of token ids.

    Rows of one width combine by ``&`` (allowed by both) and ``|`` (by either).

    Parameters
    ----------
    allowed : bool [rows, vocab_size], or a list of lists of token ids
        numpy or torch on the CPU.
    vocab_size : int, optional
        Needed for lists; token ids lie below it.

    Returns
    -------
    int32 [rows, ceil(vocab_size / 32)]
        In the library of ``allowed``, numpy for lists; bits at and beyond ``vocab_size`` are 0.

    Raises
    ------
    ShapeError
        Not bool of two dimensions; lists without ``vocab_size``, or with an id that is not below it.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> tm.sampling.pack_bitmask(np.array([[True, False, True]])).tolist()
    [[5]]
    >>> tm.sampling.pack_bitmask([[0, 2], []], vocab_size=40).tolist()
    [[5, 0], [0, 0]]

    """
    if isinstance(allowed, list | tuple):
        flags = np.zeros(
            (len(allowed), natural("vocab_size", -1 if vocab_size is None else vocab_size)), np.bool_
        )
        for row, ids in zip(flags, allowed, strict=True):
            places = np.asarray(ids, np.int64)
            if ((places < 0) | (places >= len(row))).any():
                raise refuse("allowed", f"token ids in [0, {len(row)})", ids)
            row[places] = True
        allowed = flags
    shapes = Shapes()
    shapes.check("allowed", allowed, ("bool",), "rows", "vocab_size")
    rows, width = shapes["rows"], -(-shapes["vocab_size"] // 32)
    packed = np.zeros((rows, 4 * width), np.uint8)
    bits = np.packbits(as_numpy(allowed), axis=1, bitorder="little")
    packed[:, : bits.shape[1]] = bits
    words = packed.view("<i4").astype(np.int32, copy=False)
    return sys.modules["torch"].from_numpy(words) if library(allowed) == "torch" else words


def _one_row(array: Any) -> Any:
    """The same memory with the stride of rows that ``row[None]`` leaves at 0."""
    alone = len(array) == 1 and array.strides[0] == 0 and array[0].flags.c_contiguous
    return array[0].reshape(1, -1) if alone else array


def sample(
    logits: Any,
    *,
    bitmask: Any = None,
    rows: Any = None,
    temperature: Any = 1.0,
    top_k: Any = 0,
    top_p: Any = 1.0,
    min_p: Any = 0.0,
    seed: Any,
    step: Any = 0,
    prompt_ids: Any = None,
    output_ids: Any = None,
    repetition_penalty: Any = 1.0,
    presence_penalty: Any = 0.0,
    frequency_penalty: Any = 0.0,
    out: tuple[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """Draws one token per row: penalties, bitmask, temperature, top-k, top-p, min-p and the draw in one pass.

    They apply in that order, each to what the one before left (top-p over the renormalised top-k set, min-p relative
    to the best token). Ties are kept by lowest token id. Equal arguments give equal tokens on every device: the law is
    defined by integers, in :mod:`tokamask.reference.sampling`. The work is proportional to the allowed tokens.

    Parameters
    ----------
    logits : float32, float16 or bfloat16 [batch, vocab_size]
        numpy (bfloat16 as uint16), torch or CuPy; rows may be strided. NaN counts as -inf, +inf wins. Not changed.
    bitmask : int32 [mask_rows, ceil(vocab_size / 32)], optional
        Bit ``v % 32`` of word ``v // 32`` allows token ``v``.
    rows : int32 [batch], optional
        The mask row of each logits row, -1 for none. Without it there is one mask row per logits row.
    temperature, top_p, min_p : float or float32 [batch]
        Temperature 0 is greedy. ``top_p >= 1`` and ``min_p <= 0`` are off; ``top_p <= 0`` keeps the best token.
    top_k : int or int32 [batch]
        Off unless in ``1 .. vocab_size - 1``.
    seed : int or uint64 [batch]
        With one seed, row ``b`` draws from stream ``b`` of it. With a seed per row, each row draws from stream 0 of its
        own, wherever it stands in the batch.
    step : int or uint64 [batch]
        The position in the stream: count it up by one per decoding step.
    prompt_ids, output_ids : int32 [batch, any], optional
        What the penalties are about: token ids read and written so far, -1 padded; others outside the vocabulary are passed over.
    repetition_penalty : float or float32 [batch]
        A logit above 0 of a token in the prompt or the output is divided by it, any other multiplied.
    presence_penalty, frequency_penalty : float or float32 [batch]
        Subtracted from the logit of a token in the output: once, and once for each time.
    out : (int32 [batch], float32 [batch]), optional
        Where to put the results.

    Returns
    -------
    tokens : int32 [batch]
        -1 where no token is allowed with a logit above -inf: never a random id.
    logprobs : float32 [batch]
        Natural logarithm of the probability under the law that the token was drawn from, filters included; 0 if greedy,
        -inf where there is no token.

    Examples
    --------
    >>> import numpy as np, tokamask as tm
    >>> tokens, logprobs = tm.sampling.sample(np.zeros((2, 50), np.float32), top_k=1, seed=7)
    >>> tokens.tolist(), logprobs.tolist()
    ([0, 0], [0.0, 0.0])
    >>> written = np.array([[0, 2, -1]], np.int32)
    >>> options = {"temperature": 0, "presence_penalty": 1.0, "output_ids": written}
    >>> tm.sampling.sample(np.zeros((1, 50), np.float32), seed=7, **options)[0].tolist()
    [1]

    """
    penalties = {
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
    }
    has_history = prompt_ids is not None or output_ids is not None
    if is_cuda(logits):
        laws = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
        given = {"bitmask": bitmask, "rows": rows, "prompt_ids": prompt_ids, "output_ids": output_ids}
        run = cuda_function("sampling", "sample", logits)
        return run(logits, **given, **laws, **penalties, seed=seed, step=step, out=out)  # type: ignore[no-any-return]
    shapes = Shapes()
    shapes.check("logits", logits, FLOATS, "batch", "vocab_size")
    if bitmask is not None:
        _check_mask(shapes, bitmask, rows)
    elif rows is not None:
        raise ShapeError(
            "rows: expected a bitmask beside them", name="rows", expected="a bitmask", got="none"
        )
    for name, ids in (("prompt_ids", prompt_ids), ("output_ids", output_ids)):
        if ids is not None:
            shapes.check(name, ids, ("int32",), "batch", name)
    batch = shapes["batch"]
    one_seed = not getattr(seed, "shape", ())
    tokens = output("out[0]", out and out[0], logits, (batch,), "int32")
    logprobs = output("out[1]", out and out[1], logits, (batch,), "float32")
    laws = {"temperature": temperature, "top_p": top_p, "min_p": min_p, **penalties}
    columns = np.empty((batch, len(laws)), np.float32)
    if all(type(value) is float for value in laws.values()):
        columns[:] = tuple(laws.values())
    else:
        for i, (name, value) in enumerate(laws.items()):
            columns[:, i] = value if type(value) is float else per_row(name, value, batch, "float32")
    _core.sample(
        as_numpy(logits),
        None if bitmask is None else as_numpy(bitmask),
        None if rows is None else as_numpy(rows),
        (_ids(prompt_ids), _ids(output_ids)) if has_history else None,
        columns,
        per_row("top_k", top_k, batch, "int32"),
        per_row("seed", seed, batch, "uint64"),
        np.arange(batch, dtype=np.uint32) if one_seed else np.zeros(batch, np.uint32),
        per_row("step", step, batch, "uint64"),
        as_numpy(tokens),
        as_numpy(logprobs),
    )
    return tokens, logprobs

"""Verification of a batch of draft trees held in arrays. Public through :func:`tokamask.verify_greedy` and
:func:`tokamask.verify_sampled`, which take the pair of arrays in place of a :class:`tokamask.DraftTree`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask import _core
from tokamask.errors import ShapeError
from tokamask.gpu.arrays import is_cuda
from tokamask.shapes import Shapes, as_numpy, cuda_function, output, per_row, refuse

RULES = ("point", "tokenwise", "specinfer", "sequoia", "block")
"""What the compiled walk knows; "spectr" has its definition only."""


def _check(trees: tuple[Any, Any]) -> tuple[Shapes, Any, Any]:
    token_ids, parents = trees
    shapes = Shapes()
    shapes.check("token_ids", token_ids, ("int32",), "batch", "nodes")
    shapes.check("parents", parents, ("int32",), "batch", "nodes")
    return shapes, token_ids, parents


def _results(shapes: Shapes, like: Any, out: Any) -> tuple[Any, Any, Any]:
    batch, nodes = shapes["batch"], shapes["nodes"]
    sizes = (batch, nodes), (batch,), (batch,)
    names = ("path", "accepted", "bonus")
    given = (None, None, None) if out is None else out
    path, accepted, bonus = (
        output(name, o, like, size, "int32") for name, o, size in zip(names, given, sizes, strict=True)
    )
    return path, accepted, bonus


def verify_greedy(trees: tuple[Any, Any], target_ids: Any, out: Any = None) -> tuple[Any, Any, Any]:
    """``path`` int32 [batch, nodes] (-1 padded), ``accepted`` int32 [batch] and ``bonus`` int32 [batch]."""
    if is_cuda(trees[0]):
        return cuda_function("draft", "verify_tree", trees[0])(*trees, target_ids, out=out)  # type: ignore[no-any-return]
    shapes, token_ids, parents = _check(trees)
    shapes.check("target_ids", target_ids, ("int32",), "batch", shapes["nodes"] + 1)
    results = _results(shapes, token_ids, out)
    _core.verify_greedy(
        as_numpy(token_ids),
        as_numpy(parents),
        as_numpy(target_ids),
        (as_numpy(results[0]), as_numpy(results[1]), as_numpy(results[2])),
    )
    return results


def verify_sampled(
    trees: tuple[Any, Any],
    target_probs: Any,
    rule: str,
    draft_probs: Any,
    seed: Any,
    row: Any,
    step: Any,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The same for probabilities float32 or float64 [batch, nodes + 1, vocab_size]."""
    if is_cuda(trees[0]):
        run = cuda_function("draft", "verify_sampled", trees[0])
        laws = {"rule": rule, "draft_probs": draft_probs}
        return run(*trees, target_probs, **laws, seed=seed, row=row, step=step, out=out)  # type: ignore[no-any-return]
    if rule not in RULES:
        expected = f"one of {', '.join(RULES)} for arrays"
        raise ShapeError(f"rule: expected {expected}, got {rule!r}", name="rule", expected=expected, got=rule)
    shapes, token_ids, parents = _check(trees)
    floats = ("float32", "float64")
    shapes.check("target_probs", target_probs, floats, "batch", shapes["nodes"] + 1, "vocab_size")
    if (rule == "point") != (draft_probs is None):
        raise refuse("draft_probs", 'None for "point", laws for every other rule', draft_probs)
    if draft_probs is not None:
        dtype = (str(as_numpy(target_probs).dtype),)
        shapes.check("draft_probs", draft_probs, dtype, "batch", shapes["nodes"] + 1, "vocab_size")
    batch = shapes["batch"]
    rows = np.arange(batch, dtype=np.uint32) if row is None else per_row("row", row, batch, "uint32")
    results = _results(shapes, token_ids, out)
    _core.verify_sampled(
        as_numpy(token_ids),
        as_numpy(parents),
        as_numpy(target_probs),
        None if draft_probs is None else as_numpy(draft_probs),
        rule,
        per_row("seed", seed, batch, "uint64"),
        rows,
        per_row("step", step, batch, "uint64"),
        (as_numpy(results[0]), as_numpy(results[1]), as_numpy(results[2])),
    )
    return results

"""Launches for draft trees: verification of a whole batch on the device, without a read-back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import KernelError, ShapeError
from tokamask.gpu.arrays import expect, operand
from tokamask.gpu.cache import result
from tokamask.gpu.device import Device
from tokamask.gpu.sampling import per_row

RULES = ("point", "tokenwise", "specinfer", "sequoia")


def verify_tree(
    device: Device, token_ids: Any, parents: Any, target_ids: Any, *, out: tuple[Any, Any, Any] | None = None
) -> tuple[Any, Any, Any]:
    """Verifies one draft tree per sequence against the target's choices.

    Parameters
    ----------
    device : Device
        Where the arrays live.
    token_ids, parents : int32 [batch, nodes]
        The trees, as in :class:`tokamask.DraftTree`; shorter trees are padded with token -1.
    target_ids : int32 [batch, nodes + 1]
        The target's choice after the root (column 0) and after each node: by argmax for greedy decoding; drawn row by row with
        :func:`tokamask.sampling.sample`, under the bitmask of each node, for the rule "point".
    out : (int32 [batch, nodes], int32 [batch], int32 [batch]), optional
        Where to put the results.

    Returns
    -------
    path : int32 [batch, nodes]
        The accepted nodes, -1 padded.
    accepted : int32 [batch]
        How many.
    bonus : int32 [batch]
        The target's choice after them.

    """
    tokens = expect(operand("token_ids", token_ids), "i32", [("batch", None), ("nodes", None)])
    batch, nodes = tokens.shape
    above = expect(operand("parents", parents), "i32", [("batch", batch), ("nodes", nodes)])
    targets = expect(operand("target_ids", target_ids), "i32", [("batch", batch), ("nodes + 1", nodes + 1)])
    path = result(device, out and out[0], (batch, nodes), "int32", "i32")
    accepted = result(device, out and out[1], (batch,), "int32", "i32")
    bonus = result(device, out and out[2], (batch,), "int32", "i32")
    if batch:
        results = (operand("path", path), operand("accepted", accepted), operand("bonus", bonus))
        device.launch(
            "verify_tree",
            "verify_tree",
            {},
            (batch,),
            32,
            (tokens, above, targets, *results, np.int32(nodes)),
        )
    return path, accepted, bonus


def verify_sampled(
    device: Device,
    token_ids: Any,
    parents: Any,
    target_probs: Any,
    *,
    rule: str = "point",
    draft_probs: Any = None,
    seed: Any,
    row: Any = None,
    step: Any = 0,
    out: tuple[Any, Any, Any] | None = None,
) -> tuple[Any, Any, Any]:
    """As :func:`tokamask.verify_sampled` for arrays, but for the rule "block". ``row`` uint32 [batch]: the tree's number unless given."""
    if rule not in RULES:
        raise KernelError(
            f"verify_sampled: the rule {rule!r} has no CUDA kernel, there are {', '.join(RULES)}",
            kernel="verify_sampled",
            arch="cuda",
        )
    tokens = expect(operand("token_ids", token_ids), "i32", [("batch", None), ("nodes", None)])
    batch, nodes = tokens.shape
    above = expect(operand("parents", parents), "i32", [("batch", batch), ("nodes", nodes)])
    axes: list[tuple[str, int | None]] = [("batch", batch), ("nodes + 1", nodes + 1), ("vocab_size", None)]
    laws = expect(operand("target_probs", target_probs), ("f32", "f64"), axes)
    vocab_size = laws.shape[2]
    drafts = None
    if (rule == "point") != (draft_probs is None):
        expected = 'None for "point", laws for every other rule'
        raise ShapeError(f"draft_probs: expected {expected}", name="draft_probs", expected=expected, got=rule)
    if draft_probs is not None:
        drafts = expect(
            operand("draft_probs", draft_probs), laws.element, [*axes[:2], ("vocab_size", vocab_size)]
        )
    path = result(device, out and out[0], (batch, nodes), "int32", "i32")
    accepted = result(device, out and out[1], (batch,), "int32", "i32")
    bonus = result(device, out and out[2], (batch,), "int32", "i32")
    if batch:
        scratch = (
            None if drafts is None else operand("scratch", device.empty((batch, 2, vocab_size), "float64"))
        )
        wide = ("u64", "i64")
        rows = (
            (None, np.uint32(0xFFFFFFFF))
            if row is None
            else per_row("row", row, batch, ("u32", "i32"), np.uint32)
        )
        arguments = (
            *(tokens, above, laws, drafts, *per_row("seed", seed, batch, wide, np.uint64), *rows),
            *(*per_row("step", step, batch, wide, np.uint64), scratch),
            *(operand("path", path), operand("accepted", accepted), operand("bonus", bonus)),
            *(np.int32(nodes), np.int32(vocab_size), np.int32(rule != "sequoia")),
        )
        variant = {"PROBABILITY": "float" if laws.element == "f32" else "double"}
        device.launch("verify_sampled", "verify_sampled", variant, (batch,), 512, arguments)
    return path, accepted, bonus

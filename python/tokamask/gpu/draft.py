"""Launches for draft trees: verification of a whole batch on the device, without a read-back."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.gpu.arrays import expect, operand
from tokamask.gpu.cache import result
from tokamask.gpu.device import Device


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

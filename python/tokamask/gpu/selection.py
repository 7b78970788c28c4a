"""The CUDA side of :mod:`tokamask.selection`, one name for one name."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.gpu.arrays import expect, operand
from tokamask.gpu.device import Device
from tokamask.gpu.indexer import hisa_select, indexer_scores
from tokamask.gpu.prefill import attention_column_sums, snapkv_scores, token_sparse_select, tova_scores
from tokamask.gpu.reduction import greedy_select, tome_merge
from tokamask.gpu.sampling import check_logits, check_mask
from tokamask.gpu.top_k import top_k
from tokamask.gpu.votes import fasa_scores, page_tokens, quest_bounds, quest_scores, token_select

__all__ = [
    "attention_column_sums",
    "fasa_scores",
    "greedy_select",
    "hisa_select",
    "indexer_scores",
    "page_tokens",
    "quest_bounds",
    "quest_scores",
    "snapkv_scores",
    "token_select",
    "token_sparse_select",
    "tome_merge",
    "top_k",
    "tova_scores",
    "unmask",
]


def unmask(
    device: Device,
    logits: Any,
    masked: Any,
    *,
    bitmask: Any = None,
    threshold: float | None = None,
    count: int | None = None,
) -> tuple[Any, Any, Any]:
    """As :func:`tokamask.selection.unmask`."""
    o, positions, vocab_size = check_logits(logits)
    mask, _ = check_mask(bitmask, None, positions, vocab_size)
    undecided = expect(operand("masked", masked), "u8", [("positions", positions)])
    tokens, confidence = device.empty((positions,), "int32"), device.empty((positions,), "float32")
    accepted = device.empty((positions,), "bool")
    if positions:
        results = (operand("tokens", tokens), operand("confidence", confidence))
        variant = {"ELEMENT": o.element}
        sizes = (np.int64(o.strides[0]), np.int32(vocab_size), np.int32(-(-vocab_size // 32)))
        device.launch(
            "unmask", "unmask_score", variant, (positions,), 512, (o, undecided, mask, *results, *sizes)
        )
        limits = (
            np.int32(-1 if count is None else count),
            np.float32(-1 if threshold is None else threshold),
        )
        device.launch(
            "unmask",
            "unmask_accept",
            variant,
            (1,),
            512,
            (*results, operand("accepted", accepted), np.int32(positions), *limits),
        )
    return tokens, confidence, accepted

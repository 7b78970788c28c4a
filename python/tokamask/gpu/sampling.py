"""Launches of the sampling kernels. Shapes and laws: :mod:`tokamask.sampling` and :mod:`tokamask.reference.sampling`."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokamask.errors import ShapeError
from tokamask.gpu.arrays import FLOATS, Operand, expect, expect_aligned, operand
from tokamask.gpu.cache import result
from tokamask.gpu.device import Argument, Device


def check_logits(logits: Any) -> tuple[Operand, int, int]:
    """Floats [batch, vocab_size], rows contiguous but perhaps strided."""
    o = expect(operand("logits", logits), FLOATS, [("batch", None), ("vocab_size", None)], contiguous=False)
    return expect_aligned(o, 2), o.shape[0], o.shape[1]


def check_mask(bitmask: Any, rows: Any, batch: int, vocab_size: int) -> tuple[Operand | None, Operand | None]:
    """The mask rows, and which of them each logits row uses."""
    if bitmask is None:
        if rows is not None:
            raise ShapeError(
                "rows: expected a bitmask beside them", name="rows", expected="a bitmask", got="none"
            )
        return None, None
    words = -(-vocab_size // 32)
    mask = expect(
        operand("bitmask", bitmask), "i32", [("mask_rows", batch if rows is None else None), ("words", words)]
    )
    return mask, None if rows is None else expect(operand("rows", rows), "i32", [("batch", batch)])


def per_row(
    name: str, value: Any, batch: int, elements: str | tuple[str, ...], scalar: type[np.generic]
) -> tuple[Argument, Argument]:
    """A kernel's pair of pointer and common value: one of them counts."""
    if isinstance(value, (int, float)):
        try:
            return None, scalar(value)
        except OverflowError:
            expected = scalar.__name__
            raise ShapeError(
                f"{name}: {value} is no {expected}", name=name, expected=expected, got=str(value)
            ) from None
    return expect(operand(name, value), elements, [("batch", batch)]), scalar()


def apply_bitmask(device: Device, logits: Any, bitmask: Any, rows: Any = None) -> None:
    """Writes -inf over what the mask forbids, in place. Words that allow everything cost nothing; a ``rows`` entry of -1 leaves
    its row alone. Entries of ``rows`` are not checked: that would need a read-back.
    """
    target, batch, vocab_size = check_logits(logits)
    mask, chosen = check_mask(bitmask, rows, batch, vocab_size)
    words = -(-vocab_size // 32)
    if batch and vocab_size:
        arguments = (target, mask, chosen, np.int64(target.strides[0]), np.int32(vocab_size), np.int32(words))
        device.launch(
            "apply_bitmask",
            "apply_bitmask",
            {"ELEMENT": target.element},
            (batch, -(-words // 256)),
            256,
            arguments,
        )


def penalise(
    device: Device, logits: Operand, prompt_ids: Any, output_ids: Any, penalties: tuple[Any, Any, Any]
) -> tuple[Operand, Operand]:
    """The logits that penalties change, beside the logits: which, and to what."""
    batch, vocab_size = logits.shape
    words = -(-vocab_size // 32)
    ids = [
        None if given is None else expect(operand(name, given), "i32", [("batch", batch), (name, None)])
        for name, given in (("prompt_ids", prompt_ids), ("output_ids", output_ids))
    ]
    touched = operand("touched", device.empty((batch, words), "int32"))
    changed = operand("changed", device.empty((batch, vocab_size), "float32"))
    if batch:
        names = ("repetition_penalty", "presence_penalty", "frequency_penalty")
        laws = [
            per_row(name, value, batch, "f32", np.float32)
            for name, value in zip(names, penalties, strict=True)
        ]
        sizes = (np.int64(logits.strides[0]), np.int32(vocab_size), np.int32(words))
        counts = (np.int32(0 if i is None else i.shape[1]) for i in ids)
        arguments = (logits, *ids, *laws[0], *laws[1], *laws[2], touched, changed, *sizes, *counts)
        device.launch("penalise", "penalise", {"ELEMENT": logits.element}, (batch,), 512, arguments)
    return touched, changed


def sample(
    device: Device,
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
    """Draws one token per row: ``(tokens, logprobs)``. Laws, seeds and steps are numbers or arrays on the device."""
    o, batch, vocab_size = check_logits(logits)
    mask, chosen = check_mask(bitmask, rows, batch, vocab_size)
    penalised = prompt_ids is not None or output_ids is not None
    changes: tuple[Operand | None, Operand | None] = (None, None)
    if penalised:
        penalties = (repetition_penalty, presence_penalty, frequency_penalty)
        changes = penalise(device, o, prompt_ids, output_ids, penalties)
    tokens = result(device, out and out[0], (batch,), "int32", "i32")
    logprobs = result(device, out and out[1], (batch,), "float32", "f32")
    wide = ("u64", "i64")  # torch has few operations on uint64: int64 of the same bits will do
    if batch:
        arguments = (
            *(o, mask, chosen),
            *per_row("temperature", temperature, batch, "f32", np.float32),
            *per_row("top_k", top_k, batch, "i32", np.int32),
            *per_row("top_p", top_p, batch, "f32", np.float32),
            *per_row("min_p", min_p, batch, "f32", np.float32),
            *per_row("seed", seed, batch, wide, np.uint64),
            *per_row("step", step, batch, wide, np.uint64),
            *(*changes, operand("out[0]", tokens), operand("out[1]", logprobs)),
            *(np.int64(o.strides[0]), np.int32(vocab_size), np.int32(-(-vocab_size // 32))),
        )
        variant = {"ELEMENT": o.element, "PENALTIES": int(penalised)}
        device.launch("sample", "sample", variant, (batch,), 512, arguments)
    return tokens, logprobs

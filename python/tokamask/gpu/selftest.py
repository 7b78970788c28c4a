"""Checks and times the kernels on a card, and prints a table that is worth sending to us.

    python -m tokamask.gpu.selftest [--kernel decode,sample] [--check-only] [--json]

Each kernel first runs on a small input against its numpy definition, then on a large one against the clock. The bound is what the card
itself copies from memory to memory, measured in the same run; ``share`` says how much of it a kernel's necessary bytes reach. Exit code
0 if all results are right, 1 if one is wrong, 3 without a CUDA device: then nothing was tested.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tokamask.errors import KernelError
from tokamask.gpu import attention, draft, sampling, selection
from tokamask.gpu.device import Device
from tokamask.reference import append_kv as append_reference
from tokamask.reference import attention as attention_reference
from tokamask.reference import (
    columns,
    fasa,
    indexer,
    lightning,
    press,
    quest,
    reduction,
    token_select,
    unmask,
    verify,
)
from tokamask.reference import prefill as prefill_reference
from tokamask.reference import sampling as sampling_reference
from tokamask.reference import selection as selection_reference
from tokamask.reference.floats import narrow, widen

Array = npt.NDArray[Any]
TOLERANCE = {"f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}
NO_DEVICE = 3


class Board(Protocol):
    """A device with a clock. The CUDA one is :class:`tokamask.gpu.launch.CudaBoard`."""

    device: Device

    def upload(self, array: Array) -> Any:
        """The array on the device."""
        ...

    def download(self, array: Any) -> Array:
        """The array on the host."""
        ...

    def seconds(self, run: Callable[[], Any]) -> float:
        """Of one run among many, without the first."""
        ...

    def bandwidth(self) -> float:
        """Bytes per second, read and written, of a copy within the device's memory."""
        ...


@dataclass(frozen=True)
class Job:
    """A launch that is ready to go, what it should give, and the bytes it must move."""

    run: Callable[[], Any]
    expected: Callable[[], Any]
    bytes: int


@dataclass(frozen=True)
class Row:
    """One line of the table. Times are 0 where only results were checked."""

    kernel: str
    element: str
    right: bool
    error: float
    bytes: int
    seconds: float
    share: float


class Inputs:
    """Arrays of a small or a large case; large ones repeat a block, which is all the same to a kernel without data-dependent work."""

    def __init__(self, board: Board, large: bool) -> None:
        self.board, self.large = board, large
        self.random = np.random.default_rng(1)

    def pick(self, small: int, large: int) -> int:
        """A size."""
        return large if self.large else small

    def floats(self, element: str, *shape: int) -> Array:
        """Normal numbers."""
        size = int(np.prod(shape))
        block = self.random.standard_normal(min(size, 1 << 20)).astype(np.float32)
        dtype = {"f32": np.float32, "f16": np.float16, "bf16": np.uint16}[element]
        return np.resize(narrow(block, dtype), shape)

    def paged(
        self, element: str, batch: int, tokens: int, heads: int, dim: int
    ) -> tuple[Array, Array, Array, Array]:
        """Keys, values, a shuffled page table, lengths."""
        pages = -(-tokens // 16)
        table = self.random.permutation(batch * pages).reshape(batch, pages).astype(np.int32)
        k, v = (self.floats(element, batch * pages, 16, heads, dim) for _ in "kv")
        return k, v, table, np.full(batch, tokens, np.int32)

    def up(self, *arrays: Array) -> list[Any]:
        """All of them on the device."""
        return [self.board.upload(a) for a in arrays]


def decode_job(inputs: Inputs, element: str, group: int) -> Job:
    """Dense decode: 8 KV heads of 128 dimensions."""
    tokens = inputs.pick(70, 131072)
    k, v, table, lengths = inputs.paged(element, 1, tokens, inputs.pick(2, 8), 128)
    q = inputs.floats(element, 1, group * k.shape[2], 128)
    on = inputs.up(q, k, v, table, lengths)
    return Job(
        lambda: attention.decode(inputs.board.device, *on[:4], seq_lens=on[4]),
        lambda: attention_reference.decode(q, k, v, table, lengths)[0],
        k.nbytes + v.nbytes,
    )


def sparse_decode_job(inputs: Inputs, element: str, group: int) -> Job:
    """2048 tokens of 131072 for each of 8 KV heads and 8 sequences."""
    batch, heads = inputs.pick(2, 8), inputs.pick(2, 8)
    tokens, count = inputs.pick(80, 16384), inputs.pick(21, 2048)
    k, v, table, lengths = inputs.paged(element, batch, tokens, heads, 128)
    q = inputs.floats(element, batch, group * heads, 128)
    chosen = [np.sort(inputs.random.permutation(tokens)[:count]) for _ in range(batch * heads)]
    selected = np.array(chosen, np.int32).reshape(batch, heads, count)
    on = inputs.up(q, k, v, table, selected, lengths)
    return Job(
        lambda: attention.sparse_decode(inputs.board.device, *on[:5], seq_lens=on[5]),
        lambda: attention_reference.sparse_decode(q, k, v, table, selected, lengths)[0],
        selected.nbytes + 2 * selected.size * 128 * k.itemsize,
    )


def tree_decode_job(inputs: Inputs, element: str, group: int) -> Job:
    """16 nodes, each of which sees those before it."""
    tokens, heads, nodes = inputs.pick(50, 32768), inputs.pick(2, 8), 16
    k, v, table, lengths = inputs.paged(element, 1, tokens, heads, 128)
    q = inputs.floats(element, 1, nodes, group * heads, 128)
    own: Any = [inputs.floats(element, 1, nodes, heads, 128) for _ in "kv"]
    mask = np.array([[[(2 << i) - 1] for i in range(nodes)]], np.uint64)
    on = inputs.up(q, k, v, table, mask, *own, lengths)
    return Job(
        lambda: attention.tree_decode(inputs.board.device, *on[:7], seq_lens=on[7]),
        lambda: attention_reference.tree_decode(q, k, v, table, mask, own[0], own[1], lengths)[0],
        k.nbytes + v.nbytes,
    )


def merge_states_job(inputs: Inputs, element: str) -> Job:
    """8 parts."""
    v = inputs.floats(element, inputs.pick(2, 4096), 8, 4, 128)
    lse = inputs.floats("f32", *v.shape[:3])
    on = inputs.up(v, lse)
    moved = v.nbytes + v.nbytes // 8 + lse.nbytes
    return Job(
        lambda: attention.merge_states(inputs.board.device, *on)[0],
        lambda: attention_reference.merge_states(v, lse)[0],
        moved,
    )


def append_job(inputs: Inputs, element: str) -> Job:
    """One token for each of many sequences, with Quest's bounds."""
    batch, heads = inputs.pick(3, 4096), inputs.pick(2, 8)
    k, v, table, lengths = inputs.paged(element, batch, 16, heads, 128)
    rows = inputs.floats(element, batch, heads, 128)
    bounds = [inputs.floats("f32", *k.shape[:1], heads, 128) for _ in "lh"]
    on = inputs.up(rows, rows, k, v, table, lengths, *bounds)

    def run() -> Any:
        beside = (on[6], on[7])
        attention.append_kv(inputs.board.device, *on[:5], seq_lens=on[5], bounds=beside)
        return on[2], on[3], *beside

    def expected() -> Any:
        arrays: Any = [x.copy() for x in (k, v, *bounds)]
        indptr = np.arange(batch + 1, dtype=np.int32)
        append_reference.append_kv(
            rows, rows, arrays[0], arrays[1], table, lengths, indptr, (arrays[2], arrays[3])
        )
        return tuple(arrays)

    return Job(run, expected, 4 * rows.nbytes + 4 * batch * heads * 128 * 4)


def prefill_job(inputs: Inputs, element: str) -> Job:
    """The diagonal blocks and the first one; bound by arithmetic, so its share of the bandwidth says little."""
    tokens, heads = inputs.pick(100, 8192), inputs.pick(4, 32)
    q, (k, v) = (
        inputs.floats(element, tokens, heads, 128),
        [inputs.floats(element, tokens, heads // 4, 128) for _ in "kv"],
    )
    blocks = -(-tokens // 64)
    lists = [sorted({0, i}) for i in range(blocks)]
    indptr = np.cumsum([0, *map(len, lists)]).astype(np.int32)
    indices = np.concatenate(lists).astype(np.int32)
    on = inputs.up(q, k, v, indptr, indices)
    return Job(
        lambda: attention.block_sparse_prefill(inputs.board.device, *on),
        lambda: prefill_reference.block_sparse_prefill(q, k, v, indptr[None], indices, (64, 64), True)[0],
        2 * q.nbytes + k.nbytes + v.nbytes,
    )


def selected_prefill_job(inputs: Inputs, element: str) -> Job:
    """Every other token of a prompt, chosen for each query head."""
    tokens, heads = inputs.pick(100, 8192), inputs.pick(4, 32)
    q, k, v = (inputs.floats(element, tokens, n, 128) for n in (heads, heads // 4, heads // 4))
    selected = np.tile(np.arange(0, tokens, 2, dtype=np.int32), (heads, 1))
    on = inputs.up(q, k, v, selected)
    return Job(
        lambda: attention.selected_prefill(inputs.board.device, *on),
        lambda: prefill_reference.selected_prefill(q, k, v, selected)[0],
        (2 * q.nbytes + k.nbytes + v.nbytes) // 2,
    )


def lightning_job(inputs: Inputs, element: str) -> Job:
    """Linear attention with decay."""
    shape = 1, inputs.pick(2, 32), inputs.pick(30, 4096), 64
    q, k, v = (inputs.floats(element, *shape) for _ in "qkv")
    decay = np.full(shape[1], 0.1, np.float32)
    state = np.zeros((*shape[:2], 64, 64), np.float32)
    on = inputs.up(q, k, v, decay)
    return Job(
        lambda: attention.lightning(inputs.board.device, *on, state=inputs.board.upload(state))[0],
        lambda: lightning.lightning(q, k, v, decay, state)[0],
        4 * q.nbytes,
    )


def sample_job(inputs: Inputs, element: str) -> Job:
    """Top-p under a mask that allows half of the vocabulary."""
    batch, vocab_size = inputs.pick(4, 256), inputs.pick(1000, 128256)
    logits = inputs.floats(element, batch, vocab_size)
    mask = inputs.random.integers(-(2**31), 2**31, (batch, -(-vocab_size // 32))).astype(np.int32)
    on = inputs.up(logits, mask)

    def expected() -> Any:
        laws: Any = [
            np.full(batch, x, t)
            for x, t in ((1, np.float32), (0, np.int32), (0.9, np.float32), (0, np.float32))
        ]
        where = np.full(batch, 7, np.uint64), np.arange(batch, dtype=np.uint32), np.zeros(batch, np.uint64)
        return sampling_reference.sample(*[logits, mask, None, *laws, *where])[0]

    return Job(
        lambda: sampling.sample(inputs.board.device, on[0], bitmask=on[1], top_p=0.9, seed=7)[0],
        expected,
        logits.nbytes + mask.nbytes,
    )


def penalties_job(inputs: Inputs, element: str) -> Job:
    """Greedy, after a history of 512 tokens: the reads of the logits and of the history."""
    batch, vocab_size = inputs.pick(4, 256), inputs.pick(1000, 128256)
    logits = inputs.floats(element, batch, vocab_size)
    history = inputs.random.integers(0, vocab_size, (batch, inputs.pick(40, 512))).astype(np.int32)
    on = inputs.up(logits, history)

    def expected() -> Any:
        zeros = np.zeros(batch, np.float32)
        laws: Any = zeros, np.zeros(batch, np.int32), zeros + 1, zeros
        where: Any = (
            np.full(batch, 7, np.uint64),
            np.arange(batch, dtype=np.uint32),
            np.zeros(batch, np.uint64),
        )
        where = (*where, (None, history), np.tile(np.array([1.0, 0.5, 0.25], np.float32), (batch, 1)))
        return sampling_reference.sample(logits, None, None, *laws, *where)[0]

    laws: dict[str, Any] = {"temperature": 0.0, "presence_penalty": 0.5, "frequency_penalty": 0.25, "seed": 7}
    return Job(
        lambda: sampling.sample(inputs.board.device, on[0], output_ids=on[1], **laws)[0],
        expected,
        logits.nbytes + history.nbytes,
    )


def apply_bitmask_job(inputs: Inputs, element: str) -> Job:
    """Every second word allows nothing, the others everything."""
    batch, vocab_size = inputs.pick(3, 1024), inputs.pick(1000, 128256)
    logits = inputs.floats(element, batch, vocab_size)
    mask = np.resize(np.array([0, -1], np.int32), (batch, -(-vocab_size // 32)))
    on = inputs.up(logits, mask)

    def run() -> Any:
        sampling.apply_bitmask(inputs.board.device, *on)
        return on[0]

    return Job(run, lambda: sampling_reference.apply_bitmask(logits, mask), mask.nbytes + logits.nbytes // 2)


def top_k_job(inputs: Inputs, element: str) -> Job:
    """2048 of each row."""
    scores, k = inputs.floats(element, inputs.pick(3, 256), inputs.pick(900, 131072)), inputs.pick(50, 2048)
    (on,) = inputs.up(scores)
    return Job(
        lambda: selection.top_k(inputs.board.device, on, k),
        lambda: selection_reference.top_k(scores, k),
        scores.nbytes + 4 * k * len(scores),
    )


def token_select_job(inputs: Inputs, element: str) -> Job:
    """The soft vote of 32 query heads."""
    tokens, heads = inputs.pick(90, 131072), inputs.pick(2, 8)
    k, _, table, lengths = inputs.paged(element, 1, tokens, heads, 128)
    q = inputs.floats(element, 1, 4 * heads, 128)
    counts: dict[str, Any] = {"k": inputs.pick(20, 2048), "n_init": 4, "n_local": 8, "scale": 0.1}
    on = inputs.up(q, k, table, lengths)
    return Job(
        lambda: selection.token_select(inputs.board.device, *on[:3], seq_lens=on[3], **counts),
        lambda: token_select.token_select(q, k, table, lengths, **counts),
        k.nbytes,
    )


def quest_job(inputs: Inputs, element: str) -> Job:
    """Page scores from ready bounds."""
    tokens, heads = inputs.pick(90, 131072), inputs.pick(2, 8)
    k, _, table, lengths = inputs.paged(element, 1, tokens, heads, 128)
    q = inputs.floats(element, 1, 4 * heads, 128)
    low = inputs.floats("f32", k.shape[0], heads, 128)
    on = inputs.up(q, low, low + 1, table, lengths)
    return Job(
        lambda: selection.quest_scores(inputs.board.device, *on[:4], seq_lens=on[4], page_size=16),
        lambda: quest.quest_scores(q, low, low + 1, table, lengths, 16),
        2 * low.nbytes,
    )


def quest_bounds_job(inputs: Inputs, element: str) -> Job:
    """Bounds of all pages, from their keys."""
    tokens, heads = inputs.pick(90, 131072), inputs.pick(2, 8)
    k, _, table, lengths = inputs.paged(element, 1, tokens, heads, 128)
    on = inputs.up(k, table, lengths)
    return Job(
        lambda: selection.quest_bounds(inputs.board.device, *on[:2], seq_lens=on[2]),
        lambda: quest.quest_bounds(k, table, lengths),
        k.nbytes + 2 * k.nbytes // k.itemsize // 16 * 4,
    )


def page_tokens_job(inputs: Inputs, element: str) -> Job:
    """128 pages for each of many lists."""
    rows, count = inputs.pick(3, 4096), inputs.pick(5, 128)
    pages = np.sort(inputs.random.integers(-1, 2 * count, (rows, 1, count)).astype(np.int32), axis=2)
    lengths = np.full(rows, 16 * count, np.int32)
    on = inputs.up(pages, lengths)
    return Job(
        lambda: selection.page_tokens(inputs.board.device, on[0], 16, seq_lens=on[1]),
        lambda: quest.page_tokens(pages, lengths, 16),
        17 * pages.nbytes,
    )


def fasa_job(inputs: Inputs, element: str, side: bool) -> Job:
    """8 chunks of a head, from a side cache of their 16 channels or from the whole cache."""
    tokens, heads = inputs.pick(90, 131072), inputs.pick(2, 8)
    k, _, table, lengths = inputs.paged(element, 1, tokens, heads, 128)
    q = inputs.floats(element, 1, 4 * heads, 128)
    dominant = np.tile(np.arange(8, dtype=np.int32) * 7, (heads, 1))
    keys = k
    if side:
        keys = np.ascontiguousarray(k[..., fasa.chunk_channels(dominant[0], 128, False)])
    on = inputs.up(q, keys, table, dominant, lengths)
    return Job(
        lambda: selection.fasa_scores(inputs.board.device, *on[:4], seq_lens=on[4]),
        lambda: fasa.fasa_scores(q, k, table, dominant, lengths, False),
        keys.nbytes,
    )


def indexer_job(inputs: Inputs, element: str) -> Job:
    """64 heads, one query of each of 8 rows; bound by arithmetic from about 32 rows on."""
    rows, tokens, heads = inputs.pick(2, 8), inputs.pick(90, 131072), inputs.pick(8, 64)
    q, k = inputs.floats(element, rows, heads, 128), inputs.floats(element, tokens, 128)
    w, at = inputs.floats("f32", rows, heads), np.full(rows, tokens - 1, np.int32)
    on = inputs.up(q, k, w, at)
    return Job(
        lambda: selection.indexer_scores(inputs.board.device, *on[:3], positions=on[3]),
        lambda: indexer.indexer_scores(q, k, w, at),
        k.nbytes + 4 * rows * tokens,
    )


def hisa_job(inputs: Inputs, element: str, paged: bool) -> Job:
    """64 heads, one query of each of 8 rows, 64 blocks of 128 keys; from pages, whose sums are at hand, or from keys in one piece."""
    rows, tokens, heads = inputs.pick(2, 8), inputs.pick(80, 131072), inputs.pick(8, 64)
    block, n_blocks, n_tokens = inputs.pick(16, 128), inputs.pick(3, 64), inputs.pick(20, 2048)
    q, k = inputs.floats(element, rows, heads, 128), inputs.floats(element, tokens, 128)
    w, at = inputs.floats("f32", rows, heads), np.full(rows, tokens - 1, np.int32)
    on = inputs.up(q, k, w, at)
    named: dict[str, Any] = {"n_blocks": n_blocks, "block": block, "positions": on[3]}
    if paged:
        pages = k.reshape(-1, block, 128)
        table = np.arange(len(pages), dtype=np.int32)[None]
        on[1], named["page_table"] = inputs.up(pages, table)
        (named["page_sums"],) = inputs.up(widen(pages).sum(axis=1, dtype=np.float32))
    return Job(
        lambda: selection.hisa_select(inputs.board.device, on[0], on[1], on[2], n_tokens, **named),
        lambda: indexer.hisa_select(q, k, w, at, n_tokens, n_blocks, block),
        (4 * k.size // block if paged else k.nbytes) + rows * n_blocks * block * 128 * k.itemsize,
    )


def column_sums_job(inputs: Inputs, element: str) -> Job:
    """A window of 32 queries; bound by arithmetic."""
    tokens, heads = inputs.pick(90, 32768), inputs.pick(4, 32)
    q, k = (
        inputs.floats(element, inputs.pick(5, 32), heads, 128),
        inputs.floats(element, tokens, heads // 4, 128),
    )
    on = inputs.up(q, k)
    return Job(
        lambda: selection.attention_column_sums(inputs.board.device, *on),
        lambda: columns.attention_column_sums(q, k),
        k.nbytes + 4 * heads * tokens,
    )


def window_job(inputs: Inputs, element: str, name: str) -> Job:
    """What the last 32 queries leave of a prompt: SnapKV's scores, Token Sparse Attention's choice. Bound by the column sums' arithmetic."""
    tokens, heads = inputs.pick(90, 32768), inputs.pick(4, 32)
    q = inputs.floats(element, inputs.pick(5, 32), heads, 128)
    k = inputs.floats(element, tokens, heads // 4, 128)
    on = inputs.up(q, k)
    if name == "snapkv_scores":
        return Job(
            lambda: selection.snapkv_scores(inputs.board.device, *on),
            lambda: press.window_scores(q, k, 5, False),
            k.nbytes + 4 * heads * tokens,
        )
    law: dict[str, Any] = {"coverage": 0.2, "min_tokens": 8}

    def expected() -> Any:
        chosen = press.token_sparse_select(q, k, 0.2, 8, 5)
        return np.pad(chosen, ((0, 0), (0, tokens - chosen.shape[1])), constant_values=-1)

    return Job(
        lambda: selection.token_sparse_select(inputs.board.device, *on, **law),
        expected,
        k.nbytes + 4 * heads * tokens,
    )


def tome_job(inputs: Inputs, element: str) -> Job:
    """Rows of +-1, whose cosines are exact; bound by arithmetic."""
    n, dim = inputs.pick(40, 4096), inputs.pick(16, 1024)
    x = np.sign(widen(inputs.floats("f32", n, dim))).astype(np.float32)
    (on,) = inputs.up(x)
    return Job(
        lambda: selection.tome_merge(inputs.board.device, on, n // 4)[0],
        lambda: reduction.merge(x, np.ones(n, np.float32), *reduction.tome_match(x, n // 4, 0))[0],
        2 * x.nbytes,
    )


def greedy_select_job(inputs: Inputs, element: str, mode: str) -> Job:
    """Rows of +-1, whose cosines are exact."""
    n, dim, k = inputs.pick(40, 2048), inputs.pick(16, 1024), inputs.pick(7, 128)
    x = np.sign(widen(inputs.floats("f32", 1, n, dim))).astype(np.float32)
    worth = None if mode == "maxmin" else inputs.random.permutation(n).astype(np.float32)
    (on,) = inputs.up(x)
    importance = None if worth is None else inputs.up(worth[None])[0]
    return Job(
        lambda: selection.greedy_select(inputs.board.device, on, k, mode=mode, importance=importance),
        lambda: reduction.greedy_select(x[0], k, mode, worth)[None],
        x.nbytes,
    )


def unmask_job(inputs: Inputs, element: str) -> Job:
    """Every position undecided."""
    logits = inputs.floats(element, inputs.pick(9, 512), inputs.pick(300, 128256))
    masked = np.ones(len(logits), np.bool_)
    on = inputs.up(logits, masked)
    return Job(
        lambda: selection.unmask(inputs.board.device, *on, threshold=0.01)[0],
        lambda: unmask.unmask(logits, masked, None, threshold=0.01)[0],
        logits.nbytes,
    )


def verify_job(inputs: Inputs, element: str) -> Job:
    """Chains of 32 nodes over two tokens."""
    batch = inputs.pick(3, 4096)
    tokens, targets = (inputs.random.integers(0, 2, (batch, n)).astype(np.int32) for n in (32, 33))
    parents = np.resize(np.arange(-1, 31, dtype=np.int32), tokens.shape)
    on = inputs.up(tokens, parents, targets)

    def expected() -> Any:
        walks: Any = zip(tokens.tolist(), parents.tolist(), targets.tolist(), strict=True)
        return np.array([len(verify.verify_greedy(t, p, c)[2]) for t, p, c in walks], np.int32)

    return Job(lambda: draft.verify_tree(inputs.board.device, *on)[1], expected, 4 * tokens.nbytes)


def verify_sampled_job(inputs: Inputs, element: str) -> Job:
    """Chains of 4 nodes against laws whose sums are exact, in float32; about two of five laws are read."""
    batch, vocab_size, nodes = inputs.pick(3, 32), inputs.pick(300, 128256), 4
    size = batch * (nodes + 1) * vocab_size
    block = inputs.random.integers(0, 9, min(size, 1 << 20)).astype(np.float32) / 4096
    laws, drafts = (np.resize(x, (batch, nodes + 1, vocab_size)) for x in (block, block[::-1]))
    tokens = inputs.random.integers(0, vocab_size, (batch, nodes)).astype(np.int32)
    parents = np.tile(np.arange(-1, nodes - 1, dtype=np.int32), (batch, 1))
    on = inputs.up(tokens, parents, laws, drafts)

    def expected() -> Any:
        wide, guesses = laws.astype(np.float64), drafts.astype(np.float64)
        walks: Any = zip(tokens.tolist(), parents.tolist(), wide, guesses, strict=True)
        verdicts = [
            verify.verify_siblings(t, p, law, guess, verify.Draws(5, b, 0))
            for b, (t, p, law, guess) in enumerate(walks)
        ]
        return np.array([len(v[2]) for v in verdicts], np.int32), np.array([v[1] for v in verdicts], np.int32)

    def run() -> Any:
        options: dict[str, Any] = {"rule": "specinfer", "draft_probs": on[3], "seed": 5}
        return draft.verify_sampled(inputs.board.device, *on[:3], **options)[1:]

    return Job(run, expected, 2 * 2 * laws.nbytes // (nodes + 1))


JOBS: dict[str, tuple[Callable[..., Job], tuple[tuple[Any, ...], ...]]] = {
    "decode": (decode_job, (("bf16", 1), ("bf16", 4), ("bf16", 8), ("bf16", 16), ("f32", 4))),
    "sparse_decode": (sparse_decode_job, (("bf16", 1), ("bf16", 4), ("f16", 8), ("bf16", 16))),
    "tree_decode": (tree_decode_job, (("bf16", 4), ("f32", 4))),
    "merge_states": (merge_states_job, (("f32",), ("bf16",))),
    "append_kv": (append_job, (("bf16",),)),
    "prefill": (prefill_job, (("bf16",), ("f32",))),
    "selected_prefill": (selected_prefill_job, (("bf16",), ("f32",))),
    "lightning": (lightning_job, (("bf16",),)),
    "sample": (sample_job, (("f32",), ("bf16",))),
    "penalties": (penalties_job, (("f32",),)),
    "apply_bitmask": (apply_bitmask_job, (("f32",),)),
    "top_k": (top_k_job, (("f32",), ("bf16",))),
    "token_select": (token_select_job, (("bf16",),)),
    "quest_scores": (quest_job, (("bf16",),)),
    "quest_bounds": (quest_bounds_job, (("bf16",),)),
    "page_tokens": (page_tokens_job, (("i32",),)),
    "fasa_scores": (fasa_job, (("bf16", True), ("bf16", False))),
    "indexer_scores": (indexer_job, (("bf16",), ("f32",))),
    "hisa": (hisa_job, (("bf16", False), ("bf16", True))),
    "column_sums": (column_sums_job, (("bf16",),)),
    "window": (window_job, (("f32", "snapkv_scores"), ("f32", "token_sparse_select"))),
    "tome_merge": (tome_job, (("f32",),)),
    "greedy_select": (greedy_select_job, (("f32", "maxmin"), ("f32", "mmr"))),
    "unmask": (unmask_job, (("f32",),)),
    "verify_tree": (verify_job, (("i32",),)),
    "verify_sampled": (verify_sampled_job, (("f32",),)),
}


def difference(got: Any, want: Any, element: str, board: Board) -> tuple[bool, float]:
    """Whether results are right, and the greatest distance: 0 for integers, else relative to 1 or the value, whichever is more."""
    if isinstance(want, tuple):
        each = [difference(g, w, element, board) for g, w in zip(got, want, strict=True)]
        return all(right for right, _ in each), max(error for _, error in each)
    got = board.download(got)
    if want.dtype.kind == "i" or want.dtype == np.bool_:
        wrong = int((got != want).sum()) if got.shape == want.shape else want.size
        return wrong == 0, float(wrong)
    a, b = widen(got).astype(np.float64), widen(want).astype(np.float64)
    with np.errstate(invalid="ignore"):
        error = np.where(a == b, 0, np.abs(a - b) / np.maximum(np.abs(b), 1))
    worst = float(error.max(initial=0))
    return bool(worst <= TOLERANCE[element]), worst


def named(choice: Any) -> str:
    """What sets one variant of a job apart from the others, in words."""
    if isinstance(choice, bool):
        return "side" if choice else "whole"
    return f"group {choice}" if isinstance(choice, int) else str(choice)


def test(board: Board, names: Sequence[str], timed: bool) -> Iterator[Row]:
    """Checks, and times what is right."""
    bandwidth = board.bandwidth() if timed else 0.0
    for name in names:
        make, variants = JOBS[name]
        for variant in variants:
            job = make(Inputs(board, large=False), *variant)
            right, error = difference(job.run(), job.expected(), variant[0], board)
            label = " ".join([name, *map(named, variant[1:])])
            moved, seconds = 0, 0.0
            if right and timed:
                job = make(Inputs(board, large=True), *variant)
                moved, seconds = job.bytes, board.seconds(job.run)
            share = moved / seconds / bandwidth if seconds else 0.0
            yield Row(label, variant[0], right, error, moved, seconds, share)


def line(row: Row) -> str:
    """A row in words."""
    verdict = "right" if row.right else "WRONG"
    text = f"{row.kernel:24} {row.element:5} {verdict} error {row.error:8.1e}"
    if not row.seconds:
        return text
    rate = row.bytes / row.seconds / 1e9
    return f"{text} {row.bytes / 1e6:9.1f} MB {row.seconds * 1e6:10.1f} us {rate:8.1f} GB/s {row.share:5.0%} of a copy"


def main(arguments: Sequence[str] | None = None, board: Board | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tokamask.gpu.selftest", description="Check and time the kernels on a card."
    )
    parser.add_argument("--kernel", help=f"only these, comma-separated, of {', '.join(JOBS)}")
    parser.add_argument("--check-only", action="store_true", help="do not time")
    parser.add_argument("--json", action="store_true", help="one JSON array instead of a table")
    options = parser.parse_args(arguments)
    names = options.kernel.split(",") if options.kernel else list(JOBS)
    unknown = [name for name in names if name not in JOBS]
    if unknown:
        parser.error(f"no kernel {', '.join(unknown)}: there are {', '.join(JOBS)}")
    if board is None:
        from tokamask.gpu.launch import CudaBoard, device_name

        try:
            print(f"# {device_name()}", file=sys.stderr)
            board = CudaBoard()
        except KernelError as error:
            print(f"{error}. Nothing was tested.", file=sys.stderr)
            return NO_DEVICE
    rows = []
    for row in test(board, names, timed=not options.check_only):
        rows.append(row)
        if not options.json:
            print(line(row), flush=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    wrong = [row.kernel for row in rows if not row.right]
    if wrong:
        print(f"WRONG: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

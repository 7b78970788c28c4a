"""Every listed variant of every kernel, each on one small input against its definition. The default run takes the first of each kernel;
``make kernels-thorough`` takes all of them under every sanitizer.
"""

import itertools
import os
import zlib

import numpy as np
import pytest
from cuda_engines import TENSOR_TOLERANCE, TOLERANCE, Emulator, cast, reference
from emulator import SANITIZER, EmulatedDevice, together
from test_cuda_sample import check, random_mask
from test_cuda_tree import ancestors, random_parents

from tokamask.gpu.arrays import operand
from tokamask.gpu.indexer import launch_indexer
from tokamask.gpu.manifest import kernels
from tokamask.reference.floats import widen
from tokamask.verify import verify_sampled

ALL = bool(SANITIZER) and bool(os.environ.get("EMULATOR_THOROUGH"))


class Recorder(EmulatedDevice):
    """Notes which variants were launched."""

    def __init__(self, arch: int) -> None:
        super().__init__(arch)
        self.launched = set()

    def launch(self, kernel, entry, defines, *rest) -> None:
        self.launched.add((kernel, tuple((n, str(v)) for n, v in defines.items())))
        super().launch(kernel, entry, defines, *rest)


class Case:
    """One variant: an engine for the plain kernels or those on tensor cores, and numbers to feed it."""

    def __init__(self, kernel: str, defines: dict[str, str]) -> None:
        self.arch = 90 if kernel.endswith("_mma") else 75
        self.run = Emulator(self.arch)
        self.run.device = Recorder(self.arch)
        self.rng = np.random.default_rng(zlib.crc32(repr((kernel, defines)).encode()))
        self.element = defines.get("ELEMENT", "f32")
        self.dim, self.group = int(defines.get("HEAD_DIM", 64)), int(defines.get("GROUP", 1))
        self.defines = defines

    def call(self, module: str, function: str, *arrays, **named):
        return self.run.call(module, function, *arrays, **named)

    def draw(self, *shape: int, element: str = ""):
        return cast(self.rng.standard_normal(shape), element or self.element)

    def cache(self, heads: int = 1):
        """Keys, values, a page table and lengths: one sequence ends inside a page, one is empty."""
        k, v = (self.draw(6, 8, heads, self.dim) for _ in "kv")
        return k, v, self.rng.permutation(6).reshape(2, 3).astype(np.int32), np.array([19, 0], np.int32)

    def close(self, got, want) -> None:
        """Outputs and their ``lse``."""
        tolerance = TENSOR_TOLERANCE if self.arch == 90 else TOLERANCE
        np.testing.assert_allclose(widen(got[0]), widen(want[0]), **tolerance[self.element])
        np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-5)


def decode(case: Case) -> None:
    q, (k, v, table, lens) = case.draw(2, case.group, case.dim), case.cache()
    got = case.call("attention", "decode", q, k, v, table, seq_lens=lens, return_lse=True, splits=2)
    case.close(got, reference("attention").decode(q, k, v, table, lens))


def sparse_decode(case: Case) -> None:
    q, (k, v, table, lens) = case.draw(2, case.group, case.dim), case.cache()
    selected = np.array(
        [[[0, 3, 7, 8, 8, 15, 16, 18, 19, -1]]] * 2, np.int32
    )  # a page's edges, a duplicate, one too far, a hole
    got = case.call(
        "attention", "sparse_decode", q, k, v, table, selected, seq_lens=lens, return_lse=True, splits=2
    )
    case.close(got, reference("attention").sparse_decode(q, k, v, table, selected, lens))


def tree_decode(case: Case) -> None:
    nodes = 8 if case.arch == 90 else 3
    q, (k, v, table, lens) = case.draw(2, nodes, case.group, case.dim), case.cache()
    mask = ancestors(random_parents(case.rng, nodes))[None]
    own = [case.draw(2, nodes, 1, case.dim) for _ in "kv"]
    got = case.call(
        "attention", "tree_decode", q, k, v, table, mask, *own, seq_lens=lens, return_lse=True, splits=2
    )
    case.close(got, reference("attention").tree_decode(q, k, v, table, mask, *own, lens))


def merge_states(case: Case) -> None:
    """Parts of one type, joined into another by decode's own way in: the function itself keeps the type."""
    part, element = case.defines["PARTIAL"], case.defines["ELEMENT"]
    v, lse = case.draw(2, 3, 2, 64, element=part), case.draw(2, 3, 2, element="f32")
    lse[0, 1], lse[1, :, 0] = -np.inf, -np.inf
    out = case.draw(2, 2, 64, element=element)
    got = case.call("merge_states", "merge_states", v, lse, out=out)
    want = reference("attention").merge_states(widen(v).astype(np.float32), lse)
    np.testing.assert_allclose(widen(got[0]), want[0], **TOLERANCE[element])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-6)


def token_scores(case: Case) -> None:
    q, (k, _, table, _) = case.draw(2, case.group, case.dim), case.cache()
    lens, counts = np.array([24, 9], np.int32), {"k": 4, "n_init": 2, "n_local": 3, "scale": 0.2}
    got = case.call("selection", "token_select", q, k, table, seq_lens=lens, **counts)
    np.testing.assert_array_equal(got, reference("token_select").token_select(q, k, table, lens, **counts))


def quest(case: Case) -> None:
    q, (k, _, table, _) = case.draw(2, case.group, case.dim), case.cache()
    lens = np.array([19, 3], np.int32)
    bounds = case.call("selection", "quest_bounds", k, table, seq_lens=lens)
    want = reference("quest").quest_bounds(k, table, lens)
    np.testing.assert_array_equal(bounds, want)
    got = case.call("selection", "quest_scores", q, *bounds, table, seq_lens=lens, page_size=8)
    np.testing.assert_allclose(
        got, reference("quest").quest_scores(q, *want, table, lens, 8), rtol=1e-5, atol=1e-5
    )
    pages = np.array([[[0, 2, -1]], [[1, 0, 9]]], np.int32)
    tokens = case.call("selection", "page_tokens", pages, 8, seq_lens=lens)
    np.testing.assert_array_equal(tokens, reference("quest").page_tokens(pages, lens, 8))


def indexer_scores(case: Case) -> None:
    heads, key = int(case.defines["HEADS"]), case.defines.get("KEY", case.element)
    q, k = case.draw(2, heads, case.dim), case.draw(70, case.dim, element=key)
    w, positions = case.draw(2, heads, element="f32"), np.array([69, 20], np.int32)
    given = (operand(n, x) for n, x in (("q", q), ("w", w), ("k", k), ("positions", positions)))
    got = launch_indexer(case.run.device, *given, count=70)
    want = reference("indexer").indexer_scores(widen(q).astype(np.float32), widen(k), w, positions)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-3)


def hisa(case: Case) -> None:
    q, k, w = case.draw(2, 8, case.dim), case.draw(70, case.dim), case.draw(2, 8, element="f32")
    named = {"positions": np.array([69, 20], np.int32), "n_blocks": 3, "block": 16}
    got = case.call("selection", "hisa_select", q, k, w, 9, **named)
    want = reference("indexer").hisa_select(q, k, w, named["positions"], 9, 3, 16)
    np.testing.assert_array_equal(got, want)


def fasa_query(case: Case) -> None:
    q, (k, _, table, lens) = case.draw(2, 2, 64), case.cache()
    chunks = np.array([[0, 3, 4, 9, 17, 20, 30, 31]], np.int32)
    want = reference("fasa").fasa_scores(q, k, table, chunks, lens, False)
    side = np.ascontiguousarray(k[..., reference("fasa").chunk_channels(chunks[0], 64, False)])
    for keys in (k, side):
        got = case.call("selection", "fasa_scores", q, keys, table, chunks, seq_lens=lens)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def top_k(case: Case) -> None:
    scores, lengths = np.round(case.draw(3, 700, element="f32") * 8) / 8, np.array([700, 33, 0], np.int32)
    given = cast(scores, case.element)
    got = case.call("selection", "top_k", given, 40, lengths=lengths)
    np.testing.assert_array_equal(got, reference("selection").top_k(given, 40, lengths))


def sample(case: Case) -> None:
    logits, mask = case.draw(2, 301), random_mask(case.rng, 2, 301, 0.5)
    history = {"output_ids": case.rng.integers(0, 12, (2, 9)).astype(np.int32), "presence_penalty": 0.5}
    given = history if case.defines.get("PENALTIES", "1") == "1" else {}
    check(case, logits, bitmask=mask, top_p=0.9, top_k=50, seed=3, **given)


def apply_bitmask(case: Case) -> None:
    logits, mask = case.draw(2, 301), random_mask(case.rng, 2, 301, 0.5)
    want = reference("sampling").apply_bitmask(logits, mask, None)
    case.run.apply_bitmask(logits, mask, None)
    np.testing.assert_array_equal(logits, want)


def verify_tree(case: Case) -> None:
    tokens, parents = np.array([[4, 4, 7]], np.int32), np.array([[-1, -1, 0]], np.int32)
    path, accepted, bonus = case.call(
        "draft", "verify_tree", tokens, parents, np.array([[4, 7, 0, 9]], np.int32)
    )
    assert (path.tolist(), accepted.tolist(), bonus.tolist()) == ([[0, 2, -1]], [2], [9])


def verify_by_chance(case: Case) -> None:
    dtype = {"float": "float32", "double": "float64"}[case.defines["PROBABILITY"]]
    laws, drafts = (case.rng.integers(0, 9, (2, 4, 40)).astype(dtype) / 512 for _ in "td")
    tokens, parents = case.rng.integers(0, 40, (2, 3)).astype(np.int32), np.array([[-1, -1, 0]] * 2, np.int32)
    options = {"rule": "specinfer", "draft_probs": drafts, "seed": 5, "row": None, "step": 1}
    got = case.call("draft", "verify_sampled", tokens, parents, laws, **options)
    for mine, theirs in zip(got, verify_sampled((tokens, parents), laws, **options), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def unmask(case: Case) -> None:
    logits, masked = case.draw(5, 300), np.array([True, True, False, True, True])
    got = case.call("selection", "unmask", logits, masked, threshold=0.01, count=3)
    want = reference("unmask").unmask(logits, masked, None, threshold=0.01, count=3)
    for i in (0, 2):
        np.testing.assert_array_equal(got[i], want[i])
    np.testing.assert_allclose(got[1], want[1], rtol=2e-7)


def greedy_select(case: Case) -> None:
    x = cast(np.sign(case.rng.standard_normal((30, 16))), case.element)
    importance = case.rng.permutation(30).astype(np.float32)
    for mode, given in (("maxmin", None), ("mmr", importance)):
        got = case.call("selection", "greedy_select", x, 6, mode=mode, importance=given)
        np.testing.assert_array_equal(got, reference("reduction").greedy_select(x, 6, mode, given))


def tome_merge(case: Case) -> None:
    definition, x = reference("reduction"), cast(np.sign(case.rng.standard_normal((20, 16))), case.element)
    got = case.call("selection", "tome_merge", x, 5)
    want = definition.merge(x, np.ones(20, np.float32), *definition.tome_match(x, 5, 0))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(got[2], want[2])


def lightning(case: Case) -> None:
    dk = int(case.defines["KEY_DIM"])
    q, k, v = (case.draw(1, 2, 19, d) for d in (dk, dk, 40))
    decay, state = np.array([0.1, 3], np.float32), case.draw(1, 2, dk, 40, element="f32")
    want = reference("lightning").lightning(q, k, v, decay, state)
    got = case.call("attention", "lightning", q, k, v, decay, state=state.copy())
    scale = float(np.abs(widen(want[0])).max())
    np.testing.assert_allclose(
        widen(got[0]), widen(want[0]), rtol=0, atol=scale * TOLERANCE[case.element]["rtol"]
    )
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-3)


def append_kv(case: Case) -> None:
    k, v, table, _ = case.cache()
    rows, index = [case.draw(11, 1, 64) for _ in "kv"], case.draw(11, 16)
    named = {"seq_lens": np.array([10, 4], np.int32), "indptr": np.array([0, 9, 11], np.int32)}
    beside = [np.zeros((6, 1, 64), np.float32) for _ in "lh"]
    kept = [case.draw(6, 8, 16), np.zeros((6, 16), np.float32)]
    side = np.array([[1, 30]], np.int32), case.draw(6, 8, 1, 4)
    want = [x.copy() for x in (k, v, *beside, *kept, side[1])]
    reference("append_kv").append_kv(
        *(*rows, want[0], want[1], table, named["seq_lens"], named["indptr"]),
        *((want[2], want[3]), (side[0], want[6]), (index, want[4], want[5])),
    )
    case.call(
        *("attention", "append_kv", *rows, k, v, table),
        **{**named, "bounds": tuple(beside), "side": side, "index": (index, *kept)},
    )
    for mine, theirs in zip((k, v, *beside, *kept, side[1]), want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def prefill(case: Case) -> None:
    tokens = 20
    q, k, v = case.draw(tokens, 2, case.dim), case.draw(tokens, 1, case.dim), case.draw(tokens, 1, case.dim)
    lists, indices = np.array([[0, 1, 3]], np.int32), np.array([0, 0, 1], np.int32)
    got = case.call(
        "attention", "block_sparse_prefill", q, k, v, lists[0], indices, block=(12, 12), return_lse=True
    )
    case.close(got, reference("prefill").block_sparse_prefill(q, k, v, lists, indices, (12, 12), True))
    selected = np.array([np.r_[0:9], np.r_[3, 5, 9:16]], np.int32)
    selected[1, -1] = -1
    got = case.call("attention", "selected_prefill", q, k, v, selected, return_lse=True)
    case.close(got, reference("prefill").selected_prefill(q, k, v, selected))


def column_sums(case: Case) -> None:
    q, k = case.draw(3, 2, case.dim), case.draw(40, 1, case.dim)
    got = case.call("selection", "attention_column_sums", q, k)
    np.testing.assert_allclose(got, reference("columns").attention_column_sums(q, k), rtol=1e-4, atol=1e-6)


def window_scores(case: Case) -> None:
    q, k = case.draw(3, 2, 64), case.draw(40, 1, 64)
    got = case.call("selection", "snapkv_scores", q, k)
    np.testing.assert_allclose(got, reference("press").window_scores(q, k, 5, False), rtol=1e-4, atol=1e-6)


def token_sparse(case: Case) -> None:
    q, k = case.draw(3, 2, 64), case.draw(90, 1, 64)
    got = case.call("selection", "token_sparse_select", q, k, coverage=0.3, min_tokens=4)
    want = reference("press").token_sparse_select(q, k, 0.3, 4, 5)
    np.testing.assert_array_equal(got[:, : want.shape[1]], want)


CASES = {
    "top_k": top_k,
    "sample": sample,
    "penalise": sample,
    "apply_bitmask": apply_bitmask,
    "sparse_decode": sparse_decode,
    "sparse_decode_mma": sparse_decode,
    "decode": decode,
    "decode_mma": decode,
    "merge_states": merge_states,
    "tree_decode": tree_decode,
    "tree_decode_mma": tree_decode,
    "verify_tree": verify_tree,
    "verify_sampled": verify_by_chance,
    "token_scores": token_scores,
    "soft_vote": token_scores,
    "join_selection": token_scores,
    "quest": quest,
    "indexer_scores": indexer_scores,
    "indexer_scores_mma": indexer_scores,
    "hisa": hisa,
    "take": hisa,
    "fasa_query": fasa_query,
    "unmask": unmask,
    "greedy_select": greedy_select,
    "tome_merge": tome_merge,
    "lightning": lightning,
    "append_kv": append_kv,
    "prefill": prefill,
    "prefill_mma": prefill,
    "column_sums": column_sums,
    "window_scores": window_scores,
    "token_sparse": token_sparse,
}


def run_variant(kernel: str, variant) -> None:
    case = Case(kernel, dict(variant))
    CASES[kernel](case)
    assert (kernel, variant) in case.run.device.launched


@pytest.mark.timeout(1200)
@pytest.mark.skipif(not ALL, reason="make kernels-thorough")
@pytest.mark.parametrize("kernel", CASES)
def test_listed_variants(kernel):
    variants = kernels()[kernel].variants()
    for _, some in itertools.groupby(variants, lambda v: v[:-1]):  # all values of the last define
        together(kernel, [tuple(f"{name}={value}" for name, value in v) for v in some])
    for variant in variants:
        print(
            kernel, *(f"{name}={value}" for name, value in variant), flush=True
        )  # a sanitizer ends the process
        run_variant(kernel, variant)


@pytest.mark.skipif(ALL, reason="all of them run")
@pytest.mark.parametrize("kernel", CASES)
def test_the_first_variant(kernel):
    run_variant(kernel, kernels()[kernel].variants()[0])


def test_every_kernel_has_a_case():
    assert set(CASES) == set(kernels())

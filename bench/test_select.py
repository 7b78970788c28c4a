"""What ranks or picks tokens, and what keeps a cache, all cores: one case per public function that no other file measures. Per call."""

import functools

import numpy as np
import pytest

from bench import arrays
from bench.rivals import contestants, prepared

TOKENS, HEADS, DIM = 32_768, 8, 128
DOMINANT = np.tile(np.arange(0, 64, 4, dtype=np.int32), (HEADS, 1))


@functools.lru_cache(maxsize=1)
def cache(turn: int) -> arrays.Paged:
    """One sequence of 32,768 tokens, 32 query heads over 8 KV heads."""
    return arrays.paged(1, TOKENS, None, "float32", turn)


def draw(turn: int, *shape: int) -> np.ndarray:
    """float32 normal numbers, others for every turn."""
    return np.random.default_rng([turn, *shape]).standard_normal(shape, dtype=np.float32)


CASES = {
    "token_select": "2,048 of 32,768 tokens",
    "quest_scores": "2,048 pages of 16",
    "quest_bounds": "32,768 tokens",
    "fasa_scores": "32,768 tokens, 16 chunks",
    "fasa_scores beside": "32,768 tokens, 16 chunks in a cache of their own",
    "fasa_calibrate": "16 samples, 1,024 tokens, 64 chunks",
    "page_tokens": "128 pages of 16, 8 heads of 8 sequences",
    "indexer_scores": "64 heads, 32,768 tokens",
    "hisa_select": "2,048 of 32,768 tokens, 64 blocks",
    "attention_column_sums": "32 queries, 8,192 tokens",
    "knorm_scores": "8,192 tokens",
    "keydiff_scores": "8,192 tokens",
    "lagkv_scores": "8,192 tokens",
    "snapkv_scores": "32 queries, 8,192 tokens",
    "tova_scores": "8,192 tokens",
    "token_sparse_select": "64 queries, 8,192 tokens",
    "kvmerger_merge": "2,048 tokens",
    "ems_merge": "256 of 2,048 tokens",
    "pitome_merge": "256 of 1,024 tokens",
    "dymu_merge": "1,024 tokens",
    "dymu_threshold": "8 pictures of 576 tokens",
    "entropy_scores": "1,024 tokens of 32 heads",
    "pagerank_scores": "12 heads of 576 tokens",
    "unmask": "64 positions of 128,256",
    "tree_decode": "32 nodes, 8,192 tokens",
    "merge_states": "8 parts of 32 rows",
    "lightning": "16 heads, 2,048 tokens",
    "lightning step": "16 heads, one token each of 8 sequences",
    "hybrid_attention": "8 heads, 512 tokens",
    "append_kv": "64 sequences, one token each",
    "append_kv beside": "64 sequences, one token each, bounds and dominant channels",
    "page_table": "64 sequences of 128 pages",
    "kv_views": "any cache",
    "verify_greedy": "64 trees of 32 nodes",
    "verify_sampled": "16 trees of 8 nodes, 32,000 tokens",
    "sample_awrs": "128,256 tokens, a number as JSON",
}

BRIEF = (
    "append_kv",
    "append_kv beside",
    "page_table",
    "kv_views",
    "page_tokens",
    "verify_greedy",
    "merge_states",
)
"""Calls of microseconds: more of them, since the first ones meet pages and caches that nobody has touched."""


@functools.lru_cache(maxsize=1)
def given(name: str, turn: int) -> tuple[tuple, dict]:
    """Arguments of the public function of that name."""
    paged = ("token_select", "quest_scores", "quest_bounds", "fasa_scores", "fasa_scores beside")
    x = cache(turn) if name in paged else None
    if x is not None:
        where = {"seq_lens": x.seq_lens}
    match name:
        case "token_select":
            return (x.q, x.k_cache, x.page_table), where | {"k": 2048, "n_init": 16, "n_local": 128}
        case "quest_bounds":
            return (x.k_cache, x.page_table), where
        case "quest_scores":
            low, high = np.sort(draw(turn, 2, 2048, HEADS, DIM), axis=0)
            table = np.random.default_rng(turn).permutation(2048).astype(np.int32)[None]
            return (x.q, low, high, table), where | {"page_size": 16}
        case "fasa_scores":
            return (x.q, x.k_cache, x.page_table, DOMINANT), where
        case "fasa_scores beside":
            return (x.q, draw(turn, len(x.k_cache), 64, HEADS, 32), x.page_table, DOMINANT), where
        case "fasa_calibrate":
            return (draw(turn, 16, 8, DIM), draw(turn, 1024, 2, DIM), 16), {"top": 64}
        case "page_tokens":
            pages = np.sort(np.random.default_rng(turn).integers(0, 1024, (8, 8, 128)).astype(np.int32))
            return (pages, 16), {"seq_lens": np.full(8, 16_000, np.int32)}
        case "indexer_scores" | "hisa_select":
            last = {"positions": np.array([TOKENS - 1], np.int32)}
            arguments = draw(turn, 1, 64, DIM), draw(turn, TOKENS, DIM), draw(turn, 1, 64)
            if name == "hisa_select":
                return (*arguments, 2048), last | {"n_blocks": 64}
            return arguments, last
        case "attention_column_sums" | "snapkv_scores":
            return (draw(turn, 32, 32, DIM), draw(turn, 8192, HEADS, DIM)), {}
        case "knorm_scores" | "keydiff_scores":
            return (draw(turn, 8192, HEADS, DIM),), {}
        case "lagkv_scores":
            return tuple(draw(turn, 2, 8192, HEADS, DIM)), {}
        case "tova_scores":
            return (draw(turn, 1, 32, DIM), draw(turn, 8192, HEADS, DIM)), {}
        case "token_sparse_select":
            return (draw(turn, 64, 8, DIM), draw(turn, 8192, HEADS, DIM)), {"coverage": 0.05}
        case "kvmerger_merge":
            k = np.repeat(draw(turn, 512, HEADS, DIM), 4, axis=0) + 0.2 * draw(turn, 2048, HEADS, DIM)
            return (k, draw(turn, 2048, HEADS, DIM), abs(draw(turn, HEADS, 2048))), {}
        case "ems_merge":
            k, v = draw(turn, 2, 2048, HEADS, DIM)
            sums = abs(draw(turn, 2, HEADS, 2048))
            return (k, v, *sums), {"budget": 256, "candidates": 256}
        case "pitome_merge":
            return (tokens(turn), 256), {"margin": 0.5}
        case "dymu_merge":
            return (tokens(turn), 0.6), {}
        case "dymu_threshold":
            return ([draw(turn + i, 576, 1024) for i in range(8)], 200.0), {}
        case "entropy_scores":
            return (draw(turn, 1024, 32, DIM),), {}
        case "pagerank_scores":
            weights = np.exp(draw(turn, 12, 576, 576))
            return (weights / weights.sum(axis=2, keepdims=True),), {}
        case "unmask":
            return (arrays.logits(64, turn), np.arange(64) % 2 == 0), {"threshold": 0.5}
        case "tree_decode":
            x = arrays.paged(1, 8192, None, "float32", turn)
            k, v = draw(turn, 2, 1, 32, HEADS, DIM)
            mask = np.array([[[1 << i | 1] for i in range(32)]], np.uint64)
            queries = draw(turn, 1, 32, 32, DIM)
            return (queries, x.k_cache, x.v_cache, x.page_table, mask, k, v), {"seq_lens": x.seq_lens}
        case "merge_states":
            return (draw(turn, 32, 8, 32, DIM), draw(turn, 32, 8, 32)), {}
        case "lightning":
            return (*draw(turn, 3, 1, 16, 2048, 64), np.linspace(0.01, 0.5, 16, dtype=np.float32)), {}
        case "lightning step":
            return (*draw(turn, 3, 8, 16, 1, 64), np.linspace(0.01, 0.5, 16, dtype=np.float32)), {
                "state": draw(turn, 8, 16, 64, 64)
            }
        case "page_table":
            order = np.random.default_rng(turn).permutation(64 * 128).astype(np.int32)
            lists = np.arange(0, 64 * 128 + 1, 128, dtype=np.int32), order, np.full(64, 9, np.int32)
            return lists, {"page_size": 16, "max_pages": 128}
        case "kv_views":
            return (np.zeros((64, 2, 8, 16, 64), np.float32), "HND"), {}
        case "verify_greedy":
            drafts = trees(64, 32, turn)
            targets = np.random.default_rng(turn).integers(0, 4, (64, 33)).astype(np.int32)
            return (drafts, targets), {}
        case "verify_sampled":
            laws = np.exp(draw(turn, 16, 9, 32_000))
            return (trees(16, 8, turn), laws / laws.sum(axis=2, keepdims=True)), {"seed": 1}
        case "sample_awrs":
            return (arrays.logits(1, turn)[0], number()), {"seed": turn}
        case "hybrid_attention":
            salient = np.random.default_rng(turn).random((1, 8, 512)) < 0.2
            return (*draw(turn, 3, 1, 8, 512, 64), salient, *abs(draw(turn, 2, 1, 8, 512, 64))), {
                "window": 64
            }
        case _:  # append_kv
            k_cache, v_cache = np.zeros((2, 128, 64, HEADS, DIM), np.float32)
            table = np.arange(128, dtype=np.int32).reshape(64, 2)
            k, v = draw(turn, 2, 64, HEADS, DIM)
            options = {"seq_lens": np.full(64, 70, np.int32)}
            if "beside" in name:
                options["bounds"] = tuple(np.zeros((2, 128, HEADS, DIM), np.float32))
                options["side"] = DOMINANT, np.zeros((128, 64, HEADS, 32), np.float32)
            return (k, v, k_cache, v_cache, table), options


def trees(batch: int, nodes: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Draft trees of four tokens: token ids and parents, int32 [batch, nodes]."""
    random = np.random.default_rng([batch, nodes, turn])
    parents = [random.integers(-1, i, batch) if i else np.full(batch, -1) for i in range(nodes)]
    return random.integers(0, 4, (batch, nodes)).astype(np.int32), np.stack(parents, axis=1).astype(np.int32)


@functools.lru_cache(maxsize=1)
def number():
    """A matcher at the start of a JSON number, in a vocabulary of digits and words."""
    import tokamask as tm

    tokens = [b"%d" % i for i in range(1110)] + [b"w%d" % i for i in range(arrays.VOCAB_SIZE - 1111)]
    vocabulary = tm.Vocabulary([*tokens, b"</s>"], special={"</s>": len(tokens)}, eos_ids=[len(tokens)])
    return tm.compile(tm.Grammar.json_schema({"type": "number"}), vocabulary).matcher()


def tokens(turn: int) -> np.ndarray:
    """float32 [1024, 1024]: neighbours resemble each other."""
    return draw(turn, 1024, 1024) + 0.3 * np.cumsum(draw(turn + 1, 1024, 1024), axis=0, dtype=np.float32)


@pytest.mark.parametrize("contestant", contestants("select"))
@pytest.mark.parametrize("name", CASES)
def test_select(measure, contestant, name, turn):
    run = prepared(contestant, "select")
    arguments, options = given(name, turn)
    measure(
        run(name, arguments, options),
        work=1,
        unit="us",
        input=f"{name}, {CASES[name]}",
        headline=name in ("token_select", "tree_decode"),
        rounds=15 if name in BRIEF else 3,
    )

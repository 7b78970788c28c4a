"""decode, sparse_decode and merge_states: emulated kernel == Rust == reference, on ordinary and adversarial caches."""

import numpy as np
import pytest
from cuda_engines import QUICK, TENSOR_TOLERANCE, Emulator, cast, engine  # noqa: F401

from tokamask.errors import ShapeError
from tokamask.reference import attention as reference
from tokamask.reference.floats import widen


def paged_case(
    seed=0, *, batch=2, kv_heads=2, group=4, head_dim=64, page_size=16, max_pages=4, element="f32"
):
    """A cache with shuffled pages and one page nobody refers to, which holds NaN."""
    rng = np.random.default_rng(seed)
    pages = batch * max_pages + 1
    k, v = (cast(rng.standard_normal((pages, page_size, kv_heads, head_dim)), element) for _ in "kv")
    k[-1] = v[-1] = cast(np.array(np.nan), element)
    table = rng.permutation(pages - 1).reshape(batch, max_pages).astype(np.int32)
    q = cast(rng.standard_normal((batch, kv_heads * group, head_dim)), element)
    return q, k, v, table


def draw_selection(case, count, seed=1):
    q, k, _, table = case
    rng = np.random.default_rng(seed)
    tokens = table.shape[1] * k.shape[1]
    return np.stack(
        [[np.sort(rng.permutation(tokens)[:count]) for _ in range(k.shape[2])] for _ in q]
    ).astype(np.int32)


def assert_close(got, expected, element):
    o, lse = got
    np.testing.assert_allclose(widen(np.asarray(o)), widen(expected[0]), **TENSOR_TOLERANCE[element])
    np.testing.assert_allclose(np.asarray(lse), expected[1], rtol=1e-5, atol=1e-5)


SHAPES = [
    ("f32", 128, 1),
    ("f32", 256, 3),
    ("bf16", 64, 4),
    ("bf16", 128, 8),
    ("f16", 64, 7),
    ("f16", 256, 16),
]
SHAPES = [SHAPES[3]] if QUICK else SHAPES


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "head_dim", "group"), SHAPES)
def test_sparse_decode(engine, element, head_dim, group):  # noqa: F811
    case = paged_case(element=element, head_dim=head_dim, group=group)
    selected = draw_selection(case, 37)
    selected[0, :, -5:] = -1
    selected[-1, -1] = -1  # nothing selected: output 0, lse -inf
    lens = np.array([64, 41], np.int32)
    sinks = np.linspace(-1, 2, case[0].shape[1], dtype=np.float32)
    got = engine.call(
        "attention", "sparse_decode", *case, selected, seq_lens=lens, sinks=sinks, return_lse=True
    )
    assert_close(got, reference.sparse_decode(*case, selected, lens, sinks=sinks), element)


@pytest.mark.sanitized
@pytest.mark.parametrize(("element", "group"), [("f32", 4), ("bf16", 12)])  # multiply-adds, tensor cores
@pytest.mark.parametrize("lens", [(17, 64)] if QUICK else [(0, 1), (15, 16), (17, 64)])
def test_decode(engine, lens, element, group):  # noqa: F811
    case, lens = paged_case(3, element=element, group=group), np.array(lens, np.int32)
    got = engine.call("attention", "decode", *case, seq_lens=lens, return_lse=True)
    assert_close(got, reference.decode(*case, lens), element)


@pytest.mark.sanitized
def test_holes_duplicates_and_positions_beyond_the_length(engine):  # noqa: F811
    case = paged_case(4)
    selected = np.tile(np.array([5, -1, 5, 63, 64, 10**9, -7, 40, 0], np.int32), (2, 2, 1))
    lens = np.array([64, 40], np.int32)
    got = engine.call("attention", "sparse_decode", *case, selected, seq_lens=lens, return_lse=True)
    assert_close(got, reference.sparse_decode(*case, selected, lens), "f32")


def test_one_list_for_all_heads(engine):  # noqa: F811
    case = paged_case(5)
    shared, lens = draw_selection(case, 20)[:, :1].copy(), np.array([64, 64], np.int32)
    each = np.repeat(shared, 2, axis=1)
    a = engine.call("attention", "sparse_decode", *case, shared, seq_lens=lens)
    b = engine.call("attention", "sparse_decode", *case, each, seq_lens=lens)
    np.testing.assert_array_equal(a, b)


def test_nothing_to_select(engine):  # noqa: F811
    case, lens = paged_case(6), np.array([64, 64], np.int32)
    o, lse = engine.call(
        "attention", "sparse_decode", *case, np.zeros((2, 2, 0), np.int32), seq_lens=lens, return_lse=True
    )
    assert (o == 0).all()
    assert (lse == -np.inf).all()


@pytest.mark.parametrize(("element", "group"), [("f32", 4), ("f16", 8)])
def test_nan_in_a_selected_row_comes_through_and_no_further(engine, element, group):  # noqa: F811
    q, k, v, table = paged_case(7, element=element, group=group)
    k[table[0, 0], 3, 1] = np.nan
    selected, lens = np.tile(np.arange(20, dtype=np.int32), (2, 2, 1)), np.array([64, 64], np.int32)
    o = engine.call("attention", "sparse_decode", q, k, v, table, selected, seq_lens=lens)
    assert np.isnan(o[0, group:]).all()
    assert np.isfinite(o[0, :group]).all()
    assert np.isfinite(o[1]).all()


def test_cards_without_tensor_cores_use_multiply_adds():
    case = paged_case(2, element="bf16", group=8)
    selected, lens = draw_selection(case, 37), np.array([64, 41], np.int32)
    got = Emulator(75).call("attention", "sparse_decode", *case, selected, seq_lens=lens, return_lse=True)
    assert_close(got, reference.sparse_decode(*case, selected, lens), "bf16")


def test_scores_of_minus_infinity_weigh_nothing(engine):  # noqa: F811
    q, k, v, table = paged_case(8, batch=1, kv_heads=1)
    q[:], k[table[0, 0], :8] = 1, -np.inf
    selected, lens = np.arange(8, dtype=np.int32)[None, None], np.array([64], np.int32)
    o, lse = engine.call(
        "attention", "sparse_decode", q, k, v, table, selected, seq_lens=lens, return_lse=True
    )
    assert (o == 0).all()
    assert (lse == -np.inf).all()


@pytest.mark.parametrize("element", ["f32", "bf16"])
def test_merge_states(engine, element):  # noqa: F811
    rng = np.random.default_rng(9)
    v = cast(rng.standard_normal((3, 4, 2, 40)), element)
    lse = rng.standard_normal((3, 4, 2)).astype(np.float32) * 20
    lse[0, 1:], lse[1] = -np.inf, -np.inf
    v[0, 1] = cast(np.array(np.nan), element)  # the value of an empty part is never looked at
    assert_close(engine.call("attention", "merge_states", v, lse), reference.merge_states(v, lse), element)


# ------------------------------------------------------------------------------------ laws of the kernels themselves
def test_splits_do_not_change_the_result():
    case = paged_case(10)
    selected, lens = draw_selection(case, 50), np.array([64, 33], np.int32)
    run = Emulator().call
    one = run("attention", "sparse_decode", *case, selected, seq_lens=lens, splits=1)
    for splits in (2, 7, 64):
        np.testing.assert_allclose(
            run("attention", "sparse_decode", *case, selected, seq_lens=lens, splits=splits),
            one,
            rtol=1e-5,
            atol=1e-6,
        )


def test_everything_selected_is_dense_decode():
    case, lens = paged_case(11), np.array([64, 50], np.int32)
    everything = np.tile(np.arange(64, dtype=np.int32), (2, 2, 1))
    run = Emulator().call
    np.testing.assert_allclose(
        run("attention", "sparse_decode", *case, everything, seq_lens=lens),
        run("attention", "decode", *case, seq_lens=lens),
        rtol=1e-5,
        atol=1e-6,
    )


def test_head_major_and_interleaved_caches():
    q, k, v, table = paged_case(12)
    lens, run = np.array([64, 50], np.int32), Emulator().call
    expected = run("attention", "decode", q, k, v, table, seq_lens=lens)
    head_major = [np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for x in (k, v)]
    np.testing.assert_array_equal(run("attention", "decode", q, *head_major, table, seq_lens=lens), expected)
    both = np.stack([k, v], axis=1)  # [pages, 2, page_size, heads, dim], as FlashInfer keeps it
    np.testing.assert_array_equal(
        run("attention", "decode", q, both[:, 0], both[:, 1], table, seq_lens=lens), expected
    )


def test_shapes_are_refused_by_name():
    q, k, v, table = paged_case(13)
    lens, run = np.array([64, 50], np.int32), Emulator().call
    for wrong in (
        {"q": q[:, :3]},
        {"table": table.astype(np.int64)},
        {"v": v[..., :32]},
        {"lens": lens[:1]},
        {"k": k[:, :, :, 1:]},
    ):
        arguments = {"q": q, "k": k, "v": v, "table": table, "lens": lens, **wrong}
        with pytest.raises(ShapeError):
            run(
                "attention",
                "decode",
                arguments["q"],
                arguments["k"],
                arguments["v"],
                arguments["table"],
                seq_lens=arguments["lens"],
            )


@pytest.mark.parametrize(("element", "group"), [("f32", 4), ("bf16", 8)])  # multiply-adds, tensor cores
def test_splits_do_not_change_dense_attention(element, group):
    """More splits than tokens, splits that end inside a page, an empty sequence."""
    q, k, v, table = paged_case(3, element=element, group=group)
    lens, run = np.array([41, 0], np.int32), Emulator().call
    selected = np.tile(np.arange(0, 50, 3, dtype=np.int32), (2, 1, 1))
    for splits in (1, 2, 7, 64):
        named = {"seq_lens": lens, "return_lse": True, "splits": splits}
        got = run("attention", "decode", q, k, v, table, **named)
        assert_close(got, reference.decode(q, k, v, table, lens), element)
        got = run("attention", "sparse_decode", q, k, v, table, selected, **named)
        assert_close(got, reference.sparse_decode(q, k, v, table, selected, lens), element)

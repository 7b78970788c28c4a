"""torch tensors on the CPU: the same results as numpy arrays, without copies, and as operators of torch.library."""

import numpy as np
import pytest

import tokamask as tm
from tokamask.errors import ShapeError
from tokamask.reference.floats import widen

torch = pytest.importorskip("torch", reason="torch is not installed; pip install torch")
pytestmark = pytest.mark.filterwarnings("ignore")


def to_numpy(x):
    return x.view(torch.int16).numpy().view(np.uint16) if x.dtype == torch.bfloat16 else x.numpy()


@pytest.fixture
def paged():
    """Queries, a cache in bfloat16 whose values are half of one combined tensor, a page table, lengths."""
    torch.manual_seed(1)
    combined = torch.randn(6, 2, 16, 2, 32).bfloat16()
    table = torch.tensor([[3, 1, 5], [0, 2, 4]], dtype=torch.int32)
    lengths = torch.tensor([40, 17], dtype=torch.int32)
    return torch.randn(2, 4, 32).bfloat16(), combined[:, 0], combined[:, 1], table, lengths


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sampling(dtype):
    torch.manual_seed(0)
    wide = torch.randn(3, 1024).to(getattr(torch, dtype))
    logits = wide[:, :1000]  # rows with a stride
    bitmask = torch.randint(-(2**31), 2**31, (3, 32), dtype=torch.int32)
    out = torch.empty(3, dtype=torch.int32), torch.empty(3)
    options = {"temperature": torch.tensor([0.5, 1.0, 0.0]), "top_p": 0.9, "seed": 3}
    options["output_ids"] = torch.tensor([[1, 2], [5, -1], [9, 9]], dtype=torch.int32)
    options["presence_penalty"] = 0.5
    tokens, logprobs = tm.sampling.sample(logits, bitmask=bitmask, out=out, **options)
    assert tokens is out[0]
    plain = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    expected = tm.sampling.sample(to_numpy(wide)[:, :1000], bitmask=bitmask.numpy(), **plain)
    np.testing.assert_array_equal(tokens.numpy(), expected[0])
    np.testing.assert_array_equal(logprobs.numpy(), expected[1])
    changed = wide.clone()
    tm.apply_bitmask(changed[:, :1000], bitmask)  # in place, through the view
    allowed = np.unpackbits(bitmask.numpy().view(np.uint8), axis=1, bitorder="little")[:, :1000].astype(bool)
    assert (torch.isinf(changed[:, :1000]).numpy() == ~allowed).all()
    assert torch.equal(changed[:, 1000:], wide[:, 1000:])
    top = tm.selection.top_k(logits.detach().requires_grad_(), 7)
    assert (top == tm.selection.top_k(to_numpy(wide)[:, :1000], 7)).all()


def test_attention(paged):
    q, k, v, table, lengths = paged
    selected = tm.selection.token_select(q, k, table, seq_lens=lengths, k=4, n_init=2, n_local=4)
    assert selected.dtype == torch.int32
    arrays = [to_numpy(x) for x in (q, k, v, table)]
    out = torch.full((2, 4, 32), torch.nan, dtype=torch.bfloat16)
    for given in (None, selected):
        run = tm.attention.decode if given is None else tm.attention.sparse_decode
        lists = () if given is None else (given,)
        o, lse = run(q, k, v, table, *lists, seq_lens=lengths, return_lse=True, out=out)
        assert o is out
        plain = run(*arrays, *(x.numpy() for x in lists), seq_lens=lengths.numpy(), return_lse=True)
        np.testing.assert_array_equal(to_numpy(o), plain[0])
        np.testing.assert_array_equal(lse.numpy(), plain[1])


def test_decode_agrees_with_torch(paged):
    q, k, v, table, lengths = paged
    o = tm.attention.decode(q, k, v, table, seq_lens=lengths)
    for b, n in enumerate(lengths.tolist()):
        keys, values = (x[table[b].long()].reshape(-1, 2, 32)[:n].transpose(0, 1) for x in (k, v))
        wide = (x[None].float() for x in (q[b][:, None], keys, values))
        theirs = torch.nn.functional.scaled_dot_product_attention(*wide, enable_gqa=True)[0, :, 0]
        np.testing.assert_allclose(widen(to_numpy(o[b])), theirs.numpy(), rtol=2e-2, atol=2e-2)


def test_results_are_of_the_library_of_the_arguments():
    x = torch.randn(12, 8)
    keys = torch.randn(2, 12, 8).transpose(0, 1)
    for result in (
        tm.selection.greedy_select(x, 3),
        *tm.selection.tome_merge(x, 2),
        tm.selection.knorm_scores(keys),
        *tm.selection.kvmerger_merge(keys, keys, torch.rand(2, 12)),
        tm.attention.selected_prefill(keys, keys, keys, torch.tensor([[1, 5], [0, 2]], dtype=torch.int32)),
        *tm.verify_greedy((torch.zeros(1, 2, dtype=torch.int32),) * 2, torch.zeros(1, 3, dtype=torch.int32)),
    ):
        assert isinstance(result, torch.Tensor)
    with pytest.raises(ShapeError, match="library"):
        tm.selection.top_k(x, 1, out=np.zeros((12, 1), np.int32))
    with pytest.raises(ShapeError, match="float32"):
        tm.selection.top_k(x.double(), 1)


class TestOperators:
    """``torch.ops.tokamask``: schemas, fakes and mutation, checked by torch itself."""

    @pytest.fixture
    def cases(self, paged):
        import tokamask.integrations.torch as integration

        q, k, v, table, lengths = paged
        k, v = k.contiguous(), v.contiguous()
        mask = torch.full((3, 4), 0x0F0F0F0F, dtype=torch.int32)
        selected = torch.zeros(2, 1, 3, dtype=torch.int32)
        cases = {
            "apply_bitmask_": [(torch.randn(3, 100), mask)],
            "sample": [(torch.randn(3, 100), mask, 7), (torch.randn(3, 100), None, 7, 1, 0.5, 3)],
            "top_k": [
                (torch.randn(2, 50), 4),
                (torch.randn(2, 5), 9, torch.tensor([1, 5], dtype=torch.int32)),
            ],
            "token_select": [(q, k, table, lengths, 4, 2, 3)],
            "decode": [(q, k, v, table, lengths), (q, k, v, table, lengths, 0.3, torch.zeros(4))],
            "sparse_decode": [(q, k, v, table, selected, lengths)],
            "tree_decode": [
                (
                    *(q[:, None].repeat(1, 2, 1, 1), k, v, table),
                    torch.tensor([[[1], [3]]] * 2).to(torch.uint64),
                    *(torch.randn(2, 2, 2, 32).bfloat16() for _ in "kv"),
                    lengths,
                )
            ],
            "append_kv_": [
                (k[:2, 0].clone(), v[:2, 0].clone(), k.clone(), v.clone(), table, lengths),
                (
                    *(k[:3, 0].clone(), v[:3, 0].clone(), k.clone(), v.clone(), table, lengths),
                    *(
                        torch.tensor([0, 3, 3], dtype=torch.int32),
                        torch.zeros(6, 2, 32),
                        torch.zeros(6, 2, 32),
                    ),
                ),
            ],
            "merge_states": [(torch.randn(3, 2, 4, 8), torch.randn(3, 2, 4))],
        }
        assert set(cases) == set(integration.OPERATORS)
        return cases

    def test_opcheck(self, cases):
        for name, calls in cases.items():
            for arguments in calls:
                torch.library.opcheck(
                    getattr(torch.ops.tokamask, name).default,
                    arguments,
                    test_utils=("test_schema", "test_faketensor"),
                )

    def test_operators_do_what_the_functions_do(self, cases):
        q, k, v, table, lengths = cases["decode"][0]
        o, _ = torch.ops.tokamask.decode(q, k, v, table, lengths)
        assert torch.equal(o, tm.attention.decode(q, k, v, table, seq_lens=lengths))
        logits, mask = cases["apply_bitmask_"][0]
        changed = logits.clone()
        torch.ops.tokamask.apply_bitmask_(changed, mask)
        tokens, _ = torch.ops.tokamask.sample(logits, mask, 7)
        assert torch.isfinite(changed[torch.arange(3), tokens.long()]).all()
        assert torch.equal(tokens, tm.sampling.sample(logits, bitmask=mask, seed=7)[0])

    def test_a_traced_program_keeps_the_operator(self, cases):
        from torch.fx.experimental.proxy_tensor import make_fx

        graph = make_fx(lambda x: torch.ops.tokamask.top_k(x, 4) + 1, tracing_mode="fake")(torch.randn(2, 50))
        assert "tokamask.top_k" in graph.code
        x = torch.randn(2, 50)
        assert torch.equal(graph(x), tm.selection.top_k(x, 4) + 1)

    def test_a_program_on_cuda_tensors_is_traced_without_a_card(self):
        """Fakes know shape, type and device of every result, which is all that tracing asks of them."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        import tokamask.integrations.torch  # noqa: F401

        def step(q, k, v, table, lengths, logits, mask):
            selected = torch.ops.tokamask.token_select(q, k, table, lengths, 64, 4, 16)
            o, lse = torch.ops.tokamask.sparse_decode(q, k, v, table, selected, lengths)
            torch.ops.tokamask.apply_bitmask_(logits, mask)
            tokens, _ = torch.ops.tokamask.sample(logits, None, 7)
            return o * 2, lse, tokens

        with FakeTensorMode():
            integers = {"dtype": torch.int32, "device": "cuda"}
            half = {"dtype": torch.bfloat16, "device": "cuda"}
            cache = [torch.empty(40, 16, 8, 128, **half) for _ in "kv"]
            arrays = (torch.empty(2, 32, 128, **half), *cache, torch.empty(2, 20, **integers))
            rest = (
                torch.empty(2, **integers),
                torch.empty(2, 999, device="cuda"),
                torch.empty(2, 32, **integers),
            )
            o, lse, tokens = step(*arrays, *rest)
            assert (o.shape, o.dtype, o.device.type) == ((2, 32, 128), torch.bfloat16, "cuda")
            assert (lse.shape, lse.dtype, lse.device.type) == ((2, 32), torch.float32, "cuda")
            assert (tokens.shape, tokens.dtype, tokens.device.type) == ((2,), torch.int32, "cuda")

    def test_torch_compile_keeps_the_operators(self, cases):
        q, k, v, table, lengths = cases["decode"][0]

        def step(q, k, v, table, lengths):
            return torch.ops.tokamask.decode(q * 2, k, v, table, lengths)[0] + 1

        compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(q, k, v, table, lengths), step(q, k, v, table, lengths))


class TestKvpress:
    """The scorers against kvpress itself, where it is installed: its presses, fed with keys, values and attention."""

    @pytest.fixture
    def arrays(self):
        pytest.importorskip("kvpress", reason="kvpress is not installed; pip install kvpress")
        torch.manual_seed(2)
        keys, values = torch.randn(2, 1, 2, 300, 16)  # [batch, heads, tokens, dim]
        return keys, values, torch.randn(4, 300, 16)

    def ours(self, score):
        return score[None]

    def test_presses_of_keys(self, arrays):
        from kvpress import KeyDiffPress, KnormPress, LagKVPress

        keys, values, _ = arrays
        k, v = (x[0].transpose(0, 1) for x in (keys, values))
        theirs = KnormPress().score(None, None, keys, values, None, {})
        torch.testing.assert_close(self.ours(tm.selection.knorm_scores(k)), theirs)
        theirs = KeyDiffPress().score(None, None, keys, values, None, {})
        torch.testing.assert_close(self.ours(tm.selection.keydiff_scores(k)), theirs, atol=2e-6, rtol=0)
        theirs = LagKVPress(n_sink=3, lag_size=20).score(None, None, keys, values, None, {})
        assert (self.ours(tm.selection.lagkv_scores(k, v, n_init=3, lag=20)) == theirs).float().mean() > 0.99

    def test_presses_of_attention(self, arrays):
        import types

        from kvpress import SnapKVPress, TOVAPress

        keys, values, queries = arrays
        module = types.SimpleNamespace(config=types.SimpleNamespace(num_attention_heads=4))
        scores = queries @ keys[0].repeat_interleave(2, dim=0).transpose(1, 2) / 4
        causal = torch.ones(300, 300).tril().bool()
        attention = scores.masked_fill(~causal, -torch.inf).softmax(-1)[None]
        hidden = torch.zeros(1, 300, 1)
        k = keys[0].transpose(0, 1)
        press = SnapKVPress(window_size=12, kernel_size=5)
        theirs = press.score(module, hidden, keys, values, attention, {})
        ours = tm.selection.snapkv_scores(queries[:, -12:].transpose(0, 1), k)
        torch.testing.assert_close(self.ours(ours), theirs, atol=2e-6, rtol=1e-4)
        theirs = TOVAPress().score(module, hidden, keys, values, attention, {})
        ours = tm.selection.tova_scores(queries[:, -1:].transpose(0, 1), k)
        torch.testing.assert_close(self.ours(ours), theirs, atol=2e-6, rtol=1e-4)

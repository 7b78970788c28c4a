"""torch's attention as it is most often called: query heads side by side, ``enable_gqa``. The other adapter folds them into rows."""

from bench.rivals import Rival
from bench.rivals.torch import tensor


class TorchGqa(Rival):
    name = "torch enable_gqa"
    distribution = "torch"
    needs = ("torch",)

    def attention(self):
        import pytest
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        def prepare(x):
            if x.selected is not None:
                pytest.skip("dense attention only")
            batch, heads, dim = x.q.shape
            rows = torch.from_numpy(x.page_table).long()[:, :, None] * 64 + torch.arange(64)
            k, v = (
                tensor(c).view(-1, *c.shape[2:])[rows.view(batch, -1)].transpose(1, 2).contiguous()
                for c in (x.k_cache, x.v_cache)
            )
            q = tensor(x.q).view(batch, heads, 1, dim)
            return lambda: scaled_dot_product_attention(q, k, v, enable_gqa=True)

        return prepare


ADAPTER = TorchGqa()

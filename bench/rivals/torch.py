"""torch on the CPU, as inference engines write the operation with it."""

from bench.rivals import Rival


class Torch(Rival):
    name = "torch"
    distribution = "torch"
    needs = ("torch",)

    def sample(self):
        import torch

        def prepare(logits, bitmask, *, temperature, top_k=0, top_p=1.0):
            scores = torch.from_numpy(logits)
            mask = None if bitmask is None else torch.from_numpy(bitmask)

            def run():
                x = scores if mask is None else scores.masked_fill(~unpack(mask, scores.shape[1]), -torch.inf)
                if temperature == 0:
                    return x.argmax(dim=1)
                x = x / temperature
                values, chosen = x.topk(top_k, dim=1) if top_k else x.sort(dim=1, descending=True)
                laws = values.softmax(dim=1)
                laws[laws.cumsum(dim=1) - laws > top_p] = 0
                return chosen.gather(1, laws.multinomial(1))[:, 0]

            return run

        return prepare

    def apply_bitmask(self):
        import torch

        def prepare(logits, bitmask):
            own, mask = torch.from_numpy(logits.copy()), torch.from_numpy(bitmask)
            return lambda: own.masked_fill_(~unpack(mask, own.shape[1]), -torch.inf)

        return prepare

    def top_k(self):
        import torch

        def prepare(scores, k):
            scores = torch.from_numpy(scores)
            return lambda: scores.topk(k, dim=1, sorted=False).indices.sort(dim=1).values.numpy()

        return prepare

    def attention(self):
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        def prepare(x):
            batch, heads, dim = x.q.shape
            k, v = (torch.from_numpy(c).view(-1, *c.shape[2:]) for c in (x.k_cache, x.v_cache))
            q, table = torch.from_numpy(x.q), torch.from_numpy(x.page_table).long()
            kv_heads = k.shape[1]
            positions = torch.arange(int(x.seq_lens[0])).expand(batch, kv_heads, -1)
            if x.selected is not None:
                positions = torch.from_numpy(x.selected).long()

            if x.selected is None:  # a dense cache lies in one piece, as torch would have it
                rows = table[:, :, None] * 64 + torch.arange(64)
                rows = rows.view(batch, -1)
                keys, values = (c[rows].transpose(1, 2).contiguous() for c in (k, v))
                grouped = q.view(batch, kv_heads, heads // kv_heads, dim)
                return lambda: scaled_dot_product_attention(grouped, keys, values)

            def run():
                pages = table[torch.arange(batch)[:, None, None], positions // 64]
                rows = pages * 64 + positions % 64
                head = torch.arange(kv_heads)[None, :, None]
                grouped = q.view(batch, kv_heads, heads // kv_heads, dim)
                return scaled_dot_product_attention(grouped, k[rows, head], v[rows, head])

            return run

        return prepare


def unpack(bitmask, width):
    """Bool [rows, width]."""
    import torch

    bits = bitmask[:, :, None] >> torch.arange(32, dtype=torch.int32)
    return (bits & 1).bool().view(len(bitmask), -1)[:, :width]


ADAPTER = Torch()

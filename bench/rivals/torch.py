"""torch on the CPU, as inference engines write the operation with it."""

import functools

from bench.rivals import Rival


class Torch(Rival):
    name = "torch"
    distribution = "torch"
    needs = ("torch",)

    def sample(self):
        import torch

        def prepare(logits, bitmask, *, temperature, top_k=0, top_p=1.0):
            scores = torch.from_numpy(logits)
            forbidden = None if bitmask is None else ~unpack(torch.from_numpy(bitmask), scores.shape[1])

            if bitmask is None and temperature and not top_k and top_p >= 1:
                return lambda: (scores / temperature).softmax(dim=1).multinomial(1)[:, 0]

            def run():
                x = scores if forbidden is None else scores.masked_fill(forbidden, -torch.inf)
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
            own = torch.from_numpy(logits.copy())
            forbidden = ~unpack(
                torch.from_numpy(bitmask), own.shape[1]
            )  # ready-made, as an engine in torch holds it
            return lambda: own.masked_fill_(forbidden, -torch.inf)

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
            k, v = (tensor(c).view(-1, *c.shape[2:]) for c in (x.k_cache, x.v_cache))
            q, table = tensor(x.q), torch.from_numpy(x.page_table).long()
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

    def prefill(self):
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        def prepare(q, k, v, *, blocks=None, selected=None):
            q, k, v = (torch.from_numpy(x).transpose(0, 1)[None].contiguous() for x in (q, k, v))
            if selected is None:
                mask = torch.from_numpy(blocks).repeat_interleave(64, 0).repeat_interleave(64, 1).tril()
                return lambda: scaled_dot_product_attention(q, k, v, attn_mask=mask)
            places = torch.from_numpy(selected).long()[None, :, :, None].expand(-1, -1, -1, q.shape[-1])

            def run():
                gathered = (x.gather(2, places) for x in (q, k, v))
                o = scaled_dot_product_attention(*gathered, is_causal=True)
                return torch.zeros_like(q).scatter_(2, places, o)

            return run

        return prepare

    def reduce(self):
        import torch

        def greedy_select(x, k):
            unit = torch.nn.functional.normalize(x, dim=1)
            distance = 1 - unit @ unit.T
            others = distance.clone().fill_diagonal_(torch.inf)
            chosen = [others.min(dim=1).values.argmax()]
            nearest = distance[chosen[0]].clone()
            for _ in range(k - 1):
                nearest[chosen[-1]] = -torch.inf
                chosen.append(nearest.argmax())
                torch.minimum(nearest, distance[chosen[-1]], out=nearest)
            return torch.stack(chosen).sort().values

        def tome_merge(x, r):
            unit = torch.nn.functional.normalize(x, dim=1)
            best, target = (unit[::2] @ unit[1::2].T).max(dim=1)
            order = best.argsort(descending=True)
            gone, stay = order[:r], order[r:].sort().values
            into = x[1::2].clone().index_add_(0, target[gone], x[::2][gone])
            size = torch.ones(len(into)).index_add_(0, target[gone], torch.ones(r))
            return torch.cat([x[::2][stay], into / size[:, None]])

        ways = {"greedy_select": greedy_select, "tome_merge": tome_merge}
        return lambda how, x, count: functools.partial(ways[how], torch.from_numpy(x), count)

    def select(self):
        import pytest

        from bench.rivals import torch_select

        def prepare(name, arguments, options):
            run = torch_select.prepare(name, arguments, options)
            if run is None:
                pytest.skip("no version in torch here")
            return run

        return prepare


def tensor(array):
    """A tensor over a numpy array; uint16 holds bfloat16."""
    import torch

    if array.dtype == "uint16":
        return torch.from_numpy(array.view("int16")).view(torch.bfloat16)
    return torch.from_numpy(array)


def unpack(bitmask, width):
    """Bool [rows, width]."""
    import torch

    bits = bitmask[:, :, None] >> torch.arange(32, dtype=torch.int32)
    return (bits & 1).bool().view(len(bitmask), -1)[:, :width]


ADAPTER = Torch()

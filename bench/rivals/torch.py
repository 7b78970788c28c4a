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


def unpack(bitmask, width):
    """Bool [rows, width]."""
    import torch

    bits = bitmask[:, :, None] >> torch.arange(32, dtype=torch.int32)
    return (bits & 1).bool().view(len(bitmask), -1)[:, :width]


ADAPTER = Torch()

"""numpy, as one would write the operation with it."""

import numpy as np
import pytest

from bench.rivals import Rival


class Numpy(Rival):
    name = "numpy"
    distribution = "numpy"
    needs = ("numpy",)

    def sample(self):
        random = np.random.default_rng(1)

        def prepare(logits, bitmask, *, temperature, top_k=0, top_p=1.0):
            def law_only():
                below = np.cumsum(np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature), axis=1)
                return (below < (random.random(len(logits)) * below[:, -1])[:, None]).sum(axis=1)

            if bitmask is None and temperature and not top_k and top_p >= 1:
                return law_only

            def run():
                x = logits if bitmask is None else np.where(unpack(bitmask, logits.shape[1]), logits, -np.inf)
                if temperature == 0:
                    return x.argmax(axis=1)
                k = top_k or x.shape[1]
                chosen = np.argpartition(x, -k, axis=1)[:, -k:] if top_k else np.argsort(x, axis=1)
                values = np.take_along_axis(x, chosen, axis=1)
                order = np.argsort(-values, axis=1)
                values = np.take_along_axis(values, order, axis=1) / temperature
                weights = np.exp(values - values[:, :1])
                below = np.cumsum(weights, axis=1)
                below /= below[:, -1:]
                cut = (below < top_p).sum(axis=1)
                limit = np.take_along_axis(below, np.minimum(cut, k - 1)[:, None], axis=1)[:, 0]
                drawn = (below < (random.random(len(x)) * limit)[:, None]).sum(axis=1)
                place = np.take_along_axis(order, drawn[:, None], axis=1)
                return np.take_along_axis(chosen, place, axis=1)[:, 0]

            return run

        return prepare

    def apply_bitmask(self):
        def prepare(logits, bitmask):
            own = logits.copy()

            def run():
                own[~unpack(bitmask, own.shape[1])] = -np.inf

            return run

        return prepare

    def top_k(self):
        return lambda scores, k: lambda: np.sort(np.argpartition(scores, -k, axis=1)[:, -k:], axis=1)

    def attention(self):
        def prepare(x):
            if x.q.dtype == np.uint16:
                pytest.skip("numpy has no bfloat16")
            batch, heads, dim = x.q.shape
            k, v = (c.reshape(-1, *c.shape[2:]) for c in (x.k_cache, x.v_cache))
            if x.selected is None:  # a dense cache lies in one piece, as numpy would have it
                rows = (x.page_table[:, :, None] * 64 + np.arange(64)).reshape(batch, -1)
                keys = np.ascontiguousarray(k[rows].transpose(0, 2, 3, 1))
                values = np.ascontiguousarray(v[rows].transpose(0, 2, 1, 3))
                grouped = x.q.reshape(batch, k.shape[1], -1, dim)

                def dense():
                    scores = grouped @ keys / np.sqrt(dim)
                    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
                    weights /= weights.sum(axis=-1, keepdims=True)
                    return weights @ values

                return dense

            def run():
                out = np.empty_like(x.q)
                for b in range(batch):
                    for head in range(k.shape[1]):
                        positions = x.selected[b, head]
                        rows = x.page_table[b, positions // 64] * 64 + positions % 64
                        group = heads // k.shape[1]
                        q = x.q[b, head * group : (head + 1) * group]
                        scores = q @ k[rows, head].T / np.sqrt(dim)
                        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
                        weights /= weights.sum(axis=1, keepdims=True)
                        out[b, head * group : (head + 1) * group] = weights @ v[rows, head]
                return out

            return run

        return prepare


def unpack(bitmask, width):
    """Bool [rows, width]."""
    return np.unpackbits(bitmask.view(np.uint8), axis=1, count=width, bitorder="little").view(bool)


ADAPTER = Numpy()

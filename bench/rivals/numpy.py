"""numpy, as one would write the operation with it."""

import numpy as np

from bench.rivals import Rival


class Numpy(Rival):
    name = "numpy"
    distribution = "numpy"
    needs = ("numpy",)

    def sample(self):
        random = np.random.default_rng(1)

        def prepare(logits, bitmask, *, temperature, top_k=0, top_p=1.0):
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


def unpack(bitmask, width):
    """Bool [rows, width]."""
    return np.unpackbits(bitmask.view(np.uint8), axis=1, count=width, bitorder="little").view(bool)


ADAPTER = Numpy()

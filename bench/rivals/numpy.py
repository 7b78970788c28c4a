"""numpy, as one would write the operation with it."""

from bench.rivals import Rival


class Numpy(Rival):
    name = "numpy"
    distribution = "numpy"
    needs = ("numpy",)


ADAPTER = Numpy()

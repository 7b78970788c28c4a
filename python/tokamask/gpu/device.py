"""What a launch needs of a device. The CUDA device of :mod:`tokamask.gpu.launch` is one; the CPU emulator of the tests
is another, so that the launch code itself (grids, argument order, workspaces) is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tokamask.gpu.arrays import Operand

Argument = Operand | np.generic | None


class Device(Protocol):
    """Allocates results beside the caller's arrays and launches kernels on the caller's stream."""

    @property
    def multiprocessors(self) -> int:
        """How many blocks of a large kernel run at once, for choosing splits."""
        ...

    @property
    def arch(self) -> int:
        """Compute capability times ten: 80 for an A100."""
        ...

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """An uninitialised array in the caller's library; ``dtype`` is a numpy name or ``"bfloat16"``."""
        ...

    def launch(
        self,
        kernel: str,
        entry: str,
        defines: Mapping[str, object],
        grid: Sequence[int],
        threads: int,
        arguments: Sequence[Argument],
        shared_bytes: int = 0,
    ) -> None:
        """Runs ``entry`` of ``cuda/<kernel>.cu`` compiled with ``defines``."""
        ...


def on_tensor_cores(device: Device, element: str, head_dim: int, rows: int) -> bool:
    """Whether the products of ``rows`` queries with one key go to tensor cores: from eight rows on, where half of a product is used.

    Not heads of 256: their outputs and queries do not fit into a thread's registers (``docs/explanation/kernels.md``).
    """
    return device.arch >= 80 and element != "f32" and head_dim <= 128 and rows >= 8

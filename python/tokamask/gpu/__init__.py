"""The CUDA half of the array functions: sources, compilation and launches.

Users call :mod:`tokamask.sampling`, :mod:`tokamask.selection` and :mod:`tokamask.attention`, which come here when an array
lives on a CUDA device. Importing this package needs neither CuPy nor torch nor a driver.
"""

from tokamask.gpu.arrays import is_cuda
from tokamask.gpu.launch import device_of, use_cubins, warm_up

__all__ = ["device_of", "is_cuda", "use_cubins", "warm_up"]

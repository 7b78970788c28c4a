"""The one exp2: a polynomial of degree 6 with a fixed order of float32 fused multiply-adds.

Every device computes the same bits, because each step is one correctly rounded IEEE operation. The coefficients are a
minimax fit of (2^f - 1) / f on [-1/2, 1/2], each rounded to float32 before the next was fitted; the result is within
1.0 unit in the last place of 2^z, and is exact at integers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

# c1 .. c6 as float32 bit patterns; c0 is 1.
COEFFICIENT_BITS = (0x3F317218, 0x3E75FDEB, 0x3D6357BB, 0x3C1D9905, 0x3AAF85C3, 0x391F5950)
COEFFICIENTS = tuple(np.array(COEFFICIENT_BITS, np.uint32).view(np.float32))
MASS_BITS = 40  # the mass of 2^0
FLOOR = np.float32(-64)  # below it the mass is 0 whatever the argument


def fma(a: FloatArray, b: FloatArray, c: FloatArray | np.float32) -> FloatArray:
    """``a * b + c`` in float32 with one rounding, for finite values without overflow.

    The product of two float32 is exact in float64. Rounding the float64 sum to float32 would round twice, so the sum is
    first rounded *to odd*: where it is inexact (the error comes from Knuth's two-sum) the last bit is forced to 1. A value
    rounded to odd with at least two bits to spare rounds on to the same float32 as the exact value would
    (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008).
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = np.broadcast_to(np.asarray(c, np.float64), product.shape)
    total = product + addend
    shadow = total - product
    error = (product - (total - shadow)) + (addend - shadow)
    bits = total.view(np.int64)
    inexact_even = (error != 0) & (bits & 1 == 0)
    towards = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where(inexact_even, bits + towards, bits).view(np.float64)
    return odd.astype(np.float32)


def exp2(z: FloatArray) -> FloatArray:
    """``2 ** z`` for ``z`` in [-64, 64], float32, bit for bit as Rust and CUDA compute it.

    ``n = rint(z)`` (ties to even), ``f = z - n`` (exact), Horner from c6 down to c0 = 1 with :func:`fma`, then ``n`` is added
    to the exponent field.
    """
    z = np.atleast_1d(np.asarray(z, np.float32))
    n = np.rint(z)
    f = z - n
    p = np.full_like(f, COEFFICIENTS[5])
    for c in (*COEFFICIENTS[4::-1], np.float32(1)):
        p = fma(p, f, c)
    return (p.view(np.int32) + (n.astype(np.int32) << 23)).view(np.float32)


def mass(z: FloatArray) -> npt.NDArray[np.uint64]:
    """``2 ** z`` for ``z <= 0`` as an integer count of 2^-40: uint64 in [0, 2^40].

    ``z`` is raised to -64 first (also -inf); the float32 result is scaled by 2^40 and rounded to the nearest integer, ties
    to even (both exact in float64, where adding 2^52 does the rounding).
    """
    y = exp2(np.maximum(np.asarray(z, np.float32), FLOOR)).astype(np.float64)
    return np.rint(y * 2.0**MASS_BITS).astype(np.uint64)

//! The one exp2: degree 6, fixed order, explicit fused multiply-adds (`python/tokamask/reference/exp2.py`).

use super::lanes::Lanes;

/// c1 .. c6; c0 is 1.
const COEFFICIENTS: [u32; 6] = [0x3F31_7218, 0x3E75_FDEB, 0x3D63_57BB, 0x3C1D_9905, 0x3AAF_85C3, 0x391F_5950];
/// log2(e).
pub const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// Below it a mass is 0 whatever the argument.
pub const FLOOR: f32 = -64.0;
/// The mass of 2^0 is 2 to this.
pub const MASS_BITS: u32 = 40;

/// `2^z` for z in [-64, 64].
pub fn exp2(z: f32) -> f32 {
    let n = z.round_ties_even();
    let f = z - n;
    let mut p = f32::from_bits(COEFFICIENTS[5]);
    for c in COEFFICIENTS[..5].iter().rev() {
        p = p.mul_add(f, f32::from_bits(*c));
    }
    p = p.mul_add(f, 1.0);
    f32::from_bits(p.to_bits().wrapping_add((n as i32 as u32) << 23))
}

/// Eight of [`exp2`], the same bits. NaN stays NaN.
///
/// # Safety
/// The processor has the features of `L`.
#[inline(always)]
pub unsafe fn exp2_lanes<L: Lanes>(z: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let n = z.round();
        let f = z.sub(n);
        let mut p = L::splat(f32::from_bits(COEFFICIENTS[5]));
        for c in COEFFICIENTS[..5].iter().rev() {
            p = p.fused(f, L::splat(f32::from_bits(*c)));
        }
        p.fused(f, L::splat(1.0)).scale_exponent(n)
    }
}

/// `rint(y * 2^40)` for y in [0, 1].
pub fn to_mass(y: f32) -> u64 {
    (f64::from(y) * (1u64 << MASS_BITS) as f64).round_ties_even() as u64
}

/// `2^z` for z <= 0 as a count of 2^-40.
pub fn mass(z: f32) -> u64 {
    to_mass(exp2(if z > FLOOR { z } else { FLOOR }))
}

//! float16 and bfloat16 as their bits, and the integer that orders as a float does.

use super::array::Floats;

/// A float16 by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct F16(pub u16);

/// A bfloat16 by its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// What array elements may be: everything widens to f32 exactly and is rounded back to nearest, ties to even.
pub trait Float: Copy + Send + Sync + super::lanes::Load + 'static {
    /// The exact f32.
    fn widen(self) -> f32;
    /// The nearest value of this type.
    fn narrow(x: f32) -> Self;
    /// The slice, if its elements are of this type.
    fn of(floats: Floats<'_>) -> Option<&[Self]>;
    /// The row itself where it is f32 already.
    fn as_f32(_row: &[Self]) -> Option<&[f32]> {
        None
    }
    /// -inf over the elements whose bit is 0.
    ///
    /// # Safety
    /// The processor has the features of `L`.
    #[inline(always)]
    unsafe fn mask_block<L: super::lanes::Lanes>(tokens: &mut [Self; 32], bits: u32) {
        let minus_inf = Self::narrow(f32::NEG_INFINITY);
        for (i, token) in tokens.iter_mut().enumerate() {
            *token = if bits >> i & 1 == 0 { minus_inf } else { *token };
        }
    }
    /// The same by AVX-512.
    ///
    /// # Safety
    /// 32 elements behind `tokens`, and a processor with AVX-512F and BW.
    #[cfg(target_arch = "x86_64")]
    unsafe fn mask_wide(tokens: *mut Self, bits: u32);
}

/// -inf over 16-bit elements whose bit is 0.
///
/// # Safety
/// As [`Float::mask_wide`].
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn mask_halves(tokens: *mut u16, bits: u32, minus_inf: u16) {
    use std::arch::x86_64::{
        _mm512_loadu_epi16, _mm512_mask_mov_epi16, _mm512_set1_epi16, _mm512_storeu_epi16,
    };
    // SAFETY: the caller's promise is the same.
    unsafe {
        let kept = _mm512_loadu_epi16(tokens.cast());
        let masked = _mm512_mask_mov_epi16(_mm512_set1_epi16(minus_inf as i16), bits, kept);
        _mm512_storeu_epi16(tokens.cast(), masked);
    }
}

impl Float for f32 {
    fn of(floats: Floats<'_>) -> Option<&[Self]> {
        match floats {
            Floats::F32(data) => Some(data),
            _ => None,
        }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn as_f32(row: &[Self]) -> Option<&[f32]> {
        Some(row)
    }
    #[inline(always)]
    unsafe fn mask_block<L: super::lanes::Lanes>(tokens: &mut [f32; 32], bits: u32) {
        for lane in (0..32).step_by(super::lanes::WIDTH) {
            // SAFETY: lane + WIDTH <= 32; the caller has the features.
            unsafe {
                let at = tokens.as_mut_ptr().add(lane);
                let allowed = L::from_bits(bits >> lane);
                L::load(at).keep(allowed).or(L::splat(f32::NEG_INFINITY).drop(allowed)).store(at);
            }
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mask_wide(tokens: *mut Self, bits: u32) {
        use std::arch::x86_64::{_mm512_loadu_ps, _mm512_mask_mov_ps, _mm512_set1_ps, _mm512_storeu_ps};
        for lane in [0, 16] {
            // SAFETY: the caller's promise is the same.
            unsafe {
                let at = tokens.add(lane);
                let minus_inf = _mm512_set1_ps(f32::NEG_INFINITY);
                let kept = _mm512_loadu_ps(at);
                _mm512_storeu_ps(at, _mm512_mask_mov_ps(minus_inf, (bits >> lane) as u16, kept));
            }
        }
    }
}

impl Float for Bf16 {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mask_wide(tokens: *mut Self, bits: u32) {
        // SAFETY: the caller's promise is the same; the type is a u16.
        unsafe { mask_halves(tokens.cast(), bits, 0xFF80) }
    }
    fn of(floats: Floats<'_>) -> Option<&[Self]> {
        match floats {
            Floats::Bf16(data) => Some(data),
            _ => None,
        }
    }
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        if x.is_nan() {
            return Self((bits >> 16) as u16 | 0x40);
        }
        Self(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16)
    }
}

impl Float for F16 {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn mask_wide(tokens: *mut Self, bits: u32) {
        // SAFETY: the caller's promise is the same; the type is a u16.
        unsafe { mask_halves(tokens.cast(), bits, 0xFC00) }
    }
    fn of(floats: Floats<'_>) -> Option<&[Self]> {
        match floats {
            Floats::F16(data) => Some(data),
            _ => None,
        }
    }
    #[inline]
    fn widen(self) -> f32 {
        let sign = u32::from(self.0 & 0x8000) << 16;
        let magnitude = u32::from(self.0 & 0x7FFF) << 13;
        let rebias = match magnitude >> 23 {
            0 => {
                // Zero and subnormals: the mantissa counts units of 2^-24, exact in f32.
                let value = (magnitude >> 13) as f32 * f32::from_bits(0x3380_0000);
                return f32::from_bits(value.to_bits() | sign);
            }
            31 => 224 << 23, // infinity and NaN
            _ => 112 << 23,
        };
        f32::from_bits((magnitude + rebias) | sign)
    }
    #[inline]
    fn narrow(x: f32) -> Self {
        let bits = x.to_bits();
        let sign = (bits >> 16 & 0x8000) as u16;
        let magnitude = bits & 0x7FFF_FFFF;
        let half = if magnitude > 0x7F80_0000 {
            0x7E00 | (magnitude >> 13 & 0x3FF) as u16
        } else if magnitude >= 0x4780_0000 {
            0x7C00
        } else if magnitude >= 0x3880_0000 {
            // Normal: a carry out of the mantissa raises the exponent, up to infinity, as it should.
            ((magnitude - (112 << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13) as u16
        } else {
            // Subnormal: adding 0.5 puts the units of 2^-24 into the low mantissa bits and rounds there.
            ((f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits()) as u16
        };
        Self(sign | half)
    }
}

/// The float of a key; NaN for 0.
#[inline]
pub fn key_value(key: u32) -> f32 {
    match key {
        0 => f32::NAN,
        _ if key >> 31 == 1 => f32::from_bits(key & !(1 << 31)),
        _ => f32::from_bits(!key),
    }
}

/// Orders as the float does: NaN is 0, below -inf; -0.0 equals 0.0.
#[inline]
pub fn order_key(x: f32) -> u32 {
    if x.is_nan() {
        return 0;
    }
    let bits = (x + 0.0).to_bits(); // -0.0 + 0.0 is 0.0
    if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_survive_the_round_trip() {
        for bits in 0..=u16::MAX {
            let half = F16(bits);
            let nan = bits & 0x7C00 == 0x7C00 && bits & 0x3FF != 0;
            assert_eq!(half.widen().is_nan(), nan);
            assert!(nan || F16::narrow(half.widen()) == half, "{bits:#x}");
            let brain = Bf16(bits);
            assert!(brain.widen().is_nan() || Bf16::narrow(brain.widen()) == brain);
        }
        assert_eq!(F16(0x3C01).widen().to_bits(), (1.0 + 1.0 / 1024f32).to_bits());
        assert_eq!(F16(1).widen().to_bits(), 2f32.powi(-24).to_bits());
        assert_eq!(F16::narrow(65_520.0), F16(0x7C00)); // half way to the next rounds to even: infinity
        assert_eq!(F16::narrow(1.0 + 1.0 / 2048.0), F16(0x3C00)); // tie to even
        assert_eq!(F16::narrow(2f32.powi(-25)), F16(0));
    }

    #[test]
    fn keys_order_as_floats() {
        let ascending = [f32::NAN, f32::NEG_INFINITY, -1.0, -1e-40, -0.0, 1e-40, 1.0, f32::INFINITY];
        assert!(ascending.windows(2).all(|w| order_key(w[0]) < order_key(w[1])));
        assert_eq!(order_key(-0.0), order_key(0.0));
        assert_eq!(order_key(-f32::NAN), 0);
    }
}

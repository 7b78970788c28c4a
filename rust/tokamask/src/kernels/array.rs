//! Borrowed arrays with strides: what the binding hands to the kernels.

use super::floats::{Bf16, F16};
use crate::error::ShapeError;

/// Elements of one of the float types.
#[derive(Clone, Copy)]
pub enum Floats<'a> {
    /// float32
    F32(&'a [f32]),
    /// float16
    F16(&'a [F16]),
    /// bfloat16
    Bf16(&'a [Bf16]),
}

/// The same, writable.
pub enum FloatsMut<'a> {
    /// float32
    F32(&'a mut [f32]),
    /// float16
    F16(&'a mut [F16]),
    /// bfloat16
    Bf16(&'a mut [Bf16]),
}

impl<'a> Floats<'a> {
    /// The slice, if its elements are of the type of `like`.
    pub fn like<T: super::floats::Float>(self, like: &[T]) -> Option<&'a [T]> {
        let _ = like;
        T::of(self)
    }
}

/// Runs the expression with `$data` bound to the typed slice.
#[macro_export]
#[doc(hidden)]
macro_rules! each_float {
    ($floats:expr, $data:ident => $body:expr) => {
        match $floats {
            $crate::kernels::array::Floats::F32($data) => $body,
            $crate::kernels::array::Floats::F16($data) => $body,
            $crate::kernels::array::Floats::Bf16($data) => $body,
        }
    };
}
pub use each_float;

/// `N`-dimensional array: element (i, j, ..) is `data[i * strides[0] + j * strides[1] + ..]`; the last stride is 1.
#[derive(Clone, Copy)]
pub struct View<'a, T, const N: usize> {
    data: &'a [T],
    /// Sizes.
    pub shape: [usize; N],
    /// In elements.
    pub strides: [usize; N],
}

impl<'a, T, const N: usize> View<'a, T, N> {
    /// Checks that every element lies in `data` and that the last dimension is contiguous.
    pub fn new(
        name: &str,
        data: &'a [T],
        shape: [usize; N],
        strides: [usize; N],
    ) -> Result<Self, ShapeError> {
        let contiguous = shape[N - 1] <= 1 || strides[N - 1] == 1 || shape.contains(&0);
        if contiguous && extent(&shape, &strides) <= data.len() {
            return Ok(Self { data, shape, strides });
        }
        Err(ShapeError {
            name: name.to_owned(),
            expected: "rows of contiguous elements".to_owned(),
            got: format!("shape {shape:?} with strides {strides:?} over {} elements", data.len()),
        })
    }

    /// A C-contiguous array.
    pub fn dense(name: &str, data: &'a [T], shape: [usize; N]) -> Result<Self, ShapeError> {
        let mut strides = [1; N];
        for i in (0..N - 1).rev() {
            strides[i] = strides[i + 1] * shape[i + 1];
        }
        Self::new(name, data, shape, strides)
    }

    /// The last dimension at the first `N - 1` indices.
    #[inline]
    pub fn row(&self, index: [usize; N]) -> &'a [T] {
        debug_assert!(index[N - 1] == 0);
        let start: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum();
        &self.data[start..start + self.shape[N - 1]]
    }

    /// All elements reachable; offsets into it come from `strides`.
    pub(crate) fn data(&self) -> &'a [T] {
        self.data
    }
}

/// One more than the greatest offset that an index reaches.
pub fn extent(shape: &[usize], strides: &[usize]) -> usize {
    if shape.contains(&0) {
        return 0;
    }
    1 + shape.iter().zip(strides).map(|(n, s)| (n - 1) * s).sum::<usize>()
}

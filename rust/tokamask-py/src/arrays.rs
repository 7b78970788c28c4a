//! Numpy arrays in and out, and the one place that checks their type and shape against a name.

use numpy::{Element, PyArray1, PyArrayDescrMethods, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use tokamask::error::ShapeError;
use tokamask::kernels::array::{extent, Floats, FloatsMut};

/// A core vector handed to numpy without a copy.
pub fn to_numpy<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    PyArray1::from_vec(py, values)
}

/// The same, not writable.
pub fn to_frozen<T: Element>(py: Python<'_>, values: Vec<T>) -> Bound<'_, PyArray1<T>> {
    let array = to_numpy(py, values);
    // SAFETY: nobody else has seen the array yet.
    unsafe { (*array.as_array_ptr()).fields.flags &= !WRITEABLE };
    array
}

/// A read-only array that is used beyond the call that brought it.
pub struct Kept<T> {
    _owner: Py<PyUntypedArray>,
    data: *const T,
    length: usize,
}

// SAFETY: the memory belongs to a numpy array that is kept alive and that was not writable.
unsafe impl<T: Sync> Send for Kept<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Kept<T> {}

impl<T: Element> Kept<T> {
    /// Keeps a C-contiguous array of one dimension and exactly one type that nobody may write to.
    pub fn new(name: &str, value: &Bound<'_, PyAny>) -> Result<Self, ShapeError> {
        let refuse = || shape_error(name, format!("read-only {} [n]", T::get_dtype(value.py())), value);
        if Layout::of(value, WRITEABLE).is_some() {
            return Err(refuse());
        }
        let (data, shape) = contiguous::<T>(name, value)?;
        let owner = value.cast::<PyUntypedArray>().ok().filter(|_| shape.len() == 1).ok_or_else(refuse)?;
        Ok(Self { _owner: owner.clone().unbind(), data: data.as_ptr(), length: data.len() })
    }
}

impl<T> AsRef<[T]> for Kept<T> {
    fn as_ref(&self) -> &[T] {
        // SAFETY: the owner keeps the elements where they were when they were borrowed.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }
}

/// `int64 [4, 8]` for an array, its Python type for anything else.
pub fn describe(value: &Bound<'_, PyAny>) -> String {
    match value.cast::<PyUntypedArray>() {
        Ok(array) => format!("{} {:?}", array.dtype(), array.shape()),
        Err(_) => value.get_type().to_string(),
    }
}

/// The error for an argument that is not what it should be.
pub fn shape_error(name: &str, expected: impl Into<String>, got: &Bound<'_, PyAny>) -> ShapeError {
    ShapeError { name: name.to_owned(), expected: expected.into(), got: describe(got) }
}

/// A borrowed float array: float32, float16, or bfloat16 as uint16. Strides are in elements.
pub struct FloatArray<'a> {
    pub data: Floats<'a>,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// The same, writable.
pub struct FloatArrayMut<'a> {
    pub data: FloatsMut<'a>,
    pub shape: Vec<usize>,
    pub strides: Vec<usize>,
}

/// An array of native byte order, aligned, without negative strides; sizes and strides in elements.
struct Layout<'a, 'py> {
    array: &'a Bound<'py, PyUntypedArray>,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Elements from the first to the last that an index reaches.
    extent: usize,
}

/// numpy's array flags that matter here (`NPY_ARRAY_ALIGNED`, `NPY_ARRAY_WRITEABLE`).
const ALIGNED: std::os::raw::c_int = 0x0100;
const WRITEABLE: std::os::raw::c_int = 0x0400;
/// numpy's type numbers of the float types (`NPY_USHORT`, `NPY_FLOAT`, `NPY_HALF`).
const UINT16: std::os::raw::c_int = 4;
const FLOAT32: std::os::raw::c_int = 11;
const FLOAT16: std::os::raw::c_int = 23;
const FLOAT_TYPES: &str = "float32, float16 or uint16 (bfloat16 bits)";

impl<'a, 'py> Layout<'a, 'py> {
    fn of(value: &'a Bound<'py, PyAny>, flags: std::os::raw::c_int) -> Option<Self> {
        let array = value.cast::<PyUntypedArray>().ok()?;
        let size = isize::try_from(array.dtype().itemsize()).ok().filter(|size| *size > 0)?;
        // SAFETY: reading the flags of a live array object.
        let has = unsafe { (*array.as_array_ptr()).fields.flags };
        if has & flags != flags || array.dtype().is_native_byteorder() == Some(false) {
            return None;
        }
        let shape = array.shape().to_vec();
        let in_elements = |s: &isize| (s % size == 0).then(|| usize::try_from(s / size).ok()).flatten();
        let strides: Vec<usize> = array.strides().iter().map(in_elements).collect::<Option<_>>()?;
        let extent = extent(&shape, &strides);
        Some(Self { array, shape, strides, extent })
    }

    /// # Safety
    /// `T` is the type of the elements.
    unsafe fn elements<T>(&self) -> &'a [T] {
        if self.extent == 0 {
            return &[];
        }
        // SAFETY: numpy guarantees that every index within the shape is readable, `extent` ends at the greatest of them,
        // and gaps between rows belong to the same buffer. The array object outlives 'a. A Python thread that writes to
        // the array during the call races with us as it would with numpy's own functions.
        unsafe { std::slice::from_raw_parts((*self.array.as_array_ptr()).fields.data.cast(), self.extent) }
    }

    /// # Safety
    /// `T` is the type of the elements, the array is writable, and nothing else borrows it.
    unsafe fn elements_mut<T>(&self) -> &'a mut [T] {
        if self.extent == 0 {
            return &mut [];
        }
        // SAFETY: as above, and the caller's promise.
        unsafe {
            std::slice::from_raw_parts_mut((*self.array.as_array_ptr()).fields.data.cast(), self.extent)
        }
    }
}

/// Borrows a float array of any shape and any positive strides.
pub fn floats<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> Result<FloatArray<'a>, ShapeError> {
    let refuse = || shape_error(name, FLOAT_TYPES, value);
    let layout = Layout::of(value, ALIGNED).ok_or_else(refuse)?;
    // SAFETY: the type number says what the elements are; F16 and Bf16 are u16 in memory.
    let data = unsafe {
        match layout.array.dtype().num() {
            FLOAT32 => Floats::F32(layout.elements()),
            FLOAT16 => Floats::F16(layout.elements()),
            UINT16 => Floats::Bf16(layout.elements()),
            _ => return Err(refuse()),
        }
    };
    Ok(FloatArray { data, shape: layout.shape, strides: layout.strides })
}

/// Borrows a writable float array of any shape and any positive strides.
pub fn floats_mut<'a>(name: &str, value: &'a Bound<'_, PyAny>) -> Result<FloatArrayMut<'a>, ShapeError> {
    let refuse = || shape_error(name, format!("writable {FLOAT_TYPES}"), value);
    let layout = Layout::of(value, ALIGNED | WRITEABLE).ok_or_else(refuse)?;
    // SAFETY: as in `floats`; writable, and each binding borrows an output once.
    let data = unsafe {
        match layout.array.dtype().num() {
            FLOAT32 => FloatsMut::F32(layout.elements_mut()),
            FLOAT16 => FloatsMut::F16(layout.elements_mut()),
            UINT16 => FloatsMut::Bf16(layout.elements_mut()),
            _ => return Err(refuse()),
        }
    };
    Ok(FloatArrayMut { data, shape: layout.shape, strides: layout.strides })
}

/// Borrows a C-contiguous array of exactly one type; also its shape.
pub fn contiguous<'a, T: Element>(
    name: &str,
    value: &'a Bound<'_, PyAny>,
) -> Result<(&'a [T], Vec<usize>), ShapeError> {
    let dtype = T::get_dtype(value.py());
    let layout = Layout::of(value, ALIGNED)
        .filter(|layout| layout.array.is_c_contiguous() && layout.array.dtype().is_equiv_to(&dtype))
        .ok_or_else(|| shape_error(name, format!("C-contiguous {dtype}"), value))?;
    // SAFETY: the type was just compared.
    Ok((unsafe { layout.elements() }, layout.shape))
}

/// Borrows a writable C-contiguous array of exactly one type; also its shape.
#[allow(clippy::mut_from_ref)] // the Python object owns the buffer; numpy's writable flag is the permission
pub fn contiguous_mut<'a, T: Element>(
    name: &str,
    value: &'a Bound<'_, PyAny>,
) -> Result<(&'a mut [T], Vec<usize>), ShapeError> {
    let dtype = T::get_dtype(value.py());
    let layout = Layout::of(value, ALIGNED | WRITEABLE)
        .filter(|layout| layout.array.is_c_contiguous() && layout.array.dtype().is_equiv_to(&dtype))
        .ok_or_else(|| shape_error(name, format!("writable C-contiguous {dtype}"), value))?;
    // SAFETY: the type was just compared; writable, and each binding borrows an output once.
    Ok((unsafe { layout.elements_mut() }, layout.shape))
}

/// The words of a bitmask, int32 [rows, words] and C-contiguous; None for anything else. Called once per token:
/// it allocates nothing.
#[allow(clippy::mut_from_ref)] // as above
pub fn bitmask_words<'a>(value: &'a Bound<'_, PyAny>, words: usize) -> Option<&'a mut [u32]> {
    let array = value.cast::<PyUntypedArray>().ok()?;
    // SAFETY: reading the flags of a live array object.
    let has = unsafe { (*array.as_array_ptr()).fields.flags };
    let (dtype, shape) = (array.dtype(), array.shape());
    let words_of_32_bits = dtype.kind() == b'i' && dtype.itemsize() == 4;
    let fits =
        has & (ALIGNED | WRITEABLE) == ALIGNED | WRITEABLE && dtype.is_native_byteorder() != Some(false);
    if !fits || !words_of_32_bits || shape.len() != 2 || shape[1] != words || !array.is_c_contiguous() {
        return None;
    }
    let count = shape[0] * shape[1];
    if count == 0 {
        return Some(&mut []);
    }
    // SAFETY: aligned, writable, contiguous elements of 32 bits, as many as the shape says; the array object
    // outlives 'a, each binding borrows its bitmask once, and other writers race as with numpy's functions.
    Some(unsafe { std::slice::from_raw_parts_mut((*array.as_array_ptr()).fields.data.cast(), count) })
}

/// The elements of a row that nobody writes to.
pub fn frozen_row<'a>(row: &'a Bound<'_, PyArray1<i32>>) -> &'a [i32] {
    // SAFETY: rows that are kept are contiguous and were made read-only before anybody else saw them.
    unsafe { row.as_slice() }.unwrap_or_default()
}

/// Sizes and strides of an array of `N` dimensions whose last is contiguous.
pub fn dimensions<const N: usize>(
    name: &str,
    shape: &[usize],
    strides: &[usize],
    value: &Bound<'_, PyAny>,
) -> Result<([usize; N], [usize; N]), ShapeError> {
    let refuse = |_| shape_error(name, format!("{N} dimensions, the last contiguous"), value);
    let (shape, strides): ([_; N], [_; N]) =
        (shape.try_into().map_err(refuse)?, strides.try_into().map_err(refuse)?);
    if shape[N - 1] > 1 && strides[N - 1] != 1 && !shape.contains(&0) {
        return Err(shape_error(name, format!("{N} dimensions, the last contiguous"), value));
    }
    Ok((shape, strides))
}

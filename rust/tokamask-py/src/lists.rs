//! Lists of ids that share their int objects.
//!
//! A list of fresh ints costs 25 to 40 ns an id, more than encoding does. The ints of a vocabulary are made once, and
//! a list only counts its references. The stable ABI has one call to set an item and one to count a reference; where
//! the interpreter lays its lists out as all of 3.10 to 3.14 do, which is looked at once, items are written directly.

use std::ptr::addr_of;

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyInt, PyList};
use pyo3::{ffi, Borrowed};

/// Ids between asking for an int object and counting its reference.
const AHEAD: usize = 12;

/// The int of every id.
pub struct Ints(Vec<Py<PyInt>>);

/// What a list is in memory.
#[repr(C)]
struct Layout {
    references: isize,
    kind: *mut ffi::PyTypeObject,
    length: isize,
    items: *mut *mut ffi::PyObject,
}

impl Ints {
    /// The ints below `count`.
    pub fn new(py: Python<'_>, count: usize) -> Self {
        Self((0..count).map(|id| PyInt::new(py, id).unbind()).collect())
    }

    fn int<'a, 'py>(&'a self, py: Python<'py>, id: u32) -> Borrowed<'a, 'py, PyInt> {
        self.0[id as usize].bind_borrowed(py)
    }

    /// The list of ids, all of which are below the count.
    pub fn list<'py>(&self, py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
        if !is_plain(py)? {
            return PyList::new(py, ids.iter().map(|&id| self.int(py, id)));
        }
        // All ids are looked up before the list is: a list must not be left half filled.
        // The largest is found by vectors, the first that is too large would not be.
        let most = ids.iter().fold(0, |most, &id| most.max(id)) as usize;
        if !ids.is_empty() && most >= self.0.len() {
            return Err(PyIndexError::new_err(format!("id {most} of {}", self.0.len())));
        }
        let old = py.version_info() < (3, 12);
        // SAFETY: the list is new, nobody else knows it, and its layout was verified: it has room for `ids.len()`
        // items, all of them null. Each is set once, to an object whose reference was counted before. Before 3.12,
        // counting is adding one to the first word; later objects may be immortal, which the call knows.
        unsafe {
            let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(ids.len() as isize))?;
            let items = (*list.as_ptr().cast::<Layout>()).items;
            for (nth, &id) in ids.iter().enumerate() {
                if let Some(&later) = ids.get(nth + AHEAD) {
                    touch(self.0[later as usize].as_ptr());
                }
                let int = self.0[id as usize].as_ptr();
                if old {
                    *int.cast::<isize>() += 1;
                } else {
                    ffi::Py_IncRef(int);
                }
                *items.add(nth) = int;
            }
            Ok(list.cast_into_unchecked())
        }
    }
}

/// Brings an object into the cache.
#[inline]
fn touch(object: *mut ffi::PyObject) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        // SAFETY: a prefetch of any address is harmless, and SSE is part of the architecture.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(object.cast_const().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

fn references_to(value: &Bound<'_, PyAny>) -> isize {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(value.as_ptr()) as isize }
}

/// True if lists and references look as they did in all versions so far.
fn is_plain(py: Python<'_>) -> PyResult<bool> {
    static PLAIN: PyOnceLock<bool> = PyOnceLock::new();
    PLAIN
        .get_or_try_init(py, || {
            let value = PyInt::new(py, 1_234_567).into_any();
            let list = PyList::new(py, [&value, &value, &value])?;
            // SAFETY: a list object is at least as large as the layout in every version; the words are only read,
            // and the items only if the words before them are what they should be.
            let plain = unsafe {
                let words = list.as_ptr().cast::<Layout>();
                let known = addr_of!((*words).kind).read() == ffi::Py_TYPE(list.as_ptr())
                    && addr_of!((*words).length).read() == 3;
                let items = addr_of!((*words).items).read();
                known
                    && !items.is_null()
                    && items.is_aligned()
                    && (0..3).all(|nth| *items.add(nth) == value.as_ptr())
            };
            let counts = || {
                let before = references_to(&value);
                let another = value.clone();
                let counted = references_to(&value) == before + 1;
                drop(another);
                counted
            };
            // SAFETY: the first word of an object, only read.
            let first = || unsafe { value.as_ptr().cast::<isize>().read() };
            let old = py.version_info() < (3, 12);
            let same = !old || (counts() && first() == references_to(&value));
            Ok(plain && same) // builds without the GIL have no stable ABI, so this is none
        })
        .copied()
}

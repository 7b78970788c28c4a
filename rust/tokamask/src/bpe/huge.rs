//! Large zeroed tables on huge pages. The tables of this folder are probed at random; with pages of
//! 4 KiB a probe misses the TLB as well as the cache. (Measured on a prototype: the largest single
//! gain of the miss path, 676 to 426 ns a word.)

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Zeroable;

const PAGE: usize = 2 << 20;

/// A boxed slice that starts as zeros, on huge pages if it is large.
pub struct Huge<T> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: a Huge owns its elements like a Box<[T]>; the pointer is not shared.
unsafe impl<T: Send> Send for Huge<T> {}
// SAFETY: as above; shared access gives only &T.
unsafe impl<T: Sync> Sync for Huge<T> {}

impl<T> Huge<T> {
    fn layout(length: usize) -> Layout {
        let size = (length * size_of::<T>()).max(64);
        let (size, align) = if size >= PAGE { (size.next_multiple_of(PAGE), PAGE) } else { (size, 64) };
        // Cannot fail: lengths come from tables of bounded size.
        Layout::from_size_align(size, align.max(align_of::<T>())).unwrap_or(Layout::new::<u64>())
    }

    /// A table of `length` zeroed elements.
    ///
    /// # Panics
    /// If it would not fit the address space.
    pub fn zeroed(length: usize) -> Self
    where
        T: Zeroable,
    {
        let layout = Self::layout(length);
        assert!(layout.size() >= length * size_of::<T>(), "a table of {length} elements");
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        if layout.align() == PAGE {
            // Fresh pages are zeros: nothing is written twice.
            let Some(start) = pages::map(layout.size()) else { handle_alloc_error(layout) };
            return Self { start: start.cast(), length };
        }
        // SAFETY: the layout is not empty, and its size was just checked.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start.cast::<T>()) else { handle_alloc_error(layout) };
        // SAFETY: `length` elements were allocated.
        unsafe { start.write_bytes(0, length) };
        Self { start, length }
    }
}

impl<T: Copy + Zeroable> Huge<T> {
    /// A copy of a slice.
    pub fn of(slice: &[T]) -> Self {
        let mut huge = Self::zeroed(slice.len());
        huge.copy_from_slice(slice);
        huge
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod pages {
    use std::ffi::c_void;
    use std::ptr::{null_mut, NonNull};

    use super::PAGE;

    const READ_AND_WRITE: i32 = 3;
    const PRIVATE_AND_OF_NO_FILE: i32 = 0x22;
    const HUGE_PAGE: i32 = 14;

    unsafe extern "C" {
        fn mmap(
            at: *mut c_void,
            length: usize,
            protection: i32,
            flags: i32,
            file: i32,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(at: *mut c_void, length: usize) -> i32;
        fn madvise(start: *mut c_void, size: usize, advice: i32) -> i32;
    }

    /// Zeroed memory of `size` bytes, a multiple of [`PAGE`], that starts at one; on huge pages where the system
    /// has them. Asked for before the first touch: pages that exist already stay small.
    pub fn map(size: usize) -> Option<NonNull<u8>> {
        // SAFETY: a new mapping wherever the system likes, of whose ends what is not aligned is given back; the advice
        // does not change its contents.
        unsafe {
            let all = mmap(null_mut(), size + PAGE, READ_AND_WRITE, PRIVATE_AND_OF_NO_FILE, -1, 0);
            if all as isize == -1 {
                return None;
            }
            let before = all.cast::<u8>().align_offset(PAGE);
            let start = all.cast::<u8>().add(before);
            if before > 0 {
                munmap(all, before);
            }
            if before < PAGE {
                munmap(start.add(size).cast(), PAGE - before);
            }
            madvise(start.cast(), size, HUGE_PAGE);
            NonNull::new(start)
        }
    }

    /// # Safety
    /// `start` and `size` are those of a mapping that nobody uses any more.
    pub unsafe fn unmap(start: NonNull<u8>, size: usize) {
        // SAFETY: the caller's promise.
        unsafe { munmap(start.as_ptr().cast(), size) };
    }
}

impl<T> Deref for Huge<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `length` elements were allocated, zeroed, and zero is valid for T.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T> DerefMut for Huge<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }
}

impl<T> Drop for Huge<T> {
    fn drop(&mut self) {
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        if Self::layout(self.length).align() == PAGE {
            // SAFETY: mapped with the size of the same layout; elements are plain data without drop.
            return unsafe { pages::unmap(self.start.cast(), Self::layout(self.length).size()) };
        }
        // SAFETY: allocated with the same layout; elements are plain data without drop.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.length)) }
    }
}

/// Brings the line of an element into the cache; a hint, never a fault.
#[inline(always)]
pub fn prefetch<T>(slice: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        let address = slice.as_ptr().wrapping_add(at);
        // SAFETY: a prefetch of any address is harmless, and SSE is part of the architecture.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, at);
}

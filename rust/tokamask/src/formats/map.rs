//! A file as memory: mapped where the system can, read where it cannot.

use std::fs::File;
use std::io::{Error, Read};
use std::ops::Deref;

/// The bytes of a file, unchanged while they are held.
pub struct Map {
    own: Vec<u8>,
    #[cfg(all(unix, target_pointer_width = "64"))]
    mapped: Option<mapped::Pages>,
}

impl Map {
    /// Maps an open file. What another process writes into it later is undefined to see: files are replaced,
    /// not rewritten.
    pub fn open(file: &mut File) -> Result<Self, Error> {
        #[cfg(all(unix, target_pointer_width = "64"))]
        if let Some(pages) = mapped::Pages::of(file) {
            return Ok(Self { own: Vec::new(), mapped: Some(pages) });
        }
        let mut own = Vec::new();
        file.read_to_end(&mut own)?;
        Ok(own.into())
    }
}

impl From<Vec<u8>> for Map {
    fn from(own: Vec<u8>) -> Self {
        Self {
            own,
            #[cfg(all(unix, target_pointer_width = "64"))]
            mapped: None,
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        #[cfg(all(unix, target_pointer_width = "64"))]
        if let Some(pages) = &self.mapped {
            return pages;
        }
        &self.own
    }
}

#[cfg(all(unix, target_pointer_width = "64"))]
mod mapped {
    use std::ffi::c_void;
    use std::fs::File;
    use std::ops::Deref;
    use std::os::fd::AsRawFd;

    const READ: i32 = 1;
    const PRIVATE: i32 = 2;

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
    }

    /// A read-only private mapping of a whole file.
    pub struct Pages {
        start: *const u8,
        length: usize,
    }

    // SAFETY: the pages are only read, and belong to nobody's thread.
    unsafe impl Send for Pages {}
    // SAFETY: as above.
    unsafe impl Sync for Pages {}

    impl Pages {
        pub fn of(file: &File) -> Option<Self> {
            let kind = file.metadata().ok()?;
            let length = usize::try_from(kind.len()).ok().filter(|&length| length > 0 && kind.is_file())?;
            // SAFETY: a new mapping wherever the system likes; the descriptor is open.
            let start = unsafe { mmap(std::ptr::null_mut(), length, READ, PRIVATE, file.as_raw_fd(), 0) };
            (start as isize != -1).then_some(Self { start: start.cast_const().cast(), length })
        }
    }

    impl Deref for Pages {
        type Target = [u8];

        fn deref(&self) -> &[u8] {
            // SAFETY: `length` bytes are mapped readable for as long as `self` lives.
            unsafe { std::slice::from_raw_parts(self.start, self.length) }
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: mapped by `of` with this length, and nothing borrows it any more.
            unsafe { munmap(self.start.cast_mut().cast(), self.length) };
        }
    }
}

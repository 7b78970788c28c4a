//! One pool of threads for all kernels.
//!
//! The caller works too and waits only for threads that have begun: one that wakes late, because it slept or its core is taken, finds
//! nothing left to do. A pool that the caller hands everything to and sleeps beside (rayon's `install`) cost 50 to 150 us a call wherever
//! the threads had gone to sleep, and hung in the child of a fork, which has no threads; here the child works alone.

use std::ops::Range;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Calls `work(scratch, i, chunk)` for the chunks of `data`, on several threads when the work is worth waking them:
/// `bytes` is what it touches in all. Chunks do not depend on the number of threads, so neither do results.
pub fn each_chunk<T: Send, S>(
    bytes: usize,
    data: &mut [T],
    chunk: usize,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, usize, &mut [T]) + Sync + Send,
) {
    const WORTH: usize = 256 << 10; // about 20 us of memory traffic; waking a thread costs about 5
    if let Some(pool) = pool().filter(|_| bytes > WORTH && data.len() > chunk) {
        let count = data.len().div_ceil(chunk);
        let step = (count / (16 * (pool.helpers + 1))).max(1);
        let chunks =
            Chunks { first: data.as_mut_ptr(), len: data.len(), chunk, step, next: AtomicUsize::new(0) };
        let body = || {
            let mut range = chunks.claim();
            if range.is_empty() {
                return;
            }
            let mut scratch = scratch();
            while !range.is_empty() {
                for i in range {
                    // SAFETY: the index was claimed, by this call alone.
                    work(&mut scratch, i, unsafe { chunks.get(i) });
                }
                range = chunks.claim();
            }
        };
        pool.share(&body, count - 1);
        return;
    }
    let mut scratch = scratch();
    for (i, chunk) in data.chunks_mut(chunk).enumerate() {
        work(&mut scratch, i, chunk);
    }
}

/// Rows that [`each_stretch`] hands out together.
pub const STRETCH: usize = 64;

/// Fills `out` `[lists, heads, n]` from arrays whose rows `[n, heads]` lie in order of n: `work(scratch, list, rows, part)` puts what it
/// finds for row `i` of its rows and a head at `part[head * STRETCH + i]`. So memory is read in order, not head by head.
pub fn each_stretch<S>(
    bytes: usize,
    out: &mut [f32],
    [heads, n]: [usize; 2],
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, usize, Range<usize>, &mut [f32]) + Sync + Send,
) {
    if out.is_empty() {
        return;
    }
    let (size, stretches) = (heads * STRETCH, n.div_ceil(STRETCH));
    let place = |i: usize| {
        let first = i % stretches * STRETCH;
        (i / stretches, first..(first + STRETCH).min(n))
    };
    let mut parts = vec![0.0; out.len() / (heads * n) * stretches * size];
    each_chunk(bytes, &mut parts, size, scratch, |scratch, i, part| {
        let (list, rows) = place(i);
        work(scratch, list, rows, part);
    });
    for (i, part) in parts.chunks_exact(size).enumerate() {
        let (list, rows) = place(i);
        for (head, part) in part.chunks_exact(STRETCH).enumerate() {
            out[(list * heads + head) * n..][rows.clone()].copy_from_slice(&part[..rows.len()]);
        }
    }
}

/// A slice that several threads take chunks of.
struct Chunks<T> {
    first: *mut T,
    len: usize,
    chunk: usize,
    /// Chunks claimed at once.
    step: usize,
    next: AtomicUsize,
}

// SAFETY: each chunk is handed out once, so a thread gets elements that no other has.
unsafe impl<T: Send> Sync for Chunks<T> {}

impl<T> Chunks<T> {
    /// Chunks that nobody has had; none at the end.
    fn claim(&self) -> Range<usize> {
        let count = self.len.div_ceil(self.chunk);
        let first = self.next.fetch_add(self.step, Ordering::Relaxed).min(count);
        first..(first + self.step).min(count)
    }

    /// # Safety
    /// `i` comes from `claim`, and is asked for once.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut [T] {
        let at = i * self.chunk;
        // SAFETY: a claimed chunk begins inside the slice and belongs to the caller alone.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(at), self.chunk.min(self.len - at)) }
    }
}

struct Pool {
    helpers: usize,
    board: Mutex<Board>,
    news: Condvar,
    /// Jobs ever posted: what threads that are about to sleep look at.
    posted: AtomicUsize,
}

#[derive(Default)]
struct Board {
    posts: Vec<Post>,
    sleeping: usize,
}

/// A job that threads may still join.
struct Post {
    job: *const Job<'static>,
    places: usize,
}

// SAFETY: the job outlives its post, and may be used from any thread.
unsafe impl Send for Post {}

struct Job<'a> {
    body: &'a (dyn Fn() + Sync),
    /// Threads at work besides the caller.
    inside: AtomicUsize,
    failed: AtomicBool,
}

fn pool() -> Option<&'static Pool> {
    static POOL: OnceLock<Option<Pool>> = OnceLock::new();
    static STARTED: OnceLock<()> = OnceLock::new();
    let pool = POOL
        .get_or_init(|| {
            let wished = std::env::var("TOKAMASK_NUM_THREADS").ok().and_then(|n| n.parse().ok());
            let threads =
                wished.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            (threads > 1).then(|| Pool {
                helpers: threads - 1,
                board: Mutex::default(),
                news: Condvar::new(),
                posted: AtomicUsize::new(0),
            })
        })
        .as_ref()?;
    STARTED.get_or_init(|| {
        for i in 0..pool.helpers {
            // A thread that cannot be had is not missed.
            let _ = std::thread::Builder::new().name(format!("tokamask-kernel-{i}")).spawn(|| pool.help());
        }
    });
    Some(pool)
}

impl Pool {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` here and on as many threads as come, at most `most`; returns when all have returned.
    fn share(&self, body: &(dyn Fn() + Sync), most: usize) {
        let job = Job { body, inside: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        // The lifetime is lengthened for the board only: `post` is dropped, and with it the pointer, before the job is.
        let pointer = (&raw const job).cast::<Job<'static>>();
        let post = self.post(pointer, most.min(self.helpers));
        body();
        drop(post);
        assert!(!job.failed.load(Ordering::Relaxed), "a thread of the pool has panicked");
    }

    fn post(&self, job: *const Job<'static>, places: usize) -> Option<Posted<'_>> {
        // In the child of a fork a lock may be held for ever: nobody waits for it.
        let mut board = (0..64).find_map(|_| {
            self.board.try_lock().ok().or_else(|| {
                std::hint::spin_loop();
                None
            })
        })?;
        board.posts.push(Post { job, places });
        let asleep = board.sleeping.min(places);
        self.posted.fetch_add(1, Ordering::Relaxed);
        drop(board);
        (0..asleep).for_each(|_| self.news.notify_one());
        Some(Posted { pool: self, job })
    }

    /// What a thread of the pool does.
    fn help(&self) -> ! {
        loop {
            let job = self.join();
            // SAFETY: `join` has counted this thread in while the job was posted; its owner waits until it is counted out.
            let job = unsafe { &*job };
            if catch_unwind(AssertUnwindSafe(job.body)).is_err() {
                job.failed.store(true, Ordering::Relaxed);
            }
            job.inside.fetch_sub(1, Ordering::Release); // the job may be gone from here on
        }
    }

    /// Waits for a job with a place.
    fn join(&self) -> *const Job<'static> {
        /// Turns of waiting awake, about 50 us: calls often follow one another.
        const AWAKE: usize = 2000;
        let mut board = self.board();
        loop {
            if let Some(post) = board.posts.iter_mut().find(|post| post.places > 0) {
                post.places -= 1;
                // SAFETY: a job outlives its post.
                unsafe { &*post.job }.inside.fetch_add(1, Ordering::Relaxed);
                return post.job;
            }
            let seen = self.posted.load(Ordering::Relaxed);
            drop(board);
            let fresh = (0..AWAKE).any(|_| {
                std::hint::spin_loop();
                self.posted.load(Ordering::Relaxed) != seen
            });
            board = self.board();
            if !fresh && self.posted.load(Ordering::Relaxed) == seen {
                board.sleeping += 1;
                board = self.news.wait(board).unwrap_or_else(PoisonError::into_inner);
                board.sleeping -= 1;
            }
        }
    }
}

/// Takes a job off the board when dropped, and waits for those who joined it.
struct Posted<'a> {
    pool: &'a Pool,
    job: *const Job<'static>,
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        self.pool.board().posts.retain(|post| !std::ptr::eq(post.job, self.job));
        // SAFETY: the job is dropped after its post.
        let inside = unsafe { &(*self.job).inside };
        let mut turns = 0;
        while inside.load(Ordering::Acquire) > 0 {
            // A chunk is short; only where threads outnumber cores does the other one need ours.
            turns += 1;
            if turns % 1024 == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_once_whoever_comes() {
        for (len, chunk) in [(1 << 20, 1000), (5000, 1), (64, 64), (65, 64), (0, 3)] {
            let mut data = vec![0u32; len];
            each_chunk(
                usize::MAX,
                &mut data,
                chunk,
                || 0u32,
                |calls, i, part| {
                    *calls += 1;
                    part.iter_mut().enumerate().for_each(|(j, x)| *x += (i * chunk + j) as u32 + 1);
                },
            );
            assert!(data.iter().zip(1..).all(|(x, i)| *x == i), "{len} by {chunk}");
        }
    }

    #[test]
    fn many_callers_and_calls_within_calls() {
        let sum = |n: u64| {
            let mut parts = vec![0u64; 64];
            each_chunk(
                usize::MAX,
                &mut parts,
                1,
                || (),
                |(), i, part| {
                    let mut inner = vec![i as u64; 50];
                    each_chunk(
                        usize::MAX,
                        &mut inner,
                        5,
                        || (),
                        |(), _, x| x.iter_mut().for_each(|x| *x += n),
                    );
                    part[0] = inner.iter().sum();
                },
            );
            parts.iter().sum::<u64>()
        };
        std::thread::scope(|scope| {
            for n in 0..6 {
                scope.spawn(move || (0..50).for_each(|_| assert_eq!(sum(n), 50 * (64 * 63 / 2 + 64 * n))));
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let failing = |bad: usize| {
            let mut data = vec![0u8; 100];
            each_chunk(usize::MAX, &mut data, 1, || (), |(), i, _| assert!(i != bad, "as planned"));
        };
        for bad in 0..20 {
            assert!(catch_unwind(|| failing(bad * 5)).is_err());
        }
        failing(usize::MAX);
    }
}

//! One pool of threads for all kernels.

use std::sync::OnceLock;

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

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
    match pool() {
        Some(pool) if bytes > WORTH && data.len() > chunk => pool.install(|| {
            data.par_chunks_mut(chunk)
                .enumerate()
                .with_max_len(1)
                .for_each_init(scratch, |scratch, (i, chunk)| work(scratch, i, chunk));
        }),
        _ => {
            let mut scratch = scratch();
            for (i, chunk) in data.chunks_mut(chunk).enumerate() {
                work(&mut scratch, i, chunk);
            }
        }
    }
}

fn pool() -> Option<&'static ThreadPool> {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    POOL.get_or_init(|| {
        let wished = std::env::var("TOKAMASK_NUM_THREADS").ok().and_then(|n| n.parse().ok());
        let threads = wished.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let name = |i| format!("tokamask-kernel-{i}");
        (threads > 1)
            .then(|| ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build().ok())
            .flatten()
    })
    .as_ref()
}

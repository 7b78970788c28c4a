//! Many texts at once, on several threads.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use super::Tokenizer;
use crate::error::Error;
use crate::text::added::Allowed;

/// Texts that a thread takes at a time have about so many bytes together.
const SHARE: usize = 64 << 10;

/// Threads to use: as many as asked for, or `TOKAMASK_NUM_THREADS`, or one for every core.
pub(super) fn number(threads: Option<NonZeroUsize>) -> usize {
    let wished = || std::env::var("TOKAMASK_NUM_THREADS").ok()?.parse().ok();
    let cores = || std::thread::available_parallelism().ok();
    threads.or_else(wished).or_else(cores).map_or(1, NonZeroUsize::get)
}

/// Ranges of texts of about a [`SHARE`] each.
fn shares(texts: &[&str]) -> Vec<std::ops::Range<usize>> {
    let (mut shares, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (nth, text) in texts.iter().enumerate() {
        bytes += text.len() + 64;
        if bytes >= SHARE {
            shares.push(start..nth + 1);
            (start, bytes) = (nth + 1, 0);
        }
    }
    if start < texts.len() {
        shares.push(start..texts.len());
    }
    shares
}

/// `work(share)` of every share, in order. Threads start only where there is more than one share.
pub(super) fn each<T: Send>(
    shares: &[std::ops::Range<usize>],
    threads: Option<NonZeroUsize>,
    work: impl Fn(std::ops::Range<usize>) -> T + Sync,
) -> Vec<T> {
    let threads = if shares.len() < 2 { 1 } else { number(threads).min(shares.len()) };
    if threads == 1 {
        return shares.iter().cloned().map(work).collect();
    }
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(shares.len())));
    let run = || {
        while let Some(share) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = (share.start, work(share.clone()));
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(start, _)| *start);
    done.into_iter().map(|(_, result)| result).collect()
}

impl Tokenizer {
    /// The ids of many texts, flat, and the offsets of the rows. `threads`: at most so many, else
    /// `TOKAMASK_NUM_THREADS`, else one for every core. A long text is itself cut for several threads.
    pub fn encode_batch(
        &self,
        texts: &[&str],
        add_special_tokens: bool,
        allowed: &Allowed,
        threads: Option<NonZeroUsize>,
    ) -> Result<(Vec<u32>, Vec<i64>), Error> {
        let long = |text: &str| self.spreads(text.len());
        let (mut ids, mut offsets) = (Vec::new(), Vec::with_capacity(texts.len() + 1));
        offsets.push(0);
        let mut add = |more: Vec<u32>, ends: &[i64]| {
            let before = ids.len() as i64;
            offsets.extend(ends.iter().map(|end| before + end));
            if ids.is_empty() {
                ids = more;
            } else {
                ids.extend_from_slice(&more);
            }
        };
        for run in texts.chunk_by(|one, other| !long(one) && !long(other)) {
            if let [text] = run {
                if long(text) {
                    let more = self.encode_over(text, add_special_tokens, allowed, threads)?;
                    let end = more.len() as i64;
                    add(more, &[end]);
                    continue;
                }
            }
            let work = |share: std::ops::Range<usize>| {
                let texts = &run[share];
                let mut ids = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() / 3 + 8);
                let mut ends = Vec::with_capacity(texts.len());
                for text in texts {
                    self.encode_into(text, add_special_tokens, allowed, &mut ids)?;
                    ends.push(ids.len() as i64);
                }
                Ok::<_, Error>((ids, ends))
            };
            for result in each(&shares(run), threads, work) {
                let (more, ends) = result?;
                add(more, &ends);
            }
        }
        Ok((ids, offsets))
    }

    /// The numbers of ids of many texts; `threads` as for [`encode_batch`](Self::encode_batch).
    pub fn count_batch(
        &self,
        texts: &[&str],
        add_special_tokens: bool,
        allowed: &Allowed,
        threads: Option<NonZeroUsize>,
    ) -> Result<Vec<i64>, Error> {
        let work = |share: std::ops::Range<usize>| {
            let count = |text: &&str| Ok(self.count(text, add_special_tokens, allowed)? as i64);
            texts[share].iter().map(count).collect::<Result<Vec<_>, Error>>()
        };
        Ok(each(&shares(texts), threads, work).into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }
}

//! What followed a context in any request: a bounded table of counts in packed words.

/// Entries of a bucket: one cache line of 64-bit words. All continuations of a context share a bucket.
const BUCKET: usize = 8;
/// A single occurrence, in the fixed-point weights of the table.
const ONE: u64 = 16;
const MAX_WEIGHT: u64 = 255;
/// Token ids that fit an entry.
pub const MAX_TOKEN: u32 = (1 << 24) - 1;

/// A continuation of a context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Follower {
    /// The token that followed.
    pub token: u32,
    /// How often, newer occurrences counting more.
    pub weight: f32,
}

/// Counts of (context, next token) in `buckets * 64` bytes; the oldest and rarest entries of a full bucket give way.
///
/// An entry is one word: 16 bits that tell contexts of a bucket apart, 24 bits of token id, 8 of weight, 16 of time.
#[derive(Clone, Debug)]
pub struct Counts {
    entries: Vec<u64>,
    clock: u64,
}

fn tag(entry: u64) -> u64 {
    entry >> 48
}

fn token(entry: u64) -> u32 {
    (entry >> 24) as u32 & MAX_TOKEN
}

fn weight(entry: u64) -> u64 {
    (entry >> 16) & MAX_WEIGHT
}

fn time(entry: u64) -> u64 {
    entry & 0xffff
}

fn pack(tag: u64, token: u32, weight: u64, time: u64) -> u64 {
    tag << 48 | u64::from(token) << 24 | weight << 16 | time
}

impl Counts {
    /// A table of at most `bytes` bytes; memory is touched only as entries come.
    pub fn with_bytes(bytes: usize) -> Self {
        let buckets = (bytes / (BUCKET * 8)).clamp(1, 1 << 32);
        Self { entries: vec![0; buckets * BUCKET], clock: 0 }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.entries.len() * 8
    }

    fn place(&self, context: u64) -> (std::ops::Range<usize>, u64) {
        let buckets = (self.entries.len() / BUCKET) as u64;
        let start = (((context & 0xffff_ffff) * buckets) >> 32) as usize * BUCKET;
        (start..start + BUCKET, (context >> 48).max(1)) // tag 0 is an empty entry
    }

    /// Calls `see` with each known continuation of a context.
    pub fn followers(&self, context: u64, mut see: impl FnMut(Follower)) {
        let (bucket, wanted) = self.place(context);
        for &entry in &self.entries[bucket] {
            if tag(entry) == wanted {
                see(Follower { token: token(entry), weight: weight(entry) as f32 / ONE as f32 });
            }
        }
    }

    /// Counts one occurrence of `next` after a context: other continuations of it fade.
    pub fn add(&mut self, context: u64, next: u32) {
        if next > MAX_TOKEN {
            return; // ids beyond 24 bits are never drafted from the shared counts
        }
        self.clock += 1;
        // One tick for every 1/4096 of the table, so that 16 bits span many times its turnover.
        let tick = (self.entries.len() as u64 / 4096).max(1);
        let now = (self.clock / tick) & 0xffff;
        let (bucket, tagged) = self.place(context);
        let bucket = &mut self.entries[bucket];
        let branching = bucket.iter().any(|&e| tag(e) == tagged && token(e) != next);
        let (mut found, mut victim, mut worst) = (None, 0, 0);
        for (i, entry) in bucket.iter_mut().enumerate() {
            if tag(*entry) == tagged {
                let faded =
                    if branching { weight(*entry) - weight(*entry).div_ceil(5) } else { weight(*entry) };
                *entry = pack(tagged, token(*entry), faded, time(*entry));
                if token(*entry) == next {
                    found = Some(i);
                }
            }
            let age = if *entry == 0 {
                u64::MAX
            } else {
                (now.wrapping_sub(time(*entry)) & 0xffff) * ONE + MAX_WEIGHT - weight(*entry)
            };
            if age >= worst {
                (victim, worst) = (i, age);
            }
        }
        let i = found.unwrap_or(victim);
        let before = if found.is_some() { weight(bucket[i]) } else { 0 };
        bucket[i] = pack(tagged, next, (before + ONE).min(MAX_WEIGHT), now);
    }
}

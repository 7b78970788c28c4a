//! What followed a context in any request: a bounded table of counts in packed words.

/// Entries of a bucket: one cache line of 64-bit words. All continuations of a context share a bucket.
pub const BUCKET: usize = 8;
/// A single occurrence, in the fixed-point weights of the table.
const ONE: u64 = 8;
const MAX_WEIGHT: u64 = 63;
const EPOCHS: u64 = 64;
/// Token ids that fit an entry.
const MAX_TOKEN: u32 = (1 << 20) - 1;
/// Buckets to start with.
const FIRST_BUCKETS: usize = 256;
/// The table grows by a quarter when this many entries of a bucket are taken on average.
const FULL: usize = 5;

/// A continuation of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Follower {
    /// The token that followed.
    pub token: u32,
    /// How often, newer occurrences counting more.
    pub weight: f32,
}

/// Counts of (context, next token). It grows with what it holds, up to a limit; from then on the oldest and rarest
/// entries of a full bucket give way. Half of the entries are taken after growing, so a small table stays in
/// the processor's caches: looking up contexts in a sparse one cost four times as much.
///
/// An entry is one word: 32 bits of the context's hash, 20 of token id, 6 of weight, 6 of time. The hash's high bits
/// choose the bucket, in order, which makes growing one sequential pass over entries that need not be hashed again.
#[derive(Clone, Debug)]
pub struct Counts {
    entries: Vec<u64>,
    used: usize,
    most_buckets: usize,
    epoch: u64,
    added: usize,
}

fn tag(entry: u64) -> u64 {
    entry >> 32
}

fn token(entry: u64) -> u32 {
    (entry >> 12) as u32 & MAX_TOKEN
}

fn weight(entry: u64) -> u64 {
    (entry >> 6) & MAX_WEIGHT
}

fn epoch(entry: u64) -> u64 {
    entry & (EPOCHS - 1)
}

fn pack(tag: u64, token: u32, weight: u64, epoch: u64) -> u64 {
    tag << 32 | u64::from(token) << 12 | weight << 6 | epoch
}

/// The tag of a context; 0 would look like an empty entry.
fn tag_of(context: u64) -> u64 {
    (context >> 32).max(1)
}

/// Where the bucket of a tag begins.
#[inline]
fn bucket_of(entries: &[u64], tag: u64) -> usize {
    let buckets = (entries.len() / BUCKET) as u64;
    ((tag * buckets) >> 32) as usize * BUCKET
}

/// Writes the known continuations of a context; their number.
#[inline]
pub fn followers(entries: &[u64], context: u64, out: &mut [Follower; BUCKET]) -> usize {
    let wanted = tag_of(context);
    let start = bucket_of(entries, wanted);
    let mut n = 0;
    for &entry in &entries[start..start + BUCKET] {
        if tag(entry) == wanted {
            out[n] = Follower { token: token(entry), weight: weight(entry) as f32 / ONE as f32 };
            n += 1;
        }
    }
    n
}

impl Counts {
    /// A table of at most `bytes` bytes.
    pub fn with_bytes(bytes: usize) -> Self {
        let most_buckets = (bytes / (BUCKET * 8)).clamp(1, 1 << 26);
        let buckets = FIRST_BUCKETS.min(most_buckets);
        Self { entries: vec![0; buckets * BUCKET], used: 0, most_buckets, epoch: 0, added: 0 }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.entries.len() * 8
    }

    /// The table itself.
    pub fn into_entries(self) -> Vec<u64> {
        self.entries
    }

    #[inline]
    fn bucket(&self, tag: u64) -> usize {
        bucket_of(&self.entries, tag)
    }

    /// Writes the known continuations of a context; their number.
    #[inline]
    pub fn followers(&self, context: u64, out: &mut [Follower; BUCKET]) -> usize {
        followers(&self.entries, context, out)
    }

    /// Counts one occurrence of `next` after a context: other continuations of it fade.
    pub fn add(&mut self, context: u64, next: u32) {
        if next > MAX_TOKEN {
            return; // no vocabulary has ids that large; such tokens are never drafted from here
        }
        if self.used > self.entries.len() / BUCKET * FULL && self.entries.len() / BUCKET < self.most_buckets {
            self.grow();
        }
        self.tick();
        let (now, tagged) = (self.epoch, tag_of(context));
        let start = self.bucket(tagged);
        let bucket = &mut self.entries[start..start + BUCKET];
        let branching = bucket.iter().any(|&e| tag(e) == tagged && token(e) != next);
        let (mut found, mut victim, mut worst) = (None, 0, 0);
        for (i, entry) in bucket.iter_mut().enumerate() {
            if tag(*entry) == tagged {
                let faded =
                    if branching { weight(*entry) - weight(*entry).div_ceil(6) } else { weight(*entry) };
                *entry = pack(tagged, token(*entry), faded, epoch(*entry));
                if token(*entry) == next {
                    found = Some(i);
                }
            }
            let age = (now.wrapping_sub(epoch(*entry)) % EPOCHS) * ONE + MAX_WEIGHT - weight(*entry);
            let age = if *entry == 0 { u64::MAX } else { age };
            if age >= worst {
                (victim, worst) = (i, age);
            }
        }
        let i = found.unwrap_or(victim);
        let before = if found.is_some() { weight(bucket[i]) } else { 0 };
        self.used += usize::from(bucket[i] == 0);
        bucket[i] = pack(tagged, next, (before + ONE).min(MAX_WEIGHT), now);
    }

    /// Time passes by what is added: the table's turnover takes a few epochs.
    fn tick(&mut self) {
        self.added += 1;
        if self.added >= self.entries.len() / 8 {
            self.added = 0;
            self.epoch = (self.epoch + 1) % EPOCHS;
        }
    }

    fn grow(&mut self) {
        let buckets = self.entries.len() / BUCKET;
        let buckets = (buckets + buckets / 4).min(self.most_buckets);
        let old = std::mem::replace(&mut self.entries, vec![0; buckets * BUCKET]);
        self.used = 0;
        for entry in old.into_iter().filter(|&entry| entry != 0) {
            let start = self.bucket(tag(entry));
            // Two neighbouring buckets can meet in one: then the last to come stay out.
            if let Some(free) = self.entries[start..start + BUCKET].iter_mut().find(|slot| **slot == 0) {
                *free = entry;
                self.used += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followers(counts: &Counts, context: u64) -> Vec<(u32, f32)> {
        let mut out = [Follower::default(); BUCKET];
        let n = counts.followers(context, &mut out);
        let mut list: Vec<_> = out[..n].iter().map(|f| (f.token, f.weight)).collect();
        list.sort_by(|a, b| b.1.total_cmp(&a.1));
        list
    }

    fn hash(i: u64) -> u64 {
        super::super::context::mix(super::super::context::mix(i))
    }

    #[test]
    fn frequent_and_recent_continuations_lead() {
        let mut counts = Counts::with_bytes(1 << 16);
        for _ in 0..3 {
            counts.add(hash(1), 10);
        }
        assert_eq!(followers(&counts, hash(1)), [(10, 3.0)]);
        counts.add(hash(1), 11);
        assert_eq!(followers(&counts, hash(1))[0].0, 10);
        for _ in 0..3 {
            counts.add(hash(1), 11);
        }
        assert_eq!(followers(&counts, hash(1))[0].0, 11);
        assert_eq!(followers(&counts, hash(2)), []);
    }

    #[test]
    fn growing_loses_next_to_nothing() {
        let mut counts = Counts::with_bytes(1 << 22);
        for i in 0..100_000 {
            counts.add(hash(i), i as u32);
        }
        let kept = (0..100_000).filter(|&i| followers(&counts, hash(i)).contains(&(i as u32, 1.0))).count();
        assert!(kept > 90_000, "{kept}");
        assert!(counts.bytes() < 100_000 * 8 * 2);
    }

    #[test]
    fn memory_is_bounded_and_the_newest_stay() {
        let mut counts = Counts::with_bytes(1 << 16);
        for i in 0..100_000 {
            counts.add(hash(i), 1);
        }
        assert!(counts.bytes() <= 1 << 16);
        let kept = (99_000..100_000).filter(|&i| !followers(&counts, hash(i)).is_empty()).count();
        assert!(kept > 900, "{kept}");
        let kept = (0..50_000).filter(|&i| !followers(&counts, hash(i)).is_empty()).count();
        assert!(kept < 500, "{kept}");
    }
}

//! What the automaton read in vain.
//!
//! A rule may look to the end of the text before each of its pieces, `\p{L}+(?=\.)|\p{L}` on endless letters for one.
//! So where a run went on behind its match and found nothing, the places of it are noted, and a run that comes to one
//! of them in the same state stops there: every state passes every place in vain once, and time stays linear (Reps,
//! "Maximal-munch tokenization in linear time", 1998; only every so many bytes are noted here).

use rustc_hash::FxHashSet;

/// Bytes of a match that are read without a look at the notes, while there are none.
pub const NEAR: usize = 64;
/// Bytes between two places that are noted.
const STRIDE: usize = 16;

/// States and places of one text from which no match ends.
#[derive(Default)]
pub struct Vain {
    known: FxHashSet<u64>,
    /// Those since the last match of the run.
    open: Vec<u64>,
    /// Where the next one is noted.
    next: usize,
    /// The last place that is noted.
    last: usize,
    /// Characters that were read at all.
    #[cfg(test)]
    pub steps: usize,
}

impl Vain {
    /// True if a place after `start` is noted; else the notes have served.
    #[inline]
    pub fn is_known(&mut self, start: usize) -> bool {
        if start < self.last {
            return true;
        }
        if self.last > 0 {
            self.clear();
        }
        false
    }

    /// Another text, or another end of it.
    pub fn clear(&mut self) {
        self.known.clear();
        self.last = 0;
    }

    /// A character is read.
    #[inline]
    pub fn step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }

    /// A run goes on from here.
    #[inline]
    pub fn begin(&mut self, at: usize) {
        self.open.clear();
        self.next = at.next_multiple_of(STRIDE);
    }

    /// True if a run from here is known to find nothing; else it is noted, in case that it will not.
    #[inline]
    pub fn leads_nowhere(&mut self, row: usize, at: usize) -> bool {
        if at < self.next {
            return false;
        }
        self.next = (at + 1).next_multiple_of(STRIDE);
        let place = (at as u64) << 24 | row as u64; // tables are smaller than that
        if self.known.contains(&place) {
            return true;
        }
        self.open.push(place);
        false
    }

    /// The run matched after all.
    #[inline]
    pub fn matched(&mut self) {
        self.open.clear();
    }

    /// The run ended at `at`.
    #[inline]
    pub fn end(&mut self, at: usize) {
        if !self.open.is_empty() {
            self.known.extend(self.open.drain(..));
            self.last = self.last.max(at);
        }
    }
}

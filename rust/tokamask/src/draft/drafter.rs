//! What all requests share, safe from many threads.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::calibration::Calibration;
use super::corpus::Corpus;
use super::cost::VerifyCost;
use super::counts::Counts;
use super::frequent::Frequent;
use super::recycled::Recycled;
use super::reliability::Reliability;
use super::session::DraftSession;
use super::sources;
use crate::mask::Matcher;

/// How a [`Drafter`] is set up.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Output tokens that the shared counts remember, at most 48 bytes each.
    pub capacity_tokens: usize,
    /// Runners-up kept for each context whose logits are given; 0 keeps none.
    pub recycle: usize,
    /// Stop drafting where verification would cost more than it gains.
    pub verify_cost: Option<VerifyCost>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { capacity_tokens: 1 << 20, recycle: 8, verify_cost: None }
    }
}

const BYTES_PER_TOKEN: usize = 48;

/// The shared half of a [`Drafter`].
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub counts: Counts,
    pub frequent: Frequent,
    pub recycled: Option<Recycled>,
    pub corpus: Option<Corpus>,
    pub calibration: Calibration,
    pub reliability: Reliability,
    pub tokens: u64,
}

/// Counts, recycled logits and calibration of all requests: bounded, deterministic, shared between threads.
#[derive(Debug)]
pub struct Drafter {
    settings: Settings,
    shared: RwLock<Shared>,
}

impl Drafter {
    /// An empty drafter.
    pub fn new(settings: Settings) -> Arc<Self> {
        Self::with_corpus(settings, None)
    }

    /// The same that also knows what follows what in a corpus.
    pub fn with_corpus(settings: Settings, corpus: Option<Corpus>) -> Arc<Self> {
        let rows = (settings.capacity_tokens / 8).clamp(1 << 10, 1 << 17);
        let shared = Shared {
            frequent: Frequent::default(),
            counts: Counts::with_bytes(settings.capacity_tokens * BYTES_PER_TOKEN),
            recycled: (settings.recycle > 0).then(|| Recycled::new(rows, settings.recycle)),
            corpus,
            calibration: sources::calibration(),
            reliability: Reliability::default(),
            tokens: 0,
        };
        Arc::new(Self { settings, shared: RwLock::new(shared) })
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts a request; with a matcher only tokens that its grammar allows are proposed.
    pub fn session(self: &Arc<Self>, prompt: &[u32], matcher: Option<Matcher>) -> DraftSession {
        DraftSession::new(Arc::clone(self), prompt, matcher)
    }

    /// Output tokens learned from so far, all sessions together.
    pub fn tokens(&self) -> u64 {
        self.read().tokens
    }

    /// Bytes that the shared structures hold now; the counts grow up to 48 for each token of the capacity.
    pub fn bytes(&self) -> usize {
        let shared = self.read();
        shared.counts.bytes() + shared.recycled.as_ref().map_or(0, Recycled::bytes)
    }

    // A panic while the lock was held leaves counts that are merely less complete: drafts are guesses.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    /// Stop drafting where verification would cost more than it gains; what is observed corrects it.
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
    pub verify_cost: Option<VerifyCost>,
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
            verify_cost: settings.verify_cost.clone(),
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

    /// Learns what a target forward over `rows` rows took, in the unit of the times given before.
    pub fn observe_cost(&self, rows: usize, time: f32) {
        let mut shared = self.write();
        match &mut shared.verify_cost {
            Some(cost) => cost.observe(rows, time),
            None => shared.verify_cost = VerifyCost::first(rows, time),
        }
    }

    /// Times of target forwards over 1, 2, 4, ... rows, as far as they were given or observed.
    pub fn verify_cost(&self) -> Option<Vec<f32>> {
        self.read().verify_cost.as_ref().map(|cost| cost.times().to_vec())
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

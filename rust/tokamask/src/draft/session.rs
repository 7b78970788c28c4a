//! Drafting for one request.

use std::ops::Range;
use std::sync::Arc;

use super::candidates::Candidates;
use super::context::Context;
use super::cost;
use super::drafter::{Drafter, Shared};
use super::evidence::{source, Evidence};
use super::frequent::Frequent;
use super::history::{History, Occurrence, OCCURRENCES};
use super::recycled::Recycled;
use super::sources::{self, Memory, Place, COMMON_RANKS};
use super::tree::{Choice, DraftTree, Source};
use crate::error::Error;
use crate::ids::TokenId;
use crate::mask::Matcher;

/// Likeliest tokens after each of some positions, `width` for each, best first.
#[derive(Clone, Copy, Debug)]
pub struct TopK<'a> {
    /// Token ids, row after row.
    pub ids: &'a [u32],
    /// Their logprobs, if known.
    pub logprobs: Option<&'a [f32]>,
    /// Tokens per row.
    pub width: usize,
}

impl<'a> TopK<'a> {
    fn row(&self, row: usize) -> Option<&'a [u32]> {
        self.ids.get(row * self.width..(row + 1) * self.width)
    }

    fn record(&self, row: usize, newest_first: &[u32], recycled: &mut Recycled) {
        let span = row * self.width..(row + 1) * self.width;
        if let Some(ids) = self.ids.get(span.clone()) {
            recycled.record(newest_first, ids, self.logprobs.and_then(|l| l.get(span)));
        }
    }
}

/// Children are looked up only where one of this probability would get into the tree: half the time for next to no loss.
const LIKELY: f32 = 0.45;

/// Nodes looked at for each token of a single path: what begins less likely may go on longer.
const PATHS: usize = 2;

/// Probability that forced bytes are written with the tokens that they are cut into.
const FORCED: f32 = 0.9;

/// Calibration learns from this many tokens of a step, and from each of so many beyond them.
const LEARNED: usize = 8;
const LEARNED_THEN: usize = 4;

/// A place of the tree whose children were looked up.
#[derive(Clone)]
struct Expanded {
    context: Context,
    ahead: usize,
    places: Range<usize>,
    matcher: Option<Matcher>,
}

/// One request: its history, and scratch space for proposing.
pub struct DraftSession {
    drafter: Arc<Drafter>,
    history: History,
    matcher: Option<Matcher>,
    /// The likeliest tokens of the row that the newest token was drawn from, where logits are given.
    runners: Vec<u32>,
    /// The length of the history that `scratch.chosen` was proposed after.
    proposed_at: Option<usize>,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    /// Of the place after the history, as the last draft began there; learning from the next token needs it again.
    root: Option<Evidence>,
    evidence: Evidence,
    candidates: Candidates,
    found: Vec<Occurrence>,
    places: Vec<Occurrence>,
    expanded: Vec<Option<Expanded>>,
    queue: Vec<Choice>,
    chosen: Vec<Choice>,
    rated: Vec<Choice>,
    left: Vec<f32>,
    mask: Vec<u32>,
}

impl DraftSession {
    pub(super) fn new(drafter: Arc<Drafter>, prompt: &[u32], matcher: Option<Matcher>) -> Self {
        let mut history = History::with_capacity(prompt.len() + 512);
        for &token in prompt {
            history.push(token);
        }
        let found = Vec::with_capacity(2 * OCCURRENCES);
        let scratch = Scratch { found, ..Scratch::default() };
        Self { drafter, history, matcher, runners: Vec::new(), proposed_at: None, scratch }
    }

    /// Prompt and output so far.
    pub fn tokens(&self) -> &[u32] {
        self.history.tokens()
    }

    /// Learns the logits of the prompt: row `i` of `topk` follows token `i`.
    pub fn recycle_prompt(&mut self, topk: TopK) {
        let mut shared = self.drafter.write();
        let Some(recycled) = &mut shared.recycled else { return };
        for end in 1..=self.history.tokens().len() {
            topk.record(end - 1, Context::of(&self.history.tokens()[..end]).newest_first(), recycled);
        }
    }

    /// The guesses most likely to be accepted, at most `budget`; fewer where more are not known or not worth it.
    pub fn propose(&mut self, budget: usize) -> DraftTree {
        self.rate_tree(budget);
        let shared = self.drafter.read();
        let rated = &self.scratch.rated;
        let worth = match &shared.verify_cost {
            Some(cost) => cost.best_prefix(rated.iter().map(|choice| choice.prob)),
            None => rated.len(),
        };
        DraftTree::from_choices(&rated[..worth])
    }

    /// The path of at most `budget` guesses that gives the most expected tokens per time, for engines that verify no trees.
    pub fn propose_chain(&mut self, budget: usize) -> DraftTree {
        self.rate_tree(PATHS * budget);
        let shared = self.drafter.read();
        let rated = &self.scratch.rated;
        let best = cost::best_path(rated, budget, shared.verify_cost.as_ref());
        let mut path = Vec::new();
        let mut node = best;
        while let Some(choice) = node.and_then(|node| rated.get(node)) {
            path.push(*choice);
            node = usize::try_from(choice.parent).ok();
        }
        path.reverse();
        for (choice, parent) in path.iter_mut().zip(-1..) {
            choice.parent = parent;
        }
        DraftTree::from_choices(&path)
    }

    /// Fills `scratch.rated` with the likeliest nodes, most probable first.
    fn rate_tree(&mut self, budget: usize) {
        let shared = self.drafter.read();
        let memory = shared.memory(&self.history, &self.runners);
        self.scratch.grow_tree(&shared, &memory, self.matcher.clone(), budget);
        self.proposed_at = Some(self.history.tokens().len());
        let Scratch { chosen, rated, left, .. } = &mut self.scratch;
        rated.clear();
        left.clear();
        left.push(1.0);
        for choice in chosen.iter() {
            // Of siblings at most one is right: together they are no likelier than what is above them.
            let above = &mut left[(choice.parent + 1) as usize];
            let prob = shared.reliability.rate(choice.prob).min(*above);
            *above -= prob;
            rated.push(Choice { prob, ..*choice });
            left.push(prob);
        }
    }

    /// Appends what was emitted (the bonus token included) and learns from it. `topk` has a row for the root and
    /// for each node of `tree`, or without a tree one for each emitted token: the row that it was chosen from.
    /// With a matcher, tokens that its grammar does not allow are an error, and nothing is appended.
    pub fn update(
        &mut self,
        emitted: &[u32],
        tree: Option<&DraftTree>,
        topk: Option<TopK>,
    ) -> Result<(), Error> {
        if let Some(matcher) = &mut self.matcher {
            let before = matcher.clone();
            for &token in emitted {
                if let Err(error) = matcher.accept(TokenId::new(token)) {
                    *matcher = before;
                    return Err(error);
                }
            }
        }
        let drafter = Arc::clone(&self.drafter);
        let mut shared = drafter.write();
        let root = Context::of(self.history.tokens());
        if self.proposed_at == Some(self.history.tokens().len()) {
            shared.reliability.learn(&self.scratch.chosen, emitted);
        }
        let mut row = Some(0); // of the forward pass, that the token was drawn from
        for (i, &token) in emitted.iter().enumerate() {
            // Long accepted copies teach little; which of their tokens are skipped does not depend on the outcome.
            let learn = i < LEARNED || self.history.tokens().len() % LEARNED_THEN == 0;
            self.observe(&mut shared, token, learn);
            self.runners.clear();
            let drawn_from = row;
            row = row.and_then(|row| row_after(tree, row, token));
            if let Some(runners) = topk.zip(drawn_from).and_then(|(topk, row)| topk.row(row)) {
                self.runners.extend_from_slice(runners);
            }
        }
        shared.tokens += emitted.len() as u64;
        // After observing: a row must not vouch for the very token that was drawn from it.
        if let (Some(topk), Some(recycled)) = (topk, &mut shared.recycled) {
            match tree {
                Some(tree) => recycle_tree(&root, tree, topk, recycled),
                None => recycle_chain(root, emitted, topk, recycled),
            }
        }
        Ok(())
    }

    fn observe(&mut self, shared: &mut Shared, token: u32, learn: bool) {
        let context = Context::of(self.history.tokens());
        if learn {
            let Scratch { root, evidence, candidates, found, .. } = &mut self.scratch;
            let proposed = self.proposed_at == Some(self.history.tokens().len());
            if let Some(root) = root.take().filter(|_| proposed) {
                *evidence = root;
            } else {
                self.history.find(&context, 0, &[], found);
                let place = Place { context: &context, ahead: 0, found };
                sources::gather(&place, &shared.memory(&self.history, &self.runners), evidence);
            }
            shared.calibration.learn(evidence, common(&shared.frequent), token, candidates);
        }
        for hash in context.hashes().into_iter().flatten() {
            shared.counts.add(hash, token);
        }
        shared.frequent.add(token);
        self.history.push(token);
    }
}

impl Shared {
    fn memory<'a>(&'a self, history: &'a History, runners: &'a [u32]) -> Memory<'a> {
        Memory {
            history,
            counts: &self.counts,
            recycled: self.recycled.as_ref(),
            corpus: self.corpus.as_ref(),
            runners,
        }
    }
}

fn common(frequent: &Frequent) -> &[u32] {
    &frequent.top()[..frequent.top().len().min(COMMON_RANKS)]
}

impl Scratch {
    /// Fills `chosen` with the likeliest paths, most probable first.
    fn grow_tree(&mut self, shared: &Shared, memory: &Memory, matcher: Option<Matcher>, budget: usize) {
        self.root = None;
        self.places.clear();
        self.expanded.clear();
        self.queue.clear();
        self.chosen.clear();
        if budget == 0 {
            return;
        }
        let root =
            Expanded { context: Context::of(memory.history.tokens()), ahead: 0, places: 0..0, matcher };
        let start = Choice { token: 0, parent: -1, prob: 1.0, source: Source::Forced };
        self.expand(shared, memory, -1, start, root, budget);
        while let Some(choice) = self.queue.pop() {
            let node = self.chosen.len();
            self.chosen.push(choice);
            let remaining = budget - self.chosen.len();
            if remaining == 0 {
                return;
            }
            // A node likely enough to be chosen was proposed by a place that was expanded.
            let Some(Some(above)) = self.expanded.get((choice.parent + 1) as usize) else { continue };
            let place = Expanded {
                context: above.context.then(choice.token),
                ahead: above.ahead + 1,
                places: above.places.clone(),
                matcher: above.matcher.clone(),
            };
            self.expand(shared, memory, node as i32, choice, place, remaining);
        }
    }

    /// Puts the children of a place into the queue. `place.places` comes in as the occurrences of the place above.
    fn expand(
        &mut self,
        shared: &Shared,
        memory: &Memory,
        node: i32,
        above: Choice,
        mut place: Expanded,
        remaining: usize,
    ) {
        let prob = above.prob;
        self.expanded.resize((node + 2) as usize, None);
        if self.queue.len() > remaining {
            self.queue.drain(..self.queue.len() - remaining);
        }
        if self.queue.len() == remaining && self.queue[0].prob >= prob * LIKELY {
            return; // hardly a child can outdo what is queued
        }
        if let Some(matcher) = place.matcher.as_mut().filter(|_| node >= 0) {
            if matcher.accept(TokenId::new(above.token)).is_err() || matcher.is_terminated() {
                return; // nothing follows the end
            }
        }
        memory.history.find(&place.context, place.ahead, &self.places[place.places], &mut self.found);
        place.places = self.places.len()..self.places.len() + self.found.len();
        self.places.extend_from_slice(&self.found);
        let asked = Place { context: &place.context, ahead: place.ahead, found: &self.found };
        sources::gather(&asked, memory, &mut self.evidence);
        let least = if self.queue.len() == remaining { self.queue[0].prob / prob } else { 0.0 };
        let least_score = (least / (1.0 - least)).ln(); // minus infinity where anything goes
        let candidates = &mut self.candidates;
        let total =
            shared.calibration.score(&self.evidence, common(&shared.frequent), least_score, candidates);
        let mut prob = prob / total.max(1.0);
        let mut forced = None;
        if let Some(matcher) = &place.matcher {
            prob *= keep_allowed(matcher, candidates, &mut self.mask);
            if above.source == Source::Forced || candidates.len == 0 {
                forced = matcher.forced_tokens().first().map(|id| id.get());
            }
        }
        self.expanded[(node + 1) as usize] = Some(place);
        if node < 0 {
            self.root = Some(std::mem::take(&mut self.evidence));
        }
        if let Some(token) = forced {
            // Forced bytes can be cut into tokens in more than one way: very likely, not certain.
            let likely = above.prob * FORCED;
            self.offer(Choice { token, parent: node, prob: likely, source: Source::Forced }, remaining);
            prob *= 1.0 - FORCED;
        }
        for i in 0..self.candidates.len {
            let candidates = &self.candidates;
            if candidates.scores[i] <= least_score || Some(candidates.tokens[i]) == forced {
                continue;
            }
            let (token, source) = (candidates.tokens[i], source(candidates.opinions[i]));
            self.offer(Choice { token, parent: node, prob: prob * candidates.probs[i], source }, remaining);
        }
    }

    /// Queues a choice if it is among the `remaining` likeliest.
    fn offer(&mut self, choice: Choice, remaining: usize) {
        if self.queue.len() == remaining {
            if self.queue[0].prob >= choice.prob {
                return;
            }
            self.queue.remove(0);
        }
        let at = self.queue.partition_point(|queued| queued.prob < choice.prob);
        self.queue.insert(at, choice);
    }
}

/// Drops the candidates that a grammar forbids before they cost budget; the factor by which the others become likelier,
/// since the target's own law is renormalised over what is allowed.
fn keep_allowed(matcher: &Matcher, candidates: &mut Candidates, mask: &mut Vec<u32>) -> f32 {
    mask.resize(matcher.compiled().words(), 0);
    matcher.fill(mask);
    let (mut kept, mut named, mut allowed) = (0, 0.0, 0.0);
    for i in 0..candidates.len {
        let token = candidates.tokens[i] as usize;
        named += candidates.probs[i];
        if mask.get(token / 32).is_some_and(|word| word >> (token % 32) & 1 == 1) {
            allowed += candidates.probs[i];
            candidates.tokens[kept] = candidates.tokens[i];
            candidates.scores[kept] = candidates.scores[i];
            candidates.probs[kept] = candidates.probs[i];
            candidates.opinions[kept] = candidates.opinions[i];
            kept += 1;
        }
    }
    candidates.len = kept;
    let named = named.max(1.0);
    1.0 / (1.0 - (named - allowed).min(0.9 * named) / named)
}

/// The row of a forward pass that follows `row` and `token`; without a tree the next one.
fn row_after(tree: Option<&DraftTree>, row: usize, token: u32) -> Option<usize> {
    let Some(tree) = tree else { return Some(row + 1) };
    let parent = row as i32 - 1;
    let next = (row..tree.len()).find(|&i| tree.parents[i] == parent && tree.token_ids[i] as u32 == token);
    next.map(|node| node + 1)
}

fn recycle_tree(root: &Context, tree: &DraftTree, topk: TopK, recycled: &mut Recycled) {
    topk.record(0, root.newest_first(), recycled);
    let token = |node: i32| usize::try_from(node).ok().map(|node| tree.token_ids[node] as u32);
    for node in 0..tree.len() {
        let parent = token(tree.parents[node]).or(root.newest_first().first().copied());
        let newest = [tree.token_ids[node] as u32, parent.unwrap_or_default()];
        topk.record(node + 1, &newest[..=usize::from(parent.is_some())], recycled);
    }
}

fn recycle_chain(root: Context, emitted: &[u32], topk: TopK, recycled: &mut Recycled) {
    let mut context = root;
    for (row, &token) in emitted.iter().enumerate() {
        topk.record(row, context.newest_first(), recycled);
        context = context.then(token);
    }
}

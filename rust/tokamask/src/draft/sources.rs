//! Asks every source what may follow a context, and sorts what it says into kinds.

use super::calibration::Calibration;
use super::context::{Context, SUFFIXES, VIEWS};
use super::corpus::Corpus;
use super::counts::{Counts, Follower, BUCKET};
use super::evidence::{Evidence, CORPUS, OPINIONS, OWN, RECYCLED, RUNNERS};
use super::history::{History, Occurrence, OCCURRENCES};
use super::recycled::{Key, Recycled};

/// Match lengths of the own history are told apart up to these bounds.
const LENGTHS: [u32; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Hit rates to start from: a continuation that always followed a match of the length.
const LENGTH_PRIOR: [f32; LENGTHS.len()] = [0.25, 0.40, 0.55, 0.65, 0.78, 0.84, 0.90, 0.93, 0.95, 0.96];
/// The same for the views of the shared counts.
const VIEW_PRIOR: [f32; VIEWS.len()] = [0.20, 0.32, 0.44, 0.56, 0.24, 0.24];
/// Bounds of the share of the occurrences that agree; beyond the last bucket stands "does not name this token".
const SHARES: [f32; 5] = [0.0, 0.12, 0.3, 0.6, 0.95];
const SHARE_PRIOR: [f32; SHARES.len() + 1] = [0.08, 0.2, 0.4, 0.65, 0.95, 0.03];
const UNNAMED: usize = SHARES.len();
/// Amounts of evidence that are told apart: one occurrence, two, three, more.
const AMOUNTS: usize = 4;
const RANK_PRIOR: [f32; RANKS] = [0.52, 0.16, 0.08, 0.05, 0.035, 0.025, 0.02, 0.015, 0.01];
/// Ranks of recycled logits; the last is "does not name this token".
const RANKS: usize = 9;
/// Logprobs that are told apart; 0 is "not recorded".
const LOGPROBS: usize = 8;
/// Earlier occurrences count this much less than the next more recent one.
const FADE: f32 = 0.8;

/// Distances from the newest token at which its runners-up are told apart, and how often one comes to stand there.
const DISTANCES: usize = 4;
const RUNNER_PRIOR: f32 = 0.02;
/// From this length on an undisputed match of the own history speaks alone: what else could be said changes nothing,
/// costs most of the time, and would crowd out the rest of a long copy.
const LOCKED: u32 = 8;
/// From this length on logits of other places have nothing to add to such a match: their runners-up crowd it out.
const FIRM: u32 = 3;

/// How many of the commonest tokens are guessed at all.
pub const COMMON_RANKS: usize = 16;

const SHARE_CELLS: usize = (SHARES.len() + 1) * AMOUNTS;
const FIRST_VIEW: usize = OWN * LENGTHS.len() * SHARE_CELLS;
const FIRST_RECYCLED: usize = FIRST_VIEW + VIEWS.len() * SHARE_CELLS;
const FIRST_RUNNER: usize = FIRST_RECYCLED + 2 * RANKS * LOGPROBS;
const FIRST_CORPUS: usize = FIRST_RUNNER + DISTANCES * RANKS;
const FIRST_COMMON: usize = FIRST_CORPUS + SUFFIXES * SHARE_CELLS;

/// Own match lengths that mix differently, by their least length.
const OWN_GROUPS: [u32; 5] = [0, 1, 3, 6, 12];
/// One more for locked places. Telling recycled logits that know the context from others gained nothing.
const SETS: usize = OWN_GROUPS.len() * (SUFFIXES + 1) + 1;

/// Calibration before the first request.
pub fn calibration() -> Calibration {
    let shares = |scale: f32| SHARE_PRIOR.into_iter().flat_map(move |share| [scale * share; AMOUNTS]);
    let own = (0..OWN).flat_map(|_| LENGTH_PRIOR).flat_map(shares);
    let views = VIEW_PRIOR.into_iter().flat_map(shares);
    let recycled = (0..2).flat_map(|_| RANK_PRIOR).flat_map(|prior| [prior; LOGPROBS]);
    let runners = [RUNNER_PRIOR; DISTANCES * RANKS];
    let corpus = VIEW_PRIOR.into_iter().take(SUFFIXES).flat_map(shares);
    let common = (0..COMMON_RANKS).map(|rank| 0.06 / (1.0 + rank as f32));
    let mut weights = [0.3; OPINIONS];
    (weights[RECYCLED], weights[RUNNERS]) = (0.2, 0.2);
    let priors = own.chain(views).chain(recycled).chain(runners).chain(corpus).chain(common);
    Calibration::new(priors, 6.0, SETS, weights)
}

/// Where a guess is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The tokens before it.
    pub context: &'a Context,
    /// How many of them, the newest ones, are guesses beyond the history.
    pub ahead: usize,
    /// Where the end of the context stood before.
    pub found: &'a [Occurrence],
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// The request's own tokens.
    pub history: &'a History,
    /// What followed in any request.
    pub counts: &'a Counts,
    /// Earlier logits.
    pub recycled: Option<&'a Recycled>,
    /// A fixed text.
    pub corpus: Option<&'a Corpus>,
    /// The row of logits that the newest token of the history was drawn from, best first.
    pub runners: &'a [u32],
}

/// Everything known about what follows a place.
pub fn gather(place: &Place, memory: &Memory, evidence: &mut Evidence) {
    evidence.clear();
    evidence.common = FIRST_COMMON as u16;
    let longest = place.found.iter().map(|found| found.length).max().unwrap_or(0);
    let undisputed = longest > 0 && ask_history(place, memory.history, longest, evidence) == 1;
    if undisputed && longest >= LOCKED {
        evidence.set = SETS - 1;
        return;
    }
    let suffix = ask_counts(place.context, memory.counts, evidence);
    if let Some(corpus) = memory.corpus {
        ask_corpus(place.context, corpus, evidence);
    }
    if let Some(recycled) = memory.recycled.filter(|_| !undisputed || longest < FIRM) {
        ask_recycled(place.context, recycled, evidence);
        ask_runners(memory.runners, place.ahead, evidence);
    }
    let group = OWN_GROUPS.iter().rposition(|&least| least <= longest).unwrap_or(0);
    evidence.set = group * (SUFFIXES + 1) + suffix;
}

/// Whether a share is large enough, bound by bound: no loop that waits for an answer.
#[inline]
fn share_bucket(share: f32) -> usize {
    let reaches = |i: usize| usize::from(SHARES[i] <= share);
    reaches(1) + reaches(2) + reaches(3) + reaches(4)
}

#[inline]
fn amount_bucket(occurrences: f32) -> usize {
    (occurrences as usize).clamp(1, AMOUNTS) - 1
}

/// Three opinions: of the longest matches, of those of three tokens or more, of all. The number of tokens that the
/// first one names.
fn ask_history(place: &Place, history: &History, longest: u32, evidence: &mut Evidence) -> usize {
    let newest_first = place.context.newest_first();
    let bucket = LENGTHS.iter().rposition(|&bound| bound <= longest).unwrap_or(0);
    let least = [LENGTHS[bucket], LENGTHS[bucket].min(3), 1];
    let mut tokens = [0_u32; 2 * OCCURRENCES];
    let mut weights = [[0.0_f32; OWN]; 2 * OCCURRENCES];
    let (mut distinct, mut count) = (0, [0_usize; OWN]);
    let (mut total, mut weight) = ([0.0_f32; OWN], [1.0_f32; OWN]);
    for found in place.found.iter().take(2 * OCCURRENCES) {
        let Some(next) = history.next(found.position, newest_first, place.ahead) else { continue };
        let at = tokens[..distinct].iter().position(|&token| token == next).unwrap_or(distinct);
        if at == distinct {
            tokens[at] = next;
            distinct += 1;
        }
        for opinion in 0..OWN {
            if found.length >= least[opinion] {
                weights[at][opinion] += weight[opinion];
                total[opinion] += weight[opinion];
                weight[opinion] *= FADE;
                count[opinion] += 1;
            }
        }
    }
    for opinion in 0..OWN {
        if opinion > 0 && count[opinion] == count[opinion - 1] {
            continue; // the same places again
        }
        let first = (opinion * LENGTHS.len() + bucket) * SHARE_CELLS + amount_bucket(count[opinion] as f32);
        for at in (0..distinct).filter(|&at| weights[at][opinion] > 0.0) {
            let share = weights[at][opinion] / total[opinion];
            evidence.support(opinion, tokens[at], first + share_bucket(share) * AMOUNTS);
        }
        evidence.unnamed[opinion] = (first + UNNAMED * AMOUNTS) as u16;
    }
    weights[..distinct].iter().filter(|weight| weight[0] > 0.0).count()
}

/// One opinion for each view of the context; the number of whole suffixes known.
fn ask_counts(context: &Context, counts: &Counts, evidence: &mut Evidence) -> usize {
    let mut longest = 0;
    for (view, hash) in context.hashes().into_iter().enumerate() {
        let Some(hash) = hash else { continue };
        let mut followers = [Follower::default(); BUCKET];
        let n = counts.followers(hash, &mut followers);
        if n == 0 {
            continue;
        }
        if view < SUFFIXES {
            longest = view + 1;
        }
        name(OWN + view, FIRST_VIEW + view * SHARE_CELLS, &followers[..n], evidence);
    }
    longest
}

fn ask_corpus(context: &Context, corpus: &Corpus, evidence: &mut Evidence) {
    let mut found = [Follower::default(); BUCKET];
    if let Some((view, n)) = corpus.followers(context, &mut found) {
        name(CORPUS, FIRST_CORPUS + view * SHARE_CELLS, &found[..n], evidence);
    }
}

/// One opinion on what followed how often; its cells begin at `first`.
fn name(opinion: usize, first: usize, followers: &[Follower], evidence: &mut Evidence) {
    let total: f32 = followers.iter().map(|follower| follower.weight).sum();
    let (scale, first) = (1.0 / total, first + amount_bucket(total));
    for follower in followers {
        let share = share_bucket(follower.weight * scale);
        evidence.support(opinion, follower.token, first + share * AMOUNTS);
    }
    evidence.unnamed[opinion] = (first + UNNAMED * AMOUNTS) as u16;
}

fn ask_recycled(context: &Context, recycled: &Recycled, evidence: &mut Evidence) {
    let mut known = None;
    recycled.find(context.newest_first(), |key, rank, token, logprob| {
        let first = FIRST_RECYCLED + usize::from(key == Key::One) * RANKS * LOGPROBS;
        known = Some(first);
        let bucket = logprob.map_or(0, |l| 1 + (-l * 1.5) as usize).min(LOGPROBS - 1);
        evidence.support(RECYCLED, token, first + rank.min(RANKS - 2) * LOGPROBS + bucket);
    });
    if let Some(first) = known {
        evidence.unnamed[RECYCLED] = (first + (RANKS - 1) * LOGPROBS) as u16;
    }
}

/// The model wanted to say these just now; the likeliest was said.
fn ask_runners(runners: &[u32], ahead: usize, evidence: &mut Evidence) {
    if runners.len() < 2 {
        return;
    }
    let first = FIRST_RUNNER + ahead.min(DISTANCES - 1) * RANKS;
    for (rank, &token) in runners.iter().enumerate().take(RANKS - 1).skip(1) {
        evidence.support(RUNNERS, token, first + rank);
    }
    evidence.unnamed[RUNNERS] = (first + RANKS - 1) as u16;
}

//! Asks every source what may follow a context.

use super::calibration::Calibration;
use super::context::{Context, ORDERS};
use super::counts::{Counts, Follower};
use super::evidence::{Evidence, OPINIONS, OWN, RECYCLED};
use super::history::{History, Occurrence};
use super::recycled::{Key, Recycled};

/// Match lengths are told apart up to these bounds.
const LENGTHS: [u32; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Hit rates to start from, for a continuation that always followed a match of the length.
const LENGTH_PRIOR: [f32; 10] = [0.25, 0.40, 0.55, 0.65, 0.78, 0.84, 0.90, 0.93, 0.95, 0.96];
/// Share of the occurrences that agree, in buckets; the last is "does not name this token".
const SHARES: [f32; 5] = [0.0, 0.12, 0.3, 0.6, 0.95];
const SHARE_PRIOR: [f32; 6] = [0.08, 0.2, 0.4, 0.65, 0.95, 0.03];
const RANK_PRIOR: [f32; 9] = [0.52, 0.16, 0.08, 0.05, 0.035, 0.025, 0.02, 0.015, 0.01];
const WEIGHTS: usize = 4;
const UNNAMED: usize = SHARES.len();

const HISTORY_CELLS: usize = LENGTHS.len() * (SHARES.len() + 1) * WEIGHTS;
const COUNT_CELLS: usize = (SHARES.len() + 1) * WEIGHTS;
const FIRST_COUNT: usize = 3 * HISTORY_CELLS;
const FIRST_RECYCLED: usize = FIRST_COUNT + ORDERS.len() * COUNT_CELLS;
const RANKS: usize = 9;
const LOGPROBS: usize = 8;

/// Mixing weights differ by own match length, shared match length, and whether logits are known.
const SETS: usize = 5 * 3 * 2;

/// Fresh calibration.
pub fn calibration() -> Calibration {
    let own = (0..3).flat_map(|_| {
        (0..LENGTHS.len()).flat_map(|l| {
            (0..=UNNAMED).flat_map(move |s| (0..WEIGHTS).map(move |_| LENGTH_PRIOR[l] * SHARE_PRIOR[s]))
        })
    });
    let shared = (0..ORDERS.len()).flat_map(|o| {
        let at = LENGTHS.iter().position(|&l| l as usize == ORDERS[o]).unwrap_or(0);
        (0..=UNNAMED).flat_map(move |s| (0..WEIGHTS).map(move |_| 0.8 * LENGTH_PRIOR[at] * SHARE_PRIOR[s]))
    });
    let recycled = (0..2).flat_map(|_| (0..RANKS).flat_map(|r| (0..LOGPROBS).map(move |_| RANK_PRIOR[r])));
    Calibration::new(own.chain(shared).chain(recycled), 6.0, SETS, [0.3; OPINIONS])
}

fn length_bucket(length: u32) -> usize {
    LENGTHS.iter().rposition(|&l| l <= length).unwrap_or(0)
}

fn share_bucket(share: f32) -> usize {
    SHARES.iter().rposition(|&s| s <= share).unwrap_or(0)
}

fn weight_bucket(weight: f32) -> usize {
    (weight as usize).min(WEIGHTS).saturating_sub(1)
}

/// Everything known about what follows `context`.
pub fn gather(
    context: &Context,
    history: &History,
    ahead: usize,
    found: &[Occurrence],
    counts: &Counts,
    recycled: Option<&Recycled>,
    evidence: &mut Evidence,
) {
    evidence.clear();
    let own = own_opinions(context, history, ahead, found, evidence);
    let shared = shared_opinions(context, counts, evidence);
    let known = recycled.is_some_and(|r| recycled_opinion(context, r, evidence));
    evidence.complete();
    evidence.set = (own * 3 + shared) * 2 + usize::from(known);
}

fn own_opinions(
    context: &Context,
    history: &History,
    ahead: usize,
    found: &[Occurrence],
    evidence: &mut Evidence,
) -> usize {
    let longest = found.iter().map(|place| place.length).max().unwrap_or(0);
    if longest == 0 {
        return 0;
    }
    let bucket = length_bucket(longest);
    let mut places = 0;
    for (opinion, least) in [LENGTHS[bucket], 3.min(LENGTHS[bucket]), 1].into_iter().enumerate() {
        let within = found.iter().filter(|place| place.length >= least);
        let mut tokens = [0_u32; 16];
        let mut weights = [0.0_f32; 16];
        let (mut n, mut total, mut weight, mut count) = (0, 0.0, 1.0, 0);
        for place in within {
            let Some(next) = history.next(place.position, context.newest_first(), ahead) else { continue };
            let at = tokens[..n].iter().position(|&t| t == next).unwrap_or(n);
            if at == n {
                tokens[n] = next;
                n += 1;
            }
            weights[at] += weight;
            total += weight;
            weight *= 0.8;
            count += 1;
        }
        if opinion > 0 && count == places {
            continue; // the same places as the opinion before
        }
        places = count;
        let first =
            opinion * HISTORY_CELLS + bucket * (SHARES.len() + 1) * WEIGHTS + weight_bucket(count as f32);
        for at in 0..n {
            let cell = first + share_bucket(weights[at] / total) * WEIGHTS;
            evidence.support(opinion, tokens[at], cell as u16);
        }
        evidence.unnamed[opinion] = (first + UNNAMED * WEIGHTS) as u16;
    }
    match longest {
        1..=2 => 1,
        3..=5 => 2,
        6..=11 => 3,
        _ => 4,
    }
}

fn shared_opinions(context: &Context, counts: &Counts, evidence: &mut Evidence) -> usize {
    let (hashes, known) = context.hashes();
    let mut longest = 0;
    for order in (0..known).rev() {
        let mut followers = [Follower { token: 0, weight: 0.0 }; 8];
        let (mut n, mut total) = (0, 0.0);
        counts.followers(hashes[order], |f| {
            followers[n] = f;
            n += 1;
            total += f.weight;
        });
        if n == 0 {
            continue;
        }
        longest = longest.max(if order < 2 { 1 } else { 2 });
        let opinion = OWN + order;
        let first = FIRST_COUNT + order * COUNT_CELLS + weight_bucket(total);
        for follower in &followers[..n] {
            let cell = first + share_bucket(follower.weight / total) * WEIGHTS;
            evidence.support(opinion, follower.token, cell as u16);
        }
        evidence.unnamed[opinion] = (first + UNNAMED * WEIGHTS) as u16;
    }
    longest
}

fn recycled_opinion(context: &Context, recycled: &Recycled, evidence: &mut Evidence) -> bool {
    let opinion = RECYCLED;
    let mut known = None;
    recycled.find(context.newest_first(), |key, rank, token, logprob| {
        let first = FIRST_RECYCLED + usize::from(key == Key::One) * RANKS * LOGPROBS;
        known = Some(first);
        let bucket = logprob.map_or(0, |l| 1 + (-l * 1.5) as usize).min(LOGPROBS - 1);
        evidence.support(opinion, token, (first + rank.min(RANKS - 2) * LOGPROBS + bucket) as u16);
    });
    if let Some(first) = known {
        evidence.unnamed[opinion] = (first + (RANKS - 1) * LOGPROBS) as u16;
    }
    known.is_some()
}

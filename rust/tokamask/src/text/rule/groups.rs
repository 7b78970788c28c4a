//! Letters in at most 16 groups, and the windows of a decision as boxes of groups: the shape that
//! byte shuffles can look up.

use rustc_hash::FxHashMap;

use super::windows::{Decision, Table};

/// Groups of letters: what a byte shuffle can look up.
pub const GROUPS: usize = 16;
/// Most planes of boxes for each of the two answers.
const PLANES: usize = 4;

/// Eight boxes: a window is in box `k` if all three bytes have bit `k`.
#[derive(Clone, Copy, Default, Debug)]
pub struct Plane {
    /// By group of the character before.
    pub left: [u8; GROUPS],
    /// By group of the character that may start a piece.
    pub at: [u8; GROUPS],
    /// By group of the character after.
    pub right: [u8; GROUPS],
}

/// Merges letters into at most [`GROUPS`] groups, cheapest loss of decisions first; the table of the
/// groups and the group of each letter. `apart`: a letter that stays alone. `None` if there are too
/// many kinds to begin with.
pub fn group(all: &Table, weights: &[f64], apart: Option<usize>) -> Option<(Table, Vec<u8>)> {
    let mut members = alike(all, apart);
    if members.len() > 3 * GROUPS {
        return None;
    }
    let mut cells = Vec::with_capacity(members.len().pow(3));
    for left in &members {
        for at in &members {
            cells.extend(members.iter().map(|right| all.get(left[0], at[0], right[0])));
        }
    }
    let mut table = Table { count: members.len(), cells };
    let mut weights: Vec<f64> =
        members.iter().map(|group| group.iter().map(|&letter| weights[letter]).sum()).collect();
    let alone = |group: &[usize]| apart.is_some_and(|apart| group.contains(&apart));
    while members.len() > 1 {
        let mut best = (f64::INFINITY, 0, 0);
        for first in 0..members.len() {
            for second in first + 1..members.len() {
                if alone(&members[first]) || alone(&members[second]) {
                    continue;
                }
                let loss = loss(&table, &weights, first, second, best.0);
                if loss < best.0 {
                    best = (loss, first, second);
                }
            }
        }
        if members.len() <= GROUPS && best.0 > 0.0 {
            break;
        }
        merge(&mut table, best.1, best.2);
        let gone = members.remove(best.2);
        members[best.1].extend(gone);
        let weight = weights.remove(best.2);
        weights[best.1] += weight;
    }
    let mut of = vec![0u8; all.count];
    for (number, group) in members.iter().enumerate() {
        for &letter in group {
            of[letter] = number as u8;
        }
    }
    Some((table, of))
}

/// Letters that decide alike in every place.
fn alike(table: &Table, apart: Option<usize>) -> Vec<Vec<usize>> {
    let mut kinds: FxHashMap<Vec<Decision>, usize> = FxHashMap::default();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for letter in 0..table.count {
        let mut kind = Vec::with_capacity(3 * table.count * table.count);
        for one in 0..table.count {
            for other in 0..table.count {
                kind.push(table.get(letter, one, other));
                kind.push(table.get(one, letter, other));
                kind.push(table.get(one, other, letter));
            }
        }
        let fresh = members.len();
        let nth = if apart == Some(letter) { fresh } else { *kinds.entry(kind).or_insert(fresh) };
        if nth == fresh {
            members.push(Vec::new());
        }
        members[nth].push(letter);
    }
    members
}

/// How much text would lose its decision if two groups were one; at `most`, any larger number will do.
fn loss(table: &Table, weights: &[f64], first: usize, second: usize, most: f64) -> f64 {
    let mut loss = 0.0;
    let mut compare = |x: Decision, y: Decision, weight: f64| {
        let joined = x.join(y);
        if joined == Decision::Open && (x != joined || y != joined) {
            loss += weight;
        }
        loss
    };
    let both = weights[first] + weights[second];
    for (one, one_weight) in weights.iter().enumerate() {
        let mut sum = 0.0;
        for (other, other_weight) in weights.iter().enumerate() {
            let weight = both * one_weight * other_weight;
            compare(table.get(first, one, other), table.get(second, one, other), weight);
            compare(table.get(one, first, other), table.get(one, second, other), weight);
            sum = compare(table.get(one, other, first), table.get(one, other, second), weight);
        }
        if sum > most {
            return sum;
        }
    }
    loss
}

/// Makes group `second` part of group `first`.
fn merge(table: &mut Table, first: usize, second: usize) {
    let old: Vec<usize> = (0..table.count).filter(|&group| group != second).collect();
    let of = |group: usize| [group, if group == first { second } else { group }];
    let mut cells = Vec::with_capacity(old.len().pow(3));
    for &left in &old {
        for &at in &old {
            for &right in &old {
                let mut decision = Decision::Never;
                for left in of(left) {
                    for at in of(at) {
                        for right in of(right) {
                            decision = decision.join(table.get(left, at, right));
                        }
                    }
                }
                cells.push(decision);
            }
        }
    }
    *table = Table { count: old.len(), cells };
}

/// Rights by left and at, as bits.
type Rows = [[u16; GROUPS]; GROUPS];

/// Covers all wanted windows by boxes of allowed ones.
pub fn boxes(
    table: &Table,
    wanted: impl Fn(Decision) -> bool,
    allowed: impl Fn(Decision) -> bool,
) -> Option<Vec<Plane>> {
    let rows = |is: &dyn Fn(Decision) -> bool| -> Rows {
        let mut rows = [[0; GROUPS]; GROUPS];
        for (left, row) in rows.iter_mut().enumerate().take(table.count) {
            for (at, bits) in row.iter_mut().enumerate().take(table.count) {
                let right = (0..table.count).filter(|&right| is(table.get(left, at, right)));
                *bits = right.fold(0, |bits, right| bits | 1 << right);
            }
        }
        rows
    };
    let (mut missing, allowed) = (rows(&wanted), rows(&allowed));
    let mut found: Vec<[u16; 3]> = Vec::new();
    while let Some(seed) = first_of(&missing) {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let grown = orders.map(|order| {
            let mut sides = seed.map(|group| 1u16 << group);
            for axis in order {
                sides[axis] = grow(&allowed, sides, axis);
            }
            sides
        });
        let covers = |sides: &[u16; 3]| -> u32 {
            let rows = bits(sides[0]).flat_map(|left| bits(sides[1]).map(move |at| (left, at)));
            rows.map(|(left, at)| (missing[left][at] & sides[2]).count_ones()).sum()
        };
        let best = grown.into_iter().max_by_key(covers)?;
        for left in bits(best[0]) {
            for at in bits(best[1]) {
                missing[left][at] &= !best[2];
            }
        }
        found.push(best);
        if found.len() > 8 * PLANES {
            return None;
        }
    }
    let planes = found.chunks(8).map(|boxes| {
        let mut plane = Plane::default();
        for (bit, sides) in boxes.iter().enumerate() {
            for group in 0..GROUPS {
                let has = |side: u16| ((side >> group & 1) as u8) << bit;
                plane.left[group] |= has(sides[0]);
                plane.at[group] |= has(sides[1]);
                plane.right[group] |= has(sides[2]);
            }
        }
        plane
    });
    Some(planes.collect())
}

fn first_of(rows: &Rows) -> Option<[usize; 3]> {
    let places = (0..GROUPS).flat_map(|left| (0..GROUPS).map(move |at| (left, at)));
    let (left, at) = places.into_iter().find(|&(left, at)| rows[left][at] != 0)?;
    Some([left, at, rows[left][at].trailing_zeros() as usize])
}

fn bits(set: u16) -> impl Iterator<Item = usize> {
    (0..GROUPS).filter(move |bit| set >> bit & 1 != 0)
}

/// The largest side of a box along one axis.
fn grow(allowed: &Rows, sides: [u16; 3], axis: usize) -> u16 {
    match axis {
        0 => {
            let fits = |&left: &usize| bits(sides[1]).all(|at| sides[2] & !allowed[left][at] == 0);
            (0..GROUPS).filter(fits).fold(0, |side, left| side | 1 << left)
        }
        1 => {
            let fits = |&at: &usize| bits(sides[0]).all(|left| sides[2] & !allowed[left][at] == 0);
            (0..GROUPS).filter(fits).fold(0, |side, at| side | 1 << at)
        }
        _ => bits(sides[0])
            .flat_map(|left| bits(sides[1]).map(move |at| allowed[left][at]))
            .fold(!0, |a, b| a & b),
    }
}

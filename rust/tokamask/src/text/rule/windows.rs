//! What three neighbouring characters decide.
//!
//! Let the automaton stand after character `a` of the piece that contains it. Whether the piece
//! ends before the next character `b` depends on the state and on what follows. For most pairs
//! every state that is possible there agrees, at the latest when the character after `b` is known.
//! The possible states are collected to a fixed point over all texts, so the table is exact: a
//! window is `Ends`, `GoesOn`, or `Open`, and open windows are left to the automaton.
//!
//! Some characters spoil their neighbourhood: after an apostrophe, `ll` may be a contraction that
//! ends where a word would go on. So one rare class may be declared the spoiler: the [`REACH`]
//! characters after it are left to the automaton, and the table holds for all other places.
//!
//! The table is then brought into the shape that vector units like: at most 16 groups of
//! characters, and the windows that end a piece as a union of boxes `left x at x right`, eight to a
//! plane, so that three byte shuffles and two ANDs test eight boxes for 32 characters.

use rustc_hash::FxHashMap;

use super::classes::Classes;
use super::dfa::{Automaton, DEAD, MATCHED, START};

/// Groups of characters: what a byte shuffle can look up.
const GROUPS: usize = 16;
/// Characters after a spoiler that the table does not speak of.
pub const REACH: usize = 3;
/// Most planes of boxes for each of the two answers.
const PLANES: usize = 4;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Decision {
    Ends,
    GoesOn,
    Open,
    /// No text has this window.
    Never,
}

impl Decision {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, decision) | (decision, Self::Never) => decision,
            _ if self == other => self,
            _ => Self::Open,
        }
    }
}

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

/// The table of a rule.
pub struct Windows {
    /// Group of each ASCII character.
    pub ascii: [u8; 128],
    /// Group of each class, for characters of several bytes.
    pub wide: Vec<u8>,
    /// Windows in which a piece ends before the middle character (unless open).
    pub ends: Vec<Plane>,
    /// Windows that the automaton must decide.
    pub open: Vec<Plane>,
    /// Bit per group: spoils the places after it.
    pub spoils: u16,
}

/// `table[(left * count + at) * count + right]`.
struct Table {
    count: usize,
    cells: Vec<Decision>,
}

impl Table {
    fn get(&self, left: usize, at: usize, right: usize) -> Decision {
        self.cells[(left * self.count + at) * self.count + right]
    }
}

impl Windows {
    /// The table of an automaton that covers every text; `None` if it has no compact shape.
    pub fn new(automaton: &Automaton, classes: &Classes) -> Option<Self> {
        let open = |table: &Table| open_weight(table, classes);
        let mut best = (decide(automaton, classes, None), None);
        for spoiler in spoilers(classes) {
            let table = decide(automaton, classes, Some(spoiler));
            if open(&table) < 0.8 * open(&best.0) {
                best = (table, Some(spoiler));
            }
        }
        let (table, spoiler) = best;
        let (table, ascii, wide) = group(&table, classes, spoiler)?;
        let of = |byte: usize| usize::from(classes.ascii[byte]);
        let spoils =
            (0..128).filter(|&byte| spoiler == Some(of(byte))).fold(0, |bits, byte| bits | 1 << ascii[byte]);
        let all = |wanted: Decision, also: &[Decision]| {
            boxes(&table, |cell| cell == wanted, |cell| cell == wanted || also.contains(&cell))
        };
        let ends = all(Decision::Ends, &[Decision::Open, Decision::Never])?;
        let open = all(Decision::Open, &[Decision::Never])?;
        Some(Self { ascii, wide, ends, open, spoils })
    }
}

/// The decision for one state: does the piece end before `at`, if `right` follows?
fn decide_state(automaton: &Automaton, state: u16, at: usize, right: usize) -> Decision {
    let entry = automaton.entry(state, at);
    let (matched, next) = (entry & MATCHED != 0, entry & !MATCHED);
    match (matched, next == DEAD) {
        (true, true) => Decision::Ends,
        (false, true) => Decision::Never, // then the character before would not be of the piece
        (false, false) => Decision::GoesOn,
        (true, false) => {
            let entry = automaton.entry(next, right);
            match (entry & MATCHED != 0, entry & !MATCHED == DEAD) {
                (true, _) => Decision::GoesOn,
                (false, true) => Decision::Ends,
                (false, false) => Decision::Open,
            }
        }
    }
}

/// Classes that may be tried as spoilers: rare, and all in ASCII.
fn spoilers(classes: &Classes) -> Vec<usize> {
    let ascii = |class: usize| (0..128).filter(move |&byte| usize::from(classes.ascii[byte]) == class);
    let rare = |&class: &usize| {
        let weight: f64 = ascii(class).map(|byte| weight(byte as u8)).sum();
        weight > 0.0 && weight < 0.01 && ascii(class).count() <= 2 && classes.only_ascii(class)
    };
    (0..classes.count).filter(rare).take(6).collect()
}

/// The share of ordinary text that a table leaves open.
fn open_weight(table: &Table, classes: &Classes) -> f64 {
    let mut weights = vec![0.0; classes.count];
    for byte in 0..128 {
        weights[usize::from(classes.ascii[byte])] += weight(byte as u8);
    }
    let mut open = 0.0;
    for left in 0..table.count {
        for at in 0..table.count {
            for right in 0..table.count {
                if table.get(left, at, right) == Decision::Open {
                    open += weights[left] * weights[at] * weights[right];
                }
            }
        }
    }
    open
}

/// All windows over classes; the class `count` at the right is the end of the text.
fn decide(automaton: &Automaton, classes: &Classes, spoiler: Option<usize>) -> Table {
    let (count, states) = (classes.count, automaton.states());
    let wide = count + 1;
    let levels = if spoiler.is_some() { REACH + 1 } else { 1 };
    // possible[left * wide + next]: states after `left` when `next` comes, by the number of
    // characters since the last spoiler (the last level: enough of them).
    let mut possible = vec![vec![false; states * levels]; count * wide];
    let mut work = Vec::new();
    let mut add = |work: &mut Vec<_>, entry: u16, since: usize, of: usize, next: usize| {
        let state = entry & !MATCHED;
        let since = if spoiler == Some(of) { 0 } else { (since + 1).min(levels - 1) };
        let alive = state != DEAD && automaton.entry(state, next) != DEAD;
        let place = usize::from(state) * levels + since;
        if alive && !std::mem::replace(&mut possible[of * wide + next][place], true) {
            work.push((next, state, since));
        }
    };
    for class in 0..count {
        for next in 0..wide {
            add(&mut work, automaton.entry(START, class), levels, class, next);
        }
    }
    while let Some((at, state, since)) = work.pop() {
        if at == count {
            continue;
        }
        for right in 0..wide {
            let decision = decide_state(automaton, state, at, right);
            if matches!(decision, Decision::Ends | Decision::Open) {
                add(&mut work, automaton.entry(START, at), since, at, right);
            }
            if matches!(decision, Decision::GoesOn | Decision::Open) {
                add(&mut work, automaton.entry(state, at), since, at, right);
            }
        }
    }
    let mut cells = Vec::with_capacity(count * count * wide);
    for left in 0..count {
        for at in 0..count {
            let possible = &possible[left * wide + at];
            let clean = (0..states).filter(|state| possible[state * levels + levels - 1]);
            let clean: Vec<u16> = clean.map(|state| state as u16).collect();
            for right in 0..wide {
                let decisions = clean.iter().map(|&state| decide_state(automaton, state, at, right));
                cells.push(decisions.fold(Decision::Never, Decision::join));
            }
        }
    }
    // The end of the text is decided by the automaton alone: drop its column.
    let cells = cells.chunks(wide).flat_map(|row| row[..count].to_vec()).collect();
    Table { count, cells }
}

/// Rough frequency of an ASCII character in text and code; only steers what is merged.
fn weight(byte: u8) -> f64 {
    match byte {
        b' ' => 0.16,
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 0.06,
        b'a'..=b'z' => 0.02,
        b'0'..=b'9' | b'\n' => 0.012,
        b'A'..=b'Z' => 0.004,
        b'\'' | b'"' | b',' | b'.' | b'-' | b'/' | b'_' | b'(' | b')' | b':' | b'=' | b'\t' => 0.008,
        b'!'..=b'~' => 0.002,
        _ => 0.000_1,
    }
}

/// Merges characters into at most [`GROUPS`] groups, cheapest loss of decisions first; `None` if
/// there are too many kinds to begin with.
#[allow(clippy::type_complexity)]
fn group(table: &Table, classes: &Classes, spoiler: Option<usize>) -> Option<(Table, [u8; 128], Vec<u8>)> {
    // Atoms: a class in ASCII, a class beyond. A character of several bytes has its own next byte
    // to its right, so what it decides may not depend on the right.
    let mut atoms: Vec<(usize, bool, f64)> = Vec::new();
    for class in 0..classes.count {
        let ascii: f64 =
            (0..128).filter(|&b| usize::from(classes.ascii[b]) == class).map(|b| weight(b as u8)).sum();
        if ascii > 0.0 {
            atoms.push((class, false, ascii));
        }
        atoms.push((class, true, 0.02));
    }
    let count = atoms.len();
    let mut cells = Vec::with_capacity(count * count * count);
    for left in &atoms {
        for at in &atoms {
            let any = || {
                let all = (0..classes.count).map(|right| table.get(left.0, at.0, right));
                all.fold(Decision::Never, Decision::join)
            };
            let whatever = if at.1 { Some(any()) } else { None };
            for right in &atoms {
                cells.push(whatever.unwrap_or_else(|| table.get(left.0, at.0, right.0)));
            }
        }
    }
    let all = Table { count, cells };
    // The spoiler must be told from everything else.
    let kept = atoms.iter().position(|atom| Some(atom.0) == spoiler && !atom.1).unwrap_or(usize::MAX);
    let mut members = alike(&all, kept);
    if members.len() > 2 * GROUPS {
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
        members.iter().map(|group| group.iter().map(|&atom| atoms[atom].2).sum()).collect();
    while members.len() > 1 {
        let mut best = (f64::INFINITY, 0, 0);
        for first in 0..members.len() {
            for second in first + 1..members.len() {
                if members[first].contains(&kept) || members[second].contains(&kept) {
                    continue;
                }
                let loss = loss(&table, &weights, first, second);
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
    let mut of = vec![0u8; count];
    for (number, group) in members.iter().enumerate() {
        for &atom in group {
            of[atom] = number as u8;
        }
    }
    let find = |class: usize, wide: bool| {
        atoms.iter().position(|atom| (atom.0, atom.1) == (class, wide)).map_or(0, |atom| of[atom])
    };
    let ascii = std::array::from_fn(|byte| find(usize::from(classes.ascii[byte]), false));
    let wide = (0..classes.count).map(|class| find(class, true)).collect();
    Some((table, ascii, wide))
}

/// Atoms that decide alike in every place.
fn alike(table: &Table, apart: usize) -> Vec<Vec<usize>> {
    let mut kinds: FxHashMap<Vec<Decision>, usize> = FxHashMap::default();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for atom in 0..table.count {
        let mut kind = Vec::with_capacity(3 * table.count * table.count);
        for one in 0..table.count {
            for other in 0..table.count {
                kind.push(table.get(atom, one, other));
                kind.push(table.get(one, atom, other));
                kind.push(table.get(one, other, atom));
            }
        }
        let fresh = members.len();
        let nth = if atom == apart { fresh } else { *kinds.entry(kind).or_insert(fresh) };
        if nth == fresh {
            members.push(Vec::new());
        }
        members[nth].push(atom);
    }
    members
}

/// How much text would lose its decision if two groups were one.
fn loss(table: &Table, weights: &[f64], first: usize, second: usize) -> f64 {
    let mut loss = 0.0;
    let mut compare = |x: Decision, y: Decision, weight: f64| {
        let joined = x.join(y);
        if joined == Decision::Open && (x != joined || y != joined) {
            loss += weight;
        }
    };
    let both = weights[first] + weights[second];
    for (one, one_weight) in weights.iter().enumerate() {
        for (other, other_weight) in weights.iter().enumerate() {
            let weight = both * one_weight * other_weight;
            compare(table.get(first, one, other), table.get(second, one, other), weight);
            compare(table.get(one, first, other), table.get(one, second, other), weight);
            compare(table.get(one, other, first), table.get(one, other, second), weight);
        }
    }
    loss
}

/// Makes group `second` part of group `first`.
fn merge(table: &mut Table, first: usize, second: usize) {
    let old: Vec<usize> = (0..table.count).filter(|&group| group != second).collect();
    let of = |group: usize| if group == first { vec![first, second] } else { vec![group] };
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

/// Covers all wanted windows by boxes of allowed ones.
fn boxes(
    table: &Table,
    wanted: impl Fn(Decision) -> bool,
    allowed: impl Fn(Decision) -> bool,
) -> Option<Vec<Plane>> {
    let count = table.count;
    let all = || (0..count).flat_map(|a| (0..count).flat_map(move |b| (0..count).map(move |c| [a, b, c])));
    let cell = |window: &[usize; 3]| table.get(window[0], window[1], window[2]);
    let mut missing: Vec<[usize; 3]> = all().filter(|window| wanted(cell(window))).collect();
    let mut found: Vec<[u16; 3]> = Vec::new();
    while let Some(&seed) = missing.first() {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let grown = orders.map(|order| {
            let mut sides = seed.map(|group| 1u16 << group);
            for axis in order {
                for group in 0..count {
                    let mut grown = sides;
                    grown[axis] = 1 << group;
                    if all().filter(|w| inside(grown, w)).all(|w| allowed(cell(&w))) {
                        sides[axis] |= 1 << group;
                    }
                }
            }
            sides
        });
        let covers = |sides: &[u16; 3]| missing.iter().filter(|window| inside(*sides, window)).count();
        let best = grown.into_iter().max_by_key(covers)?;
        missing.retain(|window| !inside(best, window));
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

fn inside(sides: [u16; 3], window: &[usize; 3]) -> bool {
    sides.iter().zip(window).all(|(side, group)| side >> group & 1 != 0)
}

//! What three neighbouring characters decide.
//!
//! Let the automaton stand after character `a` of the piece that contains it. Whether the piece
//! ends before the next character `b` depends on the state and on what follows. For most pairs
//! every state that is possible there agrees, at the latest when the character after `b` is known.
//! The possible states are collected to a fixed point over all texts, so the table is exact: a
//! window is `Ends`, `GoesOn`, or `Open`, and open windows are left to the automaton. Characters are
//! marked beforehand ([`letters`](super::letters)) with what a window of three does not see.
//!
//! Some characters spoil their neighbourhood: after an apostrophe, `ll` may be a contraction that
//! ends where a word would go on. So one rare class may be declared the spoiler: the [`REACH`]
//! characters after it are left to the automaton, and the table holds for all other places.

use super::classes::Classes;
use super::dfa::{Automaton, DEAD, MATCHED};
use super::groups::{self, Plane, GROUPS};
use super::letters::{Features, Letter, Mark, Refined};

/// Characters after a spoiler that the table does not speak of.
pub const REACH: usize = 3;

/// What is known of a window.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// The piece ends before the middle character.
    Ends,
    /// It does not.
    GoesOn,
    /// That depends on more than the window.
    Open,
    /// No text has this window.
    Never,
}

impl Decision {
    /// What is known if it is one window or the other.
    #[must_use]
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, decision) | (decision, Self::Never) => decision,
            _ if self == other => self,
            _ => Self::Open,
        }
    }
}

/// `cells[(left * count + at) * count + right]`.
pub struct Table {
    /// Number of letters.
    pub count: usize,
    /// The decisions.
    pub cells: Vec<Decision>,
}

impl Table {
    /// The decision of a window.
    pub fn get(&self, left: usize, at: usize, right: usize) -> Decision {
        self.cells[(left * self.count + at) * self.count + right]
    }
}

/// By raw group: a byte.
pub type Lookup = [u8; GROUPS];

/// The tables of a rule, for the scanner. Characters first get a *raw* group; the character before
/// turns it into the group that windows are looked up with.
pub struct Windows {
    /// Raw group of each ASCII character.
    pub ascii: [u8; 128],
    /// Raw group of each class, for characters of several bytes.
    pub wide: Vec<u8>,
    /// Group of a character that is not marked.
    pub plain: Lookup,
    /// Difference (exclusive or) to the group of each [`Mark::Kind`].
    pub marked: [Lookup; 2],
    /// Bit of a refined class.
    pub refined: Lookup,
    /// Bits of the refined classes that are of each kind after the group.
    pub after: [Lookup; 2],
    /// Difference to the group of a refined class at the beginning of a piece.
    pub first: Lookup,
    /// Bits of the refined classes that inherit.
    pub inherits: u8,
    /// Raw group of the counted class, and how many a piece takes.
    pub counted: Option<(u8, u32)>,
    /// Classes of which the scanner hands a chunk over: of several bytes, before a counted character.
    pub counted_wide: Vec<bool>,
    /// 0x80: white space, 0x40: line end. None of them: the rule does not care.
    pub lines: Lookup,
    /// Classes of white space of several bytes.
    pub white_wide: Vec<bool>,
    /// By raw group: the group of white space before a line end.
    pub before_line: Lookup,
    /// Windows in which a piece ends before the middle character (unless open).
    pub ends: Vec<Plane>,
    /// Windows that the automaton must decide.
    pub open: Vec<Plane>,
    /// The group that spoils the places after it; [`GROUPS`]: none.
    pub spoiler: u8,
}

impl Windows {
    /// The tables of an automaton that covers every text; `None` if they have no compact shape.
    pub fn new(automaton: &Automaton, classes: &Classes) -> Option<Self> {
        let features = Features::of(automaton, classes);
        Self::with(automaton, classes, features.clone()).or_else(|| {
            let plain = Features { counted: None, lines: None, ..features };
            Self::with(automaton, classes, plain)
        })
    }

    /// The tables as bytes; [`Self::from_bytes`] is the way back.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (counted, most) = self.counted.map_or((0, 0), |(group, most)| (group, most as u8));
        let sizes = [self.ends.len() as u8, self.open.len() as u8];
        let mut bytes = vec![self.inherits, self.spoiler, counted, most, sizes[0], sizes[1]];
        bytes.extend(self.ascii);
        for lookup in self.lookups() {
            bytes.extend(lookup);
        }
        bytes.extend(&self.wide);
        bytes.extend(self.counted_wide.iter().chain(&self.white_wide).map(|&is| u8::from(is)));
        for plane in self.ends.iter().chain(&self.open) {
            bytes.extend([plane.left, plane.at, plane.right].as_flattened());
        }
        bytes
    }

    fn lookups(&self) -> [Lookup; 9] {
        let [one, other] = self.marked;
        let [first, second] = self.after;
        [self.plain, one, other, self.refined, first, second, self.first, self.lines, self.before_line]
    }

    /// The tables of a rule with so many classes; `None` if the bytes are not of one.
    pub fn from_bytes(bytes: &[u8], classes: usize) -> Option<Self> {
        let (&[inherits, spoiler, counted, most, ends, open], mut rest) = bytes.split_first_chunk()?;
        let (ascii, after) = rest.split_first_chunk::<128>()?;
        rest = after;
        let mut lookup = || -> Option<Lookup> {
            let (lookup, after) = rest.split_first_chunk::<GROUPS>()?;
            rest = after;
            Some(*lookup)
        };
        let mut lookups = [[0; GROUPS]; 9];
        for place in &mut lookups {
            *place = lookup()?;
        }
        let (mut ends, mut open) = (vec![Plane::default(); ends.into()], vec![Plane::default(); open.into()]);
        let [plain, one, other, refined, first, second, begin, lines, before_line] = lookups;
        let [wide, counted_wide, white_wide] = {
            let (flags, after) = rest.split_at_checked(3 * classes)?;
            rest = after;
            [0, 1, 2].map(|nth| flags[nth * classes..(nth + 1) * classes].to_vec())
        };
        if rest.len() != (ends.len() + open.len()) * 3 * GROUPS || ends.len().max(open.len()) > 4 {
            return None;
        }
        for (plane, bytes) in ends.iter_mut().chain(&mut open).zip(rest.chunks_exact(3 * GROUPS)) {
            let sides = [&mut plane.left, &mut plane.at, &mut plane.right];
            for (side, bytes) in sides.into_iter().zip(bytes.chunks_exact(GROUPS)) {
                side.copy_from_slice(bytes);
            }
        }
        let groups = ascii.iter().chain(&wide).all(|&group| usize::from(group) < GROUPS);
        let flags = |flags: Vec<u8>| flags.into_iter().map(|flag| flag != 0).collect();
        groups.then(|| Self {
            ascii: *ascii,
            wide,
            plain,
            marked: [one, other],
            refined,
            after: [first, second],
            first: begin,
            inherits,
            counted: (most > 1).then_some((counted, u32::from(most))),
            counted_wide: flags(counted_wide),
            lines,
            white_wide: flags(white_wide),
            before_line,
            ends,
            open,
            spoiler,
        })
    }

    fn with(automaton: &Automaton, classes: &Classes, features: Features) -> Option<Self> {
        let mut best = Decided::new(automaton, classes, features);
        for spoiler in spoilers(classes) {
            let features = Features { spoiler: Some(spoiler), ..best.features.clone() };
            let decided = Decided::new(automaton, classes, features);
            if decided.open() < 0.8 * best.open() {
                best = decided;
            }
        }
        let refined = best.refined(classes);
        if !refined.is_empty() {
            let features = Features { refined, ..best.features.clone() };
            let decided = Decided::new(automaton, classes, features);
            if decided.open() < best.open() {
                best = decided;
            }
        }
        let (features, letters) = (&best.features, &best.letters);
        let table = best.counted_together()?;
        let of = |letter: Letter| letters.iter().position(|&other| other == letter);
        let apart = features.spoiler.and_then(|class| of(Letter { class, wide: false, mark: Mark::Plain }));
        let (table, group) = groups::group(&table, &best.weights, apart)?;
        let all = |wanted: Decision, also: &[Decision]| {
            groups::boxes(&table, |cell| cell == wanted, |cell| cell == wanted || also.contains(&cell))
        };
        let ends = all(Decision::Ends, &[Decision::Open, Decision::Never])?;
        let open = all(Decision::Open, &[Decision::Never])?;
        let spoiler = apart.map_or(GROUPS as u8, |letter| group[letter]);
        let mut windows = raw(classes, features, |letter| of(letter).map(|letter| group[letter]))?;
        (windows.ends, windows.open, windows.spoiler) = (ends, open, spoiler);
        Some(windows)
    }
}

/// Classes that may be tried as spoilers: rare, and all in ASCII.
fn spoilers(classes: &Classes) -> Vec<usize> {
    let beyond = classes.beyond_ascii();
    let ascii = |class: usize| (0..128).filter(move |&byte| usize::from(classes.ascii[byte]) == class);
    let rare = |&class: &usize| {
        let weight: f64 = ascii(class).map(|byte| weight(byte as u8)).sum();
        weight > 0.0 && weight < 0.01 && ascii(class).count() <= 2 && !beyond[class]
    };
    (0..classes.count).filter(rare).take(3).collect()
}

/// Rough frequency of an ASCII character in text and code; only steers what is merged.
fn weight(byte: u8) -> f64 {
    match byte {
        b' ' => 0.16,
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' => 0.06,
        b'a'..=b'z' => 0.02,
        b'\n' => 0.04, // indentation follows
        b'0'..=b'9' => 0.012,
        b'A'..=b'Z' => 0.004,
        b'\'' | b'"' | b',' | b'.' | b'-' | b'/' | b'_' | b'(' | b')' | b':' | b'=' | b'\t' => 0.008,
        b'!'..=b'~' => 0.002,
        _ => 0.000_1,
    }
}

/// The decisions of all windows of letters.
struct Decided {
    features: Features,
    letters: Vec<Letter>,
    weights: Vec<f64>,
    table: Table,
    /// States after `at` behind `left`, by `left * count + at`.
    after: Vec<Vec<u16>>,
    /// States after each letter at the beginning of a piece.
    first: Vec<Vec<u16>>,
}

impl Decided {
    fn new(automaton: &Automaton, classes: &Classes, features: Features) -> Self {
        let letters = features.letters(classes);
        let ascii = |class: usize| -> f64 {
            let bytes = (0..128).filter(|&byte| usize::from(classes.ascii[byte]) == class);
            bytes.map(|byte| weight(byte as u8)).sum()
        };
        let weights = letters.iter().map(|letter| {
            let part = match letter.mark {
                Mark::Place(_) => 0.4,
                Mark::BeforeLine => 0.02,
                Mark::Plain if features.refined.iter().any(|r| r.class == letter.class) => 0.02,
                _ => 1.0,
            };
            part * if letter.wide { 0.004 } else { ascii(letter.class) }
        });
        let weights = weights.collect();
        let (table, after) = Analysis::new(automaton, classes, &features, &letters).table();
        let starts = automaton.starts();
        let first = |letter: &Letter| {
            starts.iter().map(|&start| automaton.entry(start, letter.class) & !MATCHED).collect()
        };
        let first = letters.iter().map(first).collect();
        Self { features, letters, weights, table, after, first }
    }

    /// The share of ordinary text that is left open.
    fn open(&self) -> f64 {
        let count = self.table.count;
        let mut open = 0.0;
        for left in 0..count {
            for at in 0..count {
                for right in 0..count {
                    if self.table.get(left, at, right) == Decision::Open {
                        open += self.weights[left] * self.weights[at] * self.weights[right];
                    }
                }
            }
        }
        open
    }

    /// Classes that are open before other characters, and that the one before would tell apart.
    fn refined(&self, classes: &Classes) -> Vec<Refined> {
        let beyond = classes.beyond_ascii();
        let count = self.table.count;
        let mut found = Vec::new();
        for (class, &beyond) in beyond.iter().enumerate() {
            let own: Vec<usize> = (0..count).filter(|&letter| self.letters[letter].class == class).collect();
            let marked = |&letter: &usize| self.letters[letter].mark != Mark::Plain;
            let mut open = 0.0;
            for &left in &own {
                for at in 0..count {
                    for right in 0..count {
                        if self.table.get(left, at, right) == Decision::Open {
                            open += self.weights[left] * self.weights[at] * self.weights[right];
                        }
                    }
                }
            }
            if open == 0.0 || own.iter().any(marked) {
                continue;
            }
            let ascii = classes.ascii.iter().any(|&other| usize::from(other) == class);
            let inherits = beyond && !ascii;
            let (after, first) = self.kinds(classes, &own, inherits);
            if after.contains(&Mark::Kind(0)) && after.contains(&Mark::Kind(1)) {
                found.push((open, Refined { class, after, first, inherits }));
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        found.into_iter().take(4).map(|(_, refined)| refined).collect()
    }

    /// The two heaviest kinds of characters before a class (`own`: its letters), kinds that share no
    /// state after it. A character that belongs to several kinds tells nothing.
    fn kinds(&self, classes: &Classes, own: &[usize], inherits: bool) -> (Vec<Mark>, Mark) {
        let count = self.table.count;
        let mut before: Vec<(f64, usize, Vec<u16>)> = (0..classes.count)
            .map(|class| {
                let lefts = || (0..count).filter(|&left| self.letters[left].class == class);
                let weight = lefts().map(|left| self.weights[left]).sum();
                let states = lefts().flat_map(|left| own.iter().map(move |&at| left * count + at));
                (weight, class, states.flat_map(|pair| self.after[pair].iter().copied()).collect())
            })
            .filter(|(_, class, _)| !inherits || *class != self.letters[own[0]].class)
            .collect();
        before.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut kinds: Vec<(f64, Vec<u16>, Vec<usize>)> = Vec::new();
        for (weight, class, states) in before.into_iter().filter(|(_, _, states)| !states.is_empty()) {
            let shares =
                |kind: &(f64, Vec<u16>, Vec<usize>)| kind.1.iter().any(|state| states.contains(state));
            let hits: Vec<usize> = (0..kinds.len()).filter(|&kind| shares(&kinds[kind])).collect();
            match hits[..] {
                [] => kinds.push((weight, states, vec![class])),
                // What adds states to a kind blurs it; among marks, letters of all cases are one kind.
                [only] if inherits || states.iter().all(|state| kinds[only].1.contains(state)) => {
                    kinds[only].0 += weight;
                    kinds[only].1.extend(states);
                    kinds[only].2.push(class);
                }
                _ => {}
            }
        }
        kinds.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut after, mut first) = (vec![Mark::Plain; classes.count], Mark::Plain);
        for (nth, kind) in kinds.iter().enumerate().take(2) {
            kind.2.iter().for_each(|&class| after[class] = Mark::Kind(nth));
            let mut firsts = own.iter().flat_map(|&letter| &self.first[letter]);
            if firsts.all(|state| kind.1.contains(state)) {
                first = Mark::Kind(nth);
            }
        }
        (after, first)
    }

    /// The table in which all places of a counted run are one: the scanner counts by itself. `None`
    /// if the piece ends anywhere but after the last place.
    fn counted_together(&self) -> Option<Table> {
        let Some((class, most)) = self.features.counted else {
            let (count, cells) = (self.table.count, self.table.cells.clone());
            return Some(self.wide_blind(Table { count, cells }));
        };
        let place = |letter: usize| match self.letters[letter].mark {
            Mark::Place(place) if self.letters[letter].class == class => Some(place),
            _ => None,
        };
        let count = self.table.count;
        let first = (0..count).find(|&letter| place(letter) == Some(0))?;
        let mut cells = vec![Decision::Never; count * count * count];
        for left in 0..count {
            for at in 0..count {
                let within = place(left).zip(place(at));
                for right in 0..count {
                    let mut decision = self.table.get(left, at, right);
                    if let Some((last, _)) = within {
                        let wanted = if last + 1 == most { Decision::Ends } else { Decision::GoesOn };
                        if decision != Decision::Never && decision != wanted {
                            return None;
                        }
                        decision = Decision::GoesOn; // the scanner adds the ends
                    }
                    let as_first = |letter| if place(letter).is_some() { first } else { letter };
                    let (left, at, right) = (as_first(left), as_first(at), as_first(right));
                    let cell = &mut cells[(left * count + at) * count + right];
                    *cell = cell.join(decision);
                }
            }
        }
        // The other places read as the first does.
        let as_first = |letter| if place(letter).is_some() { first } else { letter };
        let places = (0..count).flat_map(|left| (0..count).map(move |at| (left, at)));
        let same = places.flat_map(|(left, at)| {
            let row = (as_first(left) * count + as_first(at)) * count;
            (0..count).map(move |right| row + as_first(right))
        });
        let same = same.map(|cell| cells[cell]).collect();
        Some(self.wide_blind(Table { count, cells: same }))
    }

    /// A character of several bytes has its own next byte to its right, so what it decides may not
    /// depend on the right.
    fn wide_blind(&self, mut table: Table) -> Table {
        let count = table.count;
        for left in 0..count {
            for at in (0..count).filter(|&at| self.letters[at].wide) {
                let row = &mut table.cells[(left * count + at) * count..][..count];
                let any = row.iter().copied().fold(Decision::Never, Decision::join);
                row.fill(any);
            }
        }
        table
    }
}

/// Ways on from a state: it matches later, it dies without.
const MATCHES: u8 = 1;
const DIES: u8 = 2;

struct Analysis<'a> {
    automaton: &'a Automaton,
    features: &'a Features,
    letters: &'a [Letter],
    /// Letters that may follow each letter.
    next: Vec<Vec<usize>>,
    /// `ways[state * letters + letter]`: what may become of a state before a letter.
    ways: Vec<u8>,
}

impl<'a> Analysis<'a> {
    fn new(
        automaton: &'a Automaton,
        classes: &Classes,
        features: &'a Features,
        letters: &'a [Letter],
    ) -> Self {
        let next = letters.iter().map(|&letter| {
            let legal = |&next: &usize| features.legal(letter, Some(letters[next]));
            (0..letters.len()).filter(legal).collect()
        });
        let next: Vec<Vec<usize>> = next.collect();
        let mut ways = vec![0u8; automaton.states() * letters.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for state in 0..automaton.states() {
                for (nth, &letter) in letters.iter().enumerate() {
                    let entry = automaton.entry(state as u16, letter.class);
                    let way = if entry & MATCHED != 0 {
                        MATCHES
                    } else if entry == DEAD {
                        DIES
                    } else {
                        let at_end = match automaton.entry(entry, classes.count) & MATCHED {
                            _ if !features.legal(letter, None) => 0,
                            0 => DIES,
                            _ => MATCHES,
                        };
                        let row = &ways[usize::from(entry) * letters.len()..][..letters.len()];
                        next[nth].iter().fold(at_end, |all, &next| all | row[next])
                    };
                    let place = &mut ways[state * letters.len() + nth];
                    changed |= *place | way != *place;
                    *place |= way;
                }
            }
        }
        Self { automaton, features, letters, next, ways }
    }

    /// The state before a piece that begins behind a letter.
    fn start(&self, left: usize) -> u16 {
        self.automaton.start(self.letters[left].class)
    }

    /// The decision for one state: does the piece end before `at`, if `right` follows?
    fn decide(&self, state: u16, at: usize, right: usize) -> Decision {
        let entry = self.automaton.entry(state, self.letters[at].class);
        let (matched, next) = (entry & MATCHED != 0, entry & !MATCHED);
        match (matched, next == DEAD) {
            (true, true) => Decision::Ends,
            (false, true) => Decision::Never, // then the character before would not be of the piece
            (false, false) => Decision::GoesOn,
            (true, false) => match self.ways[usize::from(next) * self.letters.len() + right] {
                MATCHES => Decision::GoesOn,
                DIES => Decision::Ends,
                0 => Decision::Never,
                _ => Decision::Open,
            },
        }
    }

    /// All windows, and the states after `at` behind `left`.
    fn table(&self) -> (Table, Vec<Vec<u16>>) {
        let (count, states) = (self.letters.len(), self.automaton.states());
        let levels = if self.features.spoiler.is_some() { REACH + 1 } else { 1 };
        // possible[left * count + next]: states after `left` when `next` comes, by the number of
        // characters since the last spoiler (the last level: enough of them).
        let mut possible = vec![Vec::new(); count * count];
        let mut known = vec![false; count * count * states * levels];
        let mut work = Vec::new();
        let mut add = |work: &mut Vec<_>, entry: u16, since: usize, of: usize, next: usize| {
            let state = entry & !MATCHED;
            let spoils = self.features.spoils(self.letters[of]);
            let since = if spoils { 0 } else { (since + 1).min(levels - 1) };
            // A piece goes no further than its last match, so one must come.
            let alive = state != DEAD && self.ways[usize::from(state) * count + next] & MATCHES != 0;
            let pair = of * count + next;
            let place = (pair * states + usize::from(state)) * levels + since;
            if alive && !std::mem::replace(&mut known[place], true) {
                work.push((of, next, state, since));
                if since == levels - 1 {
                    possible[pair].push(state);
                }
            }
        };
        for letter in (0..count).filter(|&letter| self.features.may_begin(self.letters[letter])) {
            for &next in &self.next[letter] {
                for start in self.automaton.starts() {
                    let entry = self.automaton.entry(start, self.letters[letter].class);
                    add(&mut work, entry, levels, letter, next);
                }
            }
        }
        while let Some((left, at, state, since)) = work.pop() {
            let class = self.letters[at].class;
            for &right in &self.next[at] {
                let decision = self.decide(state, at, right);
                if matches!(decision, Decision::Ends | Decision::Open) {
                    add(&mut work, self.automaton.entry(self.start(left), class), since, at, right);
                }
                if matches!(decision, Decision::GoesOn | Decision::Open) {
                    add(&mut work, self.automaton.entry(state, class), since, at, right);
                }
            }
        }
        let mut cells = vec![Decision::Never; count * count * count];
        let mut after = vec![Vec::new(); count * count];
        for left in 0..count {
            for at in 0..count {
                let after: &mut Vec<u16> = &mut after[left * count + at];
                for &state in &possible[left * count + at] {
                    let (mut ends, mut goes_on) = (false, false);
                    for &right in &self.next[at] {
                        let decision = self.decide(state, at, right);
                        let cell = &mut cells[(left * count + at) * count + right];
                        *cell = cell.join(decision);
                        ends |= matches!(decision, Decision::Ends | Decision::Open);
                        goes_on |= matches!(decision, Decision::GoesOn | Decision::Open);
                    }
                    for (is, from) in [(ends, self.start(left)), (goes_on, state)] {
                        let state = self.automaton.entry(from, self.letters[at].class) & !MATCHED;
                        if is && !after.contains(&state) {
                            after.push(state);
                        }
                    }
                }
            }
        }
        (Table { count, cells }, after)
    }
}

/// The raw groups and what the character before makes of them; `None` if they are too many.
fn raw(classes: &Classes, features: &Features, group: impl Fn(Letter) -> Option<u8>) -> Option<Windows> {
    let mut windows = Windows {
        ascii: [0; 128],
        wide: vec![0; classes.count],
        plain: [0; GROUPS],
        marked: [[0; GROUPS]; 2],
        refined: [0; GROUPS],
        after: [[0; GROUPS]; 2],
        first: [0; GROUPS],
        inherits: 0,
        counted: None,
        counted_wide: vec![false; classes.count],
        lines: [0; GROUPS],
        white_wide: vec![false; classes.count],
        before_line: [0; GROUPS],
        ends: Vec::new(),
        open: Vec::new(),
        spoiler: 0,
    };
    for (nth, refined) in features.refined.iter().enumerate() {
        windows.inherits |= u8::from(refined.inherits) << nth;
    }
    let mut kinds: Vec<[u8; 9]> = Vec::new();
    let mut add = |windows: &mut Windows, class: usize, wide: bool| {
        let counted = features.counted.filter(|counted| counted.0 == class && !wide);
        let mark = if counted.is_some() { Mark::Place(0) } else { Mark::Plain };
        let of = |mark| group(Letter { class, wide, mark });
        let plain = of(mark)?;
        let bit = features.refined.iter().position(|refined| refined.class == class);
        let marked = |mark| if bit.is_some() { of(mark).unwrap_or(plain) } else { plain };
        let (one, other) = (marked(Mark::Kind(0)), marked(Mark::Kind(1)));
        let first = bit.map_or(plain, |bit| marked(features.refined[bit].first));
        let after = |kind: usize| {
            let refined = features.refined.iter().enumerate();
            let hits = refined.filter(|(_, refined)| refined.after[class] == Mark::Kind(kind));
            hits.fold(0u8, |bits, (nth, _)| bits | 1 << nth)
        };
        let lines = features.lines.as_ref().map_or(0, |(white, ends)| {
            (u8::from(white[class]) << 7 | u8::from(ends[class]) << 6) * u8::from(!wide)
        });
        let bit = bit.map_or(0, |bit| 1u8 << bit);
        let counts = u8::from(counted.is_some());
        let (after, kind) = ([after(0), after(1)], bit);
        // The group before a line end is part of the kind too, or two kinds of white space would share it.
        let line = if lines & 0x80 == 0 { 0 } else { of(Mark::BeforeLine)? };
        let kind = [plain, one, other, first, kind, after[0], after[1], lines | line, counts];
        let raw = kinds.iter().position(|&other| other == kind).unwrap_or_else(|| {
            kinds.push(kind);
            kinds.len() - 1
        });
        if raw >= GROUPS {
            return None;
        }
        windows.plain[raw] = plain;
        windows.marked[0][raw] = plain ^ one;
        windows.marked[1][raw] = plain ^ other;
        windows.first[raw] = plain ^ first;
        windows.refined[raw] = bit;
        windows.after[0][raw] = after[0];
        windows.after[1][raw] = after[1];
        windows.lines[raw] = lines;
        if let Some((_, most)) = counted {
            windows.counted = Some((raw as u8, most as u32));
        }
        if lines & 0x80 != 0 {
            windows.before_line[raw] = line;
        }
        Some(raw as u8)
    };
    for class in 0..classes.count {
        let ascii: Vec<usize> = (0..128).filter(|&byte| usize::from(classes.ascii[byte]) == class).collect();
        if !ascii.is_empty() {
            let raw = add(&mut windows, class, false)?;
            for byte in ascii {
                windows.ascii[byte] = raw;
            }
        }
    }
    for (class, &beyond) in classes.beyond_ascii().iter().enumerate() {
        if beyond {
            windows.wide[class] = add(&mut windows, class, true)?;
            windows.counted_wide[class] = features.counted.is_some_and(|counted| counted.0 == class);
            windows.white_wide[class] = features.lines.as_ref().is_some_and(|lines| lines.0[class]);
        }
    }
    Some(windows)
}

//! Automata over classes: forwards with priorities, backwards for look-ahead.

use rustc_hash::FxHashMap;

use super::classes::Classes;
use super::syntax::{Look, Node};
use super::NotRegular;

/// Most states of an automaton; beyond, the rule is left to the fallback.
const MAX_STATES: usize = 4000;

/// Most entries of its table.
const MAX_ENTRIES: usize = 1 << 22;

/// The state in which nothing can match any more.
pub const DEAD: u16 = 0;
/// The state before the first character.
pub const START: u16 = 1;
/// Set in an entry if a match ends before the character read.
pub const MATCHED: u16 = 1 << 15;

/// The same in a table of rows.
const ROW_MATCHED: u32 = 1 << 31;

/// How a place parts a text, told by the characters on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joint {
    /// It may not.
    None,
    /// What matches on either side does not depend on the other side.
    Apart,
    /// The same, and a match ends here for sure.
    Ends,
}

/// An instruction of the non-deterministic program.
#[derive(Clone, Debug)]
enum Step {
    Set(usize, usize),
    /// First choice first.
    Fork(usize, usize),
    Next(usize, bool, usize),
    End(usize),
    Look(usize, bool, usize),
    Match,
}

struct Program(Vec<Step>);

impl Program {
    /// `backwards`: what a tree matches, read from its end.
    fn new(node: &Node, backwards: bool) -> (Self, usize) {
        let mut program = Self(vec![Step::Match]);
        let entry = program.add(node, 0, backwards);
        (program, entry)
    }

    fn push(&mut self, step: Step) -> usize {
        self.0.push(step);
        self.0.len() - 1
    }

    /// Adds a node that goes on at `next`; returns its entry.
    fn add(&mut self, node: &Node, next: usize, backwards: bool) -> usize {
        match node {
            Node::Set(set) => self.push(Step::Set(*set, next)),
            Node::Next(set, negated) => self.push(Step::Next(*set, *negated, next)),
            Node::End => self.push(Step::End(next)),
            Node::Look(nth, negated) => self.push(Step::Look(*nth, *negated, next)),
            Node::Concat(items) => {
                let add = |next, item| self.add(item, next, backwards);
                if backwards {
                    items.iter().fold(next, add)
                } else {
                    items.iter().rev().fold(next, add)
                }
            }
            Node::Alt(items) => {
                let entries: Vec<usize> = items.iter().map(|item| self.add(item, next, backwards)).collect();
                let last = entries.last().copied().unwrap_or(next);
                entries.iter().rev().skip(1).fold(last, |rest, &entry| self.push(Step::Fork(entry, rest)))
            }
            Node::Repeat(body, low, high, greedy) => {
                let fork =
                    |enter, leave| if *greedy { Step::Fork(enter, leave) } else { Step::Fork(leave, enter) };
                let mut entry = next;
                if let Some(high) = high {
                    for _ in *low..*high {
                        let body = self.add(body, entry, backwards);
                        entry = self.push(fork(body, next));
                    }
                } else {
                    let again = self.push(Step::Match); // filled in below
                    let body = self.add(body, again, backwards);
                    self.0[again] = fork(body, next);
                    entry = again;
                }
                (0..*low).fold(entry, |next, _| self.add(body, next, backwards))
            }
        }
    }

    /// Follows everything that reads no character, before one of class `next` (the class count: the
    /// end of the text) with look-ahead bits `looks`. Steps in order of priority.
    fn close(&self, kernel: &[usize], classes: &Classes, next: usize, looks: usize) -> Vec<usize> {
        let (mut seen, mut order) = (vec![false; self.0.len()], Vec::new());
        let mut stack: Vec<usize> = kernel.iter().rev().copied().collect();
        while let Some(at) = stack.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match self.0[at] {
                Step::Set(..) | Step::Match => order.push(at),
                Step::Fork(first, second) => stack.extend([second, first]),
                Step::Next(set, negated, to) if classes.holds(set, next) != negated => stack.push(to),
                Step::End(to) if next == classes.count => stack.push(to),
                Step::Look(nth, negated, to) if (looks >> nth & 1 != 0) != negated => stack.push(to),
                _ => {}
            }
        }
        order
    }

    /// Where the steps lead that read a character of `class`.
    fn read(&self, steps: &[usize], classes: &Classes, class: usize) -> Vec<usize> {
        let mut kernel = Vec::new();
        for &at in steps {
            if let Step::Set(set, to) = self.0[at] {
                if classes.holds(set, class) && !kernel.contains(&to) {
                    kernel.push(to);
                }
            }
        }
        kernel
    }
}

/// Numbers for state sets.
struct States {
    numbers: FxHashMap<Vec<usize>, u16>,
    sets: Vec<Vec<usize>>,
}

impl States {
    fn new(first: &[Vec<usize>]) -> Self {
        let mut states = Self { numbers: FxHashMap::default(), sets: Vec::new() };
        for set in first {
            states.numbers.insert(set.clone(), states.sets.len() as u16);
            states.sets.push(set.clone());
        }
        states
    }

    fn number(&mut self, set: Vec<usize>) -> Result<u16, NotRegular> {
        if let Some(&number) = self.numbers.get(&set) {
            return Ok(number);
        }
        if self.sets.len() >= MAX_STATES {
            return Err(NotRegular("too many states"));
        }
        let number = self.sets.len() as u16;
        self.numbers.insert(set.clone(), number);
        self.sets.push(set);
        Ok(number)
    }
}

/// Leftmost-first matching from a given start.
pub struct Automaton {
    /// `entries[state * stride + class + classes * looks]`: next state, and [`MATCHED`].
    entries: Vec<u16>,
    /// The same with places in this table instead of states, and [`ROW_MATCHED`].
    rows: Vec<u32>,
    stride: usize,
    /// Distance between the columns of different look-ahead bits.
    columns: usize,
}

impl Automaton {
    /// Makes a tree deterministic. `looks`: number of look-aheads.
    pub fn new(root: &Node, classes: &Classes, looks: usize) -> Result<Self, NotRegular> {
        let (program, entry) = Program::new(root, false);
        let columns = classes.count + 1;
        let stride = columns << looks;
        let mut states = States::new(&[Vec::new(), vec![entry]]);
        let mut entries = Vec::new();
        let mut state = 0;
        while state < states.sets.len() {
            let kernel = states.sets[state].clone();
            if entries.len() > MAX_ENTRIES {
                return Err(NotRegular("too large a table"));
            }
            for column in 0..stride {
                let (class, looks) = (column % columns, column / columns);
                let mut steps = program.close(&kernel, classes, class, looks);
                let end = steps.iter().position(|&at| matches!(program.0[at], Step::Match));
                if let Some(end) = end {
                    steps.truncate(end); // the rest has lower priority
                }
                let matched = if end.is_some() { MATCHED } else { 0 };
                entries.push(states.number(program.read(&steps, classes, class))? | matched);
            }
            state += 1;
        }
        let row = |&entry: &u16| {
            let matched = if entry & MATCHED != 0 { ROW_MATCHED } else { 0 };
            (u32::from(entry & !MATCHED) * stride as u32) | matched
        };
        let rows = entries.iter().map(row).collect();
        Ok(Self { entries, rows, stride, columns })
    }

    /// The entry for a class (the class count: the end of the text), with no look-ahead bits.
    #[inline]
    pub fn entry(&self, state: u16, class: usize) -> u16 {
        self.entries[usize::from(state) * self.stride + class]
    }

    /// True if a match starts at every character, whatever follows and whatever conditions hold.
    pub fn covers(&self, classes: &Classes) -> bool {
        let columns = |class| (class..self.stride).step_by(self.columns);
        (0..classes.count).flat_map(columns).all(|column| {
            let entry = self.entry(START, column);
            let all = 0..self.stride;
            let matched = all.into_iter().all(|next| self.entry(entry & !MATCHED, next) & MATCHED != 0);
            entry & MATCHED == 0 && entry != DEAD && matched
        })
    }

    /// True if a match may begin before a character of a class, where the look-ahead bits are these.
    pub fn begins(&self, class: usize, looks: usize) -> bool {
        self.entry(START, class + looks * self.columns) != DEAD
    }

    /// By class of two neighbours, `left * classes + right`: how a place between them parts a text.
    pub fn joints(&self, classes: &Classes, conditions: &[Condition]) -> Vec<Joint> {
        let (count, states) = (classes.count, self.states());
        let looks = self.stride / self.columns;
        let entry = |state: usize, class: usize, looks: usize| {
            self.entries[state * self.stride + looks * self.columns + class]
        };
        let mut joints = vec![Joint::None; count * count];
        for left in 0..count {
            let mut after = vec![false; states];
            for state in usize::from(START)..states {
                for looks in 0..looks {
                    after[usize::from(entry(state, left, looks) & !MATCHED)] = true;
                }
            }
            after[usize::from(DEAD)] = false;
            let after: Vec<usize> = (0..states).filter(|&state| after[state]).collect();
            // Every character of the class is in some match.
            let taken = (0..looks).all(|looks| entry(usize::from(START), left, looks) & !MATCHED != DEAD);
            for right in 0..count {
                let (mut apart, mut ends) = (true, taken);
                for (&state, looks) in
                    after.iter().flat_map(|state| (0..looks).map(move |looks| (state, looks)))
                {
                    let (next, end) = (entry(state, right, looks), entry(state, count, looks));
                    apart &= next & !MATCHED == DEAD && (next ^ end) & MATCHED == 0;
                    ends &= next & MATCHED != 0;
                }
                if apart && conditions.iter().all(|condition| condition.is_apart(classes, left, right)) {
                    joints[left * count + right] = if ends { Joint::Ends } else { Joint::Apart };
                }
            }
        }
        joints
    }

    /// Number of states.
    pub fn states(&self) -> usize {
        self.entries.len() / self.stride
    }

    /// The end of the match that starts at `start`.
    #[inline]
    pub fn run(&self, classes: &Classes, text: &[u8], start: usize) -> Option<usize> {
        let (mut row, mut at, mut end) = (self.stride, start, usize::MAX);
        let rows = &self.rows[..];
        while let Some(&byte) = text.get(at) {
            let (class, width) =
                if byte < 0x80 { (classes.ascii[usize::from(byte)], 1) } else { classes.at(text, at) };
            let entry = rows[row + usize::from(class)];
            end = if entry & ROW_MATCHED != 0 { at } else { end };
            row = (entry & !ROW_MATCHED) as usize;
            if row == 0 {
                return (end != usize::MAX).then_some(end);
            }
            at += width;
        }
        if rows[row + classes.count] & ROW_MATCHED != 0 {
            end = at;
        }
        (end != usize::MAX).then_some(end)
    }

    /// The same where the match is long: a byte that leads from a state to itself is not read again and again.
    pub fn run_over(&self, classes: &Classes, text: &[u8], start: usize) -> Option<usize> {
        let (mut row, mut at, mut end) = (self.stride, start, usize::MAX);
        while at < text.len() {
            let (class, width) = classes.at(text, at);
            let entry = self.rows[row + usize::from(class)];
            let next = (entry & !ROW_MATCHED) as usize;
            if next == row && width == 1 {
                let same = |word: &[u8]| *word == [text[at]; 16];
                at += text[at + 1..].chunks_exact(16).take_while(|word| same(word)).count() * 16;
            }
            end = if entry & ROW_MATCHED != 0 { at } else { end };
            row = next;
            if row == 0 {
                return (end != usize::MAX).then_some(end);
            }
            at += width;
        }
        if self.rows[row + classes.count] & ROW_MATCHED != 0 {
            end = at;
        }
        (end != usize::MAX).then_some(end)
    }

    /// The end of the match that starts at `start`, or `None` if text after the end could change it.
    pub fn run_settled(&self, classes: &Classes, text: &[u8], start: usize) -> Option<Option<usize>> {
        let (mut row, mut at, mut end) = (self.stride, start, None);
        while at < text.len() {
            let (class, width) = classes.at(text, at);
            let entry = self.rows[row + usize::from(class)];
            if entry & ROW_MATCHED != 0 {
                end = Some(at);
            }
            row = (entry & !ROW_MATCHED) as usize;
            if row == 0 {
                return Some(end);
            }
            at += width;
        }
        None
    }

    /// The same with look-ahead bits per byte.
    pub fn run_with_looks(
        &self,
        classes: &Classes,
        text: &[u8],
        start: usize,
        looks: &[u8],
    ) -> Option<usize> {
        let (mut row, mut at, mut end) = (self.stride, start, usize::MAX);
        loop {
            let (class, width) = match text.get(at) {
                Some(&byte) if byte < 0x80 => (classes.ascii[usize::from(byte)], 1),
                Some(_) => classes.at(text, at),
                None => (classes.count as u8, 1),
            };
            let entry = self.rows[row + usize::from(class) + usize::from(looks[at]) * self.columns];
            end = if entry & ROW_MATCHED != 0 { at } else { end };
            row = (entry & !ROW_MATCHED) as usize;
            if row == 0 || at >= text.len() {
                return (end != usize::MAX).then_some(end);
            }
            at += width;
        }
    }
}

/// A condition on positions, made ready.
pub enum Condition {
    /// What follows matches.
    Ahead(Backwards),
    /// The character before is of a set.
    Behind(usize),
    /// The start of the text.
    Start,
}

impl Condition {
    /// Makes a condition ready.
    pub fn new(look: &Look, classes: &Classes) -> Result<Self, NotRegular> {
        Ok(match look {
            Look::Ahead(node) => Self::Ahead(Backwards::new(node, classes)?),
            Look::Behind(set) => Self::Behind(*set),
            Look::Start => Self::Start,
        })
    }

    /// True if it may hold before a character of a class.
    pub fn may_hold(&self, classes: &Classes, class: usize) -> bool {
        match self {
            Self::Ahead(look) => look.may_hold(classes, class),
            Self::Behind(_) | Self::Start => true,
        }
    }

    /// Sets `bit` at every position where it holds.
    pub fn mark(&self, text: &[u8], classes: &Classes, bit: u8, bits: &mut [u8]) {
        match self {
            Self::Ahead(look) => look.mark(text, classes, bit, bits),
            Self::Start => bits[0] |= bit,
            Self::Behind(set) => {
                let (members, mut at) = (classes.members(*set), 0);
                while at < text.len() {
                    let (class, width) = classes.at(text, at);
                    at += width;
                    if members[usize::from(class)] {
                        bits[at.min(text.len())] |= bit;
                    }
                }
            }
        }
    }

    /// True if it says the same on both sides of a place between characters of these classes, whether the text on
    /// the other side is there or not.
    pub fn is_apart(&self, classes: &Classes, left: usize, right: usize) -> bool {
        match self {
            Self::Ahead(look) => look.next.iter().skip(right).step_by(classes.count).all(|&state| state == 0),
            Self::Behind(set) => !classes.holds(*set, left),
            Self::Start => false,
        }
    }
}

/// Marks the positions where a tree matches, reading backwards.
pub struct Backwards {
    /// `next[state * classes + class]`.
    next: Vec<u16>,
    accepts: Vec<bool>,
}

impl Backwards {
    /// Makes the reversed tree deterministic. A state is what can go on before a position, with
    /// everything followed that needs to know the next character.
    pub fn new(node: &Node, classes: &Classes) -> Result<Self, NotRegular> {
        let (program, entry) = Program::new(node, true);
        let close = |mut kernel: Vec<usize>, next: usize| {
            kernel.push(entry); // a match may end anywhere
            let mut set = program.close(&kernel, classes, next, 0);
            set.sort_unstable();
            set
        };
        let mut states = States::new(&[close(Vec::new(), classes.count)]);
        let (mut next, mut accepts) = (Vec::new(), Vec::new());
        let mut state = 0;
        while state < states.sets.len() {
            let set = states.sets[state].clone();
            accepts.push(set.iter().any(|&at| matches!(program.0[at], Step::Match)));
            for class in 0..classes.count {
                next.push(states.number(close(program.read(&set, classes, class), class))?);
            }
            state += 1;
        }
        Ok(Self { next, accepts })
    }

    /// True if the tree may match before a character of a class.
    pub fn may_hold(&self, classes: &Classes, class: usize) -> bool {
        let after = self.next.iter().skip(class).step_by(classes.count);
        after.into_iter().any(|&state| self.accepts[usize::from(state)])
    }

    /// Sets `bit` at every position where the tree matches.
    pub fn mark(&self, text: &[u8], classes: &Classes, bit: u8, bits: &mut [u8]) {
        let mut state = 0;
        let mut at = text.len();
        loop {
            if self.accepts[usize::from(state)] {
                bits[at] |= bit;
            }
            if at == 0 {
                return;
            }
            at -= 1;
            while at > 0 && text[at] & 0xC0 == 0x80 {
                at -= 1;
            }
            let (class, _) = classes.at(text, at);
            state = self.next[usize::from(state) * classes.count + usize::from(class)];
        }
    }
}

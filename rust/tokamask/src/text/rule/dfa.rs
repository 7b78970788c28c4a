//! Automata over classes: forwards with priorities, backwards for look-ahead.

use rustc_hash::FxHashMap;

use super::classes::Classes;
use super::syntax::{Behind, Node, Tree};
use super::vain::{Vain, NEAR};
use super::NotRegular;

/// Most states of an automaton; beyond, the rule is left to the fallback.
const MAX_STATES: usize = 4000;

/// Most entries of its table.
const MAX_ENTRIES: usize = 1 << 22;

/// The state in which nothing can match any more.
pub const DEAD: u16 = 0;
/// The state before the first character of a text; elsewhere see [`Automaton::start`].
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
    Ahead(usize, bool, usize),
    Behind(usize, bool, usize),
    Match,
}

/// Bits of the conditions that hold at a place.
#[derive(Clone, Copy, Default)]
struct Holds {
    aheads: usize,
    behinds: usize,
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
            Node::Ahead(nth, negated) => self.push(Step::Ahead(*nth, *negated, next)),
            Node::Behind(nth, negated) => self.push(Step::Behind(*nth, *negated, next)),
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
    /// end of the text) where these conditions hold. Steps in order of priority.
    fn close(&self, kernel: &[usize], classes: &Classes, next: usize, holds: Holds) -> Vec<usize> {
        let (mut seen, mut order) = (vec![false; self.0.len()], Vec::new());
        let mut stack: Vec<usize> = kernel.iter().rev().copied().collect();
        let has = |bits: usize, nth: usize| bits >> nth & 1 != 0;
        while let Some(at) = stack.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match self.0[at] {
                Step::Set(..) | Step::Match => order.push(at),
                Step::Fork(first, second) => stack.extend([second, first]),
                Step::Next(set, negated, to) if classes.holds(set, next) != negated => stack.push(to),
                Step::End(to) if next == classes.count => stack.push(to),
                Step::Ahead(nth, negated, to) if has(holds.aheads, nth) != negated => stack.push(to),
                Step::Behind(nth, negated, to) if has(holds.behinds, nth) != negated => stack.push(to),
                _ => {}
            }
        }
        order
    }

    /// The conditions on what stands before that a kernel may ask for, as bits.
    fn asks(&self, kernel: &[usize]) -> usize {
        let (mut seen, mut asked) = (vec![false; self.0.len()], 0);
        let mut stack = kernel.to_vec();
        while let Some(at) = stack.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            match self.0[at] {
                Step::Set(..) | Step::Match => {}
                Step::Fork(first, second) => stack.extend([first, second]),
                Step::Next(_, _, to) | Step::End(to) | Step::Ahead(_, _, to) => stack.push(to),
                Step::Behind(nth, _, to) => {
                    asked |= 1 << nth;
                    stack.push(to);
                }
            }
        }
        asked
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

/// A set of steps, and the conditions that hold of what was read, as far as the steps ask for them.
type Kernel = (Vec<usize>, usize);

/// Numbers for state sets.
struct States {
    numbers: FxHashMap<Kernel, u16>,
    sets: Vec<Kernel>,
}

impl States {
    fn new(first: Kernel) -> Self {
        Self { numbers: std::iter::once((first.clone(), 0)).collect(), sets: vec![first] }
    }

    fn number(&mut self, set: Kernel) -> Result<u16, NotRegular> {
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

/// Leftmost-first matching from a given start. What stands before a place is part of the state there.
pub struct Automaton {
    /// `entries[state * stride + class + classes * aheads]`: next state, and [`MATCHED`].
    entries: Vec<u16>,
    /// The same with places in this table instead of states, and [`ROW_MATCHED`].
    rows: Vec<u32>,
    /// First state by class of the character before; at last that at the start of the text.
    starts: Vec<u16>,
    /// They are not all the same.
    looks_behind: bool,
    stride: usize,
    /// Distance between the columns of different look-ahead bits.
    columns: usize,
}

impl Automaton {
    /// Makes a tree deterministic.
    pub fn new(tree: &Tree, classes: &Classes) -> Result<Self, NotRegular> {
        let (program, entry) = Program::new(&tree.root, false);
        let columns = classes.count + 1;
        let stride = columns << tree.aheads.len();
        // By class of the character before, and at the start of the text.
        let holds = |class: usize| {
            let conditions = tree.behinds.iter().enumerate();
            conditions.fold(0, |bits, (nth, behind)| {
                let holds = match behind {
                    Behind::Set(set) => classes.holds(*set, class),
                    Behind::Start => class == classes.count,
                };
                bits | usize::from(holds) << nth
            })
        };
        let holds: Vec<usize> = (0..columns).map(holds).collect();
        let kernel = |set: Vec<usize>, class: usize| {
            let behinds = if holds[class] == 0 { 0 } else { holds[class] & program.asks(&set) };
            (set, behinds)
        };
        let mut states = States::new((Vec::new(), 0));
        states.number(kernel(vec![entry], classes.count))?;
        let starts = (0..columns).map(|class| states.number(kernel(vec![entry], class)));
        let starts: Vec<u16> = starts.collect::<Result<_, _>>()?;
        let mut entries = Vec::new();
        let mut state = 0;
        while state < states.sets.len() {
            let (set, behinds) = states.sets[state].clone();
            if entries.len() > MAX_ENTRIES {
                return Err(NotRegular("too large a table"));
            }
            for column in 0..stride {
                let (class, aheads) = (column % columns, column / columns);
                let mut steps = program.close(&set, classes, class, Holds { aheads, behinds });
                let end = steps.iter().position(|&at| matches!(program.0[at], Step::Match));
                if let Some(end) = end {
                    steps.truncate(end); // the rest has lower priority
                }
                let matched = if end.is_some() { MATCHED } else { 0 };
                entries.push(states.number(kernel(program.read(&steps, classes, class), class))? | matched);
            }
            state += 1;
        }
        let row = |&entry: &u16| {
            let matched = if entry & MATCHED != 0 { ROW_MATCHED } else { 0 };
            (u32::from(entry & !MATCHED) * stride as u32) | matched
        };
        let rows = entries.iter().map(row).collect();
        let looks_behind = starts.iter().any(|&start| start != START);
        Ok(Self { entries, rows, starts, looks_behind, stride, columns })
    }

    /// The state before a match behind a character of a class (the class count: at the start of the text).
    pub fn start(&self, before: usize) -> u16 {
        self.starts[before]
    }

    /// The different states before a match.
    pub fn starts(&self) -> Vec<u16> {
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// True if it matters for a match what stands before it.
    pub fn looks_behind(&self) -> bool {
        self.looks_behind
    }

    /// The entry for a class (the class count: the end of the text), with no look-ahead bits.
    #[inline]
    pub fn entry(&self, state: u16, class: usize) -> u16 {
        self.entries[usize::from(state) * self.stride + class]
    }

    /// By class: no match begins with it, not even an empty one, whatever stands around it.
    pub fn foreign(&self, classes: &Classes) -> Vec<bool> {
        let starts = self.starts();
        let dead = |column| starts.iter().all(|&start| self.entry(start, column) == DEAD);
        (0..classes.count).map(|class| (class..self.stride).step_by(self.columns).all(dead)).collect()
    }

    /// True if a match starts at every character of the other classes, whatever stands around it.
    pub fn covers(&self, classes: &Classes, foreign: &[bool]) -> bool {
        let starts = self.starts();
        let columns = |class| (class..self.stride).step_by(self.columns);
        (0..classes.count).filter(|&class| !foreign[class]).flat_map(columns).all(|column| {
            starts.iter().all(|&start| {
                let entry = self.entry(start, column);
                let matched = (0..self.stride).all(|next| self.entry(entry & !MATCHED, next) & MATCHED != 0);
                entry & MATCHED == 0 && entry != DEAD && matched
            })
        })
    }

    /// True if a match may begin before a character of a class, where the look-ahead bits are these.
    pub fn begins(&self, class: usize, looks: usize) -> bool {
        self.starts.iter().any(|&start| self.entry(start, class + looks * self.columns) != DEAD)
    }

    /// By class of two neighbours, `left * classes + right`: how a place between them parts a text.
    pub fn joints(&self, classes: &Classes, aheads: &[Backwards], foreign: &[bool]) -> Vec<Joint> {
        let (count, states) = (classes.count, self.states());
        let (looks, starts) = (self.stride / self.columns, self.starts());
        let entry = |state: usize, class: usize, looks: usize| {
            self.entries[state * self.stride + looks * self.columns + class]
        };
        let mut joints = vec![Joint::None; count * count];
        for left in 0..count {
            if self.start(left) != START {
                continue; // what is to the right sees it
            }
            let mut after = vec![false; states];
            for state in usize::from(START)..states {
                for looks in 0..looks {
                    after[usize::from(entry(state, left, looks) & !MATCHED)] = true;
                }
            }
            after[usize::from(DEAD)] = false;
            let after: Vec<usize> = (0..states).filter(|&state| after[state]).collect();
            // Every character of the class is in some match.
            let begins = |&start: &u16| {
                (0..looks).all(|looks| entry(usize::from(start), left, looks) & !MATCHED != DEAD)
            };
            let taken = !foreign.get(left).is_some_and(|&foreign| foreign) && starts.iter().all(begins);
            for right in 0..count {
                let (mut apart, mut ends) = (true, taken);
                for (&state, looks) in
                    after.iter().flat_map(|state| (0..looks).map(move |looks| (state, looks)))
                {
                    let (next, end) = (entry(state, right, looks), entry(state, count, looks));
                    apart &= next & !MATCHED == DEAD && (next ^ end) & MATCHED == 0;
                    ends &= next & MATCHED != 0;
                }
                if apart && aheads.iter().all(|ahead| ahead.is_apart(classes, right)) {
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

    /// The row of the state before a match at `start`.
    #[inline]
    fn start_row(&self, classes: &Classes, span: &Span, start: usize) -> usize {
        if self.looks_behind && start > span.base {
            usize::from(self.starts[classes.before(span.text, start)]) * self.stride
        } else {
            usize::from(START) * self.stride
        }
    }

    /// The end of the match that starts at `start`.
    #[inline]
    pub fn run(&self, classes: &Classes, span: &Span, start: usize, vain: &mut Vain) -> Option<usize> {
        let text = span.text;
        let (mut row, mut at, mut end) = (self.start_row(classes, span, start), start, usize::MAX);
        if !span.aheads.is_empty() || vain.is_known(start) {
            return self.run_far(classes, span, vain, (row, at, end));
        }
        let rows = &self.rows[..];
        let near = &text[..text.len().min(start + NEAR)];
        while let Some(&byte) = near.get(at) {
            vain.step();
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
        self.run_far(classes, span, vain, (row, at, end))
    }

    /// Goes on with a match from a row, a place and the end so far. What leads nowhere is noted, and what is known to
    /// lead nowhere is not read again: a rule may read to the end of the text before each of its pieces.
    #[inline(never)]
    fn run_far(
        &self,
        classes: &Classes,
        span: &Span,
        vain: &mut Vain,
        (mut row, mut at, mut end): (usize, usize, usize),
    ) -> Option<usize> {
        let text = span.text;
        vain.begin(at);
        loop {
            vain.step();
            if vain.leads_nowhere(row, at) {
                break;
            }
            let aheads = span.aheads.get(at - span.base).map_or(0, |&bits| usize::from(bits) * self.columns);
            let (class, width) =
                if at < text.len() { classes.at(text, at) } else { (classes.count as u8, 1) };
            let entry = self.rows[row + aheads + usize::from(class)];
            let next = (entry & !ROW_MATCHED) as usize;
            if entry & ROW_MATCHED != 0 {
                end = at;
                vain.matched();
                if next == row && width == 1 && span.aheads.is_empty() {
                    // A byte that leads from a state to itself is not read again and again.
                    let same = |word: &[u8]| *word == [text[at]; 16];
                    at += text[at + 1..].chunks_exact(16).take_while(|word| same(word)).count() * 16;
                    end = at;
                }
            }
            row = next;
            if row == 0 || at >= text.len() {
                break;
            }
            at += width;
        }
        vain.end(at);
        (end != usize::MAX).then_some(end)
    }

    /// The end of the match that starts at `start`, or `None` if text after the end could change it.
    pub fn run_settled(
        &self,
        classes: &Classes,
        text: &[u8],
        start: usize,
        vain: &mut Vain,
    ) -> Option<Option<usize>> {
        let (mut row, mut at, mut end) = (usize::from(START) * self.stride, start, None);
        vain.begin(at);
        while at < text.len() {
            vain.step();
            if vain.leads_nowhere(row, at) {
                row = 0;
            } else {
                let (class, width) = classes.at(text, at);
                let entry = self.rows[row + usize::from(class)];
                if entry & ROW_MATCHED != 0 {
                    end = Some(at);
                    vain.matched();
                }
                row = (entry & !ROW_MATCHED) as usize;
                at += width;
            }
            if row == 0 {
                vain.end(at);
                return Some(end);
            }
        }
        None
    }
}

/// What a rule sees of a text: all before its end, from `base` on.
#[derive(Clone, Copy)]
pub struct Span<'a> {
    /// The text up to the end.
    pub text: &'a [u8],
    /// Where it begins.
    pub base: usize,
    /// Look-ahead bits of each position from `base` on; empty: none of them holds anywhere.
    pub aheads: &'a [u8],
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
            let mut set = program.close(&kernel, classes, next, Holds::default());
            set.sort_unstable();
            (set, 0)
        };
        let mut states = States::new(close(Vec::new(), classes.count));
        let (mut next, mut accepts) = (Vec::new(), Vec::new());
        let mut state = 0;
        while state < states.sets.len() {
            let (set, _) = states.sets[state].clone();
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

    /// True if no text that begins with a character of the class makes a difference to what stands before it.
    fn is_apart(&self, classes: &Classes, class: usize) -> bool {
        self.next.iter().skip(class).step_by(classes.count).all(|&state| state == 0)
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

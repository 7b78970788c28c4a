//! How threads move through JSON objects and arrays.

use crate::grammar::automaton::DEAD;
use crate::grammar::chars::{any_scalar, decode, possible, Decoded, Spelling, BOUNDARY};
use crate::grammar::words::{NO_WORD, OFF};
use crate::grammar::{has_byte, Array, Choice, Grammar, Node, NodeId, Object, Unique, NO_NODE, UNBOUNDED};
use crate::mask::recognizer::{
    at, is_space, Frame, Recognizer, Thread, AFTER, COLON, COMMA, COMPARED, KEY, OFF_TRIE, OPEN, VALUE,
};

impl Recognizer {
    pub(super) fn step_array(
        &mut self,
        grammar: &Grammar,
        array: &Array,
        thread: Thread,
        byte: u8,
        out: &mut Vec<Thread>,
    ) {
        let Thread { top, parent } = thread;
        let phase = top.phase();
        if phase == 0 {
            return out.push(Thread { top: Frame { state: at(OPEN, 0), ..top }, parent });
        }
        if is_space(byte) {
            if top.position() < grammar.space {
                out.push(Thread { top: Frame { state: top.state + 1, ..top }, parent });
            }
            return;
        }
        match (phase, byte) {
            (OPEN | AFTER, b']') if array.may_close(&top) => self.pop(parent, out),
            (AFTER, b',') if top.count < array.max && array.open_choices(&top).next().is_some() => {
                out.push(Thread { top: Frame { state: at(COMMA, 0), ..top }, parent });
            }
            (OPEN | COMMA, _) if top.count < array.max => {
                for choice in array.open_choices(&top) {
                    let node = choice.node;
                    if has_byte(&grammar.first[node as usize], byte) {
                        let after = array.after(&top, choice.counts);
                        let below = self.push(after, parent);
                        let kind = if array.unique == Unique::Strings { COMPARED } else { 0 };
                        let top = Frame { kind, ..Frame::start(node) };
                        self.step(grammar, Thread { top, parent: below }, byte, out);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn step_object(
        &mut self,
        grammar: &Grammar,
        object: &Object,
        thread: Thread,
        byte: u8,
        out: &mut Vec<Thread>,
    ) {
        let Thread { top, parent } = thread;
        let phase = top.phase();
        if phase == KEY {
            return self.step_key(object, thread, byte, out);
        }
        if phase == 0 {
            let seen = if object.bit_words() == 1 {
                0
            } else {
                u64::from(self.intern_set(vec![0; object.bit_words()].into()))
            };
            return out.push(Thread { top: Frame { state: at(OPEN, 0), seen, ..top }, parent });
        }
        if is_space(byte) {
            if top.position() < grammar.space {
                out.push(Thread { top: Frame { state: top.state + 1, ..top }, parent });
            }
            return;
        }
        match (phase, byte) {
            (OPEN | AFTER, b'}') if top.count >= object.min && self.missing(object, &top) == 0 => {
                self.pop(parent, out);
            }
            (AFTER, b',') => {
                let comma = Frame { state: at(COMMA, 0), ..top };
                if self.any_key(object, &top) {
                    out.push(Thread { top: comma, parent });
                }
            }
            (OPEN | COMMA, b'"') => self.open_keys(object, thread, out),
            (COLON, b':') => out.push(Thread { top: Frame { state: at(VALUE, 0), ..top }, parent }),
            (VALUE, _) => {
                let node = top.q;
                if has_byte(&grammar.first[node as usize], byte) {
                    let after = Frame { state: at(AFTER, 0), q: 0, ..top };
                    let below = self.push(after, parent);
                    self.step(grammar, Thread { top: Frame::start(node), parent: below }, byte, out);
                }
            }
            _ => {}
        }
    }

    /// A thread that stands behind a name or value, with what its object has seen told in two bits: whether it
    /// may close and whether another name may follow. While nothing is written of a further name, all
    /// threads of one brief form allow the same.
    pub fn brief(&self, grammar: &Grammar, thread: Thread) -> Option<Thread> {
        let top = thread.top;
        let Node::Object(object) = grammar.nodes.get(top.node as usize)? else { return None };
        if !matches!(top.phase(), COLON | VALUE | AFTER) {
            return None;
        }
        let close = top.count >= object.min && self.missing(object, &top) == 0;
        let seen = u64::from(close) | u64::from(self.any_key(object, &top)) << 1;
        // No count is as large: brief and other frames are never equal.
        Some(Thread { top: Frame { seen, count: u32::MAX, ..top }, ..thread })
    }

    /// The threads in which a name has just been opened.
    fn open_keys(&mut self, object: &Object, thread: Thread, out: &mut Vec<Thread>) {
        let Thread { top, parent } = thread;
        for (mode, keys) in object.modes.iter().enumerate() {
            if !self.mode_open(object, &top, mode) {
                continue;
            }
            let room = self.room(object, &top, mode);
            if self.declared_below(object, &top, mode, 0, room) {
                out.push(Thread {
                    top: Frame { state: at(KEY, 0), kind: (mode as u32) << 16, ..top },
                    parent,
                });
            }
            if room && object.order_allows_free(self, &top) {
                for (i, free) in keys.free.iter().enumerate() {
                    let q = free.automaton.map_or(0, |a| self.automata[a as usize].start());
                    let kind = (mode as u32) << 16 | (i as u32 + 1);
                    out.push(Thread { top: Frame { state: at(KEY, 0), q, kind, ..top }, parent });
                }
            }
        }
    }

    fn step_key(&mut self, object: &Object, thread: Thread, byte: u8, out: &mut Vec<Thread>) {
        self.named = true;
        let Thread { top, parent } = thread;
        let (mode, kind) = (top.mode(), top.kind_of_name());
        let position = top.position();
        let decoded = decode(top.partial, byte, Spelling::Json);
        if kind == 0 {
            let room = self.room(object, &top, mode);
            match decoded {
                Decoded::Char(c) => {
                    let next = object.keys.child(position, c);
                    if next != OFF && self.declared_below(object, &top, mode, next, room) {
                        out.push(Thread {
                            top: Frame { state: at(KEY, next), partial: BOUNDARY, ..top },
                            parent,
                        });
                    }
                }
                Decoded::More(partial) => {
                    let children = object.keys.children(position);
                    let live = possible(partial, |low, high| {
                        children.iter().any(|e| {
                            (low..=high).contains(&e.0) && self.declared_below(object, &top, mode, e.1, room)
                        })
                    });
                    if live {
                        out.push(Thread { top: Frame { partial, ..top }, parent });
                    }
                }
                Decoded::Close => {
                    let word = object.keys.word(position);
                    if word != NO_WORD && self.may_write(object, &top, mode, word, room) {
                        let next = self.with_name(
                            object,
                            &top,
                            mode,
                            Some(word),
                            object.modes[mode].values[word as usize],
                        );
                        out.push(Thread { top: next, parent });
                    }
                }
                Decoded::Dead => {}
            }
            return;
        }
        self.step_free_key(object, thread, decoded, out);
    }

    fn step_free_key(&mut self, object: &Object, thread: Thread, decoded: Decoded, out: &mut Vec<Thread>) {
        let Thread { top, parent } = thread;
        let (mode, position) = (top.mode(), top.position());
        let free = &object.modes[mode].free[top.kind_of_name() as usize - 1];
        match decoded {
            Decoded::Char(c) => {
                let q = match free.automaton {
                    Some(a) => self.automata[a as usize].step(top.q, c),
                    None => 0,
                };
                if free.automaton.is_some() && q == DEAD {
                    return;
                }
                let next = if position == OFF_TRIE { OFF } else { object.keys.child(position, c) };
                let position = if next == OFF { OFF_TRIE } else { next };
                let text = if self.exact && object.unique_free { self.intern_text(top.text, c) } else { 0 };
                out.push(Thread {
                    top: Frame { state: at(KEY, position), q, text, partial: BOUNDARY, ..top },
                    parent,
                });
            }
            Decoded::More(partial) => {
                let live = match free.automaton {
                    Some(a) => {
                        let automaton = &mut self.automata[a as usize];
                        possible(partial, |low, high| automaton.any_in(top.q, low, high))
                    }
                    None => possible(partial, any_scalar),
                };
                if live {
                    out.push(Thread { top: Frame { partial, ..top }, parent });
                }
            }
            Decoded::Close => {
                let declared = position != OFF_TRIE && object.keys.word(position) != NO_WORD;
                let accepted = free.automaton.is_none_or(|a| self.automata[a as usize].accepts(top.q));
                if declared || !accepted {
                    return;
                }
                let mut next = self.with_name(object, &top, mode, None, free.value);
                if self.exact && object.unique_free {
                    let word = u64::from(top.text);
                    let mut names = self.sets[top.names as usize].to_vec();
                    match names.binary_search(&word) {
                        Ok(_) => return,
                        Err(place) => names.insert(place, word),
                    }
                    next.names = self.intern_set(names.into());
                }
                out.push(Thread { top: next, parent });
            }
            Decoded::Dead => {}
        }
    }

    fn bit(&self, object: &Object, frame: &Frame, bit: usize) -> bool {
        let word =
            if object.bit_words() == 1 { frame.seen } else { self.sets[frame.seen as usize][bit / 64] };
        word >> (bit % 64) & 1 == 1
    }

    /// Number of obligations not met.
    fn missing(&self, object: &Object, frame: &Frame) -> u32 {
        if object.bit_words() == 1 {
            return (object.required[0] & !frame.seen).count_ones();
        }
        let seen = &self.sets[frame.seen as usize];
        object.required.iter().zip(&**seen).map(|(r, s)| (r & !s).count_ones()).sum()
    }

    /// The bits of the obligations that a mode meets.
    fn met_by(object: &Object, mode: usize) -> impl Iterator<Item = usize> + '_ {
        let (first, witnesses) = (object.keys.words().len(), object.modes[mode].witnesses);
        (0..32).filter(move |i| witnesses >> i & 1 == 1).map(move |i| first + i)
    }

    /// Obligations that a mode would meet and that are still open.
    fn newly_met(&self, object: &Object, frame: &Frame, mode: usize) -> u32 {
        if object.modes[mode].witnesses == 0 {
            return 0;
        }
        Self::met_by(object, mode).filter(|&bit| !self.bit(object, frame, bit)).count() as u32
    }

    /// A mode may be used: one that meets something new, or that some name is in whatever its value.
    fn mode_open(&self, object: &Object, frame: &Frame, mode: usize) -> bool {
        object.modes[mode].always || self.newly_met(object, frame, mode) > 0
    }

    /// True if a property that meets none of the open obligations still fits.
    pub(super) fn room(&self, object: &Object, frame: &Frame, mode: usize) -> bool {
        object.max == UNBOUNDED || {
            // A witness meets its own obligations.
            let missing = self.missing(object, frame) - self.newly_met(object, frame, mode);
            object.max - frame.count.min(object.max) > missing
        }
    }

    /// A declared name may be written now.
    fn may_write(&self, object: &Object, frame: &Frame, mode: usize, word: u32, room: bool) -> bool {
        let required = object.required[word as usize / 64] >> (word % 64) & 1 == 1;
        object.modes[mode].values[word as usize] != NO_NODE
            && !self.bit(object, frame, word as usize)
            && (room || required && frame.count < object.max)
            && object.order.as_ref().is_none_or(|order| self.in_order(object, order, frame, word))
    }

    /// Names come in the order of the schema: none before one that was written, none that skips a required one.
    fn in_order(&self, object: &Object, order: &[u32], frame: &Frame, word: u32) -> bool {
        let rank = order[word as usize];
        (0..object.keys.words().len()).all(|other| {
            let required = object.required[other / 64] >> (other % 64) & 1 == 1;
            let seen = self.bit(object, frame, other);
            !(seen && order[other] > rank || required && !seen && order[other] < rank)
        }) && frame.names == 0
    }

    /// Some declared name at or below a node of the trie may be written.
    pub(super) fn declared_below(
        &self,
        object: &Object,
        frame: &Frame,
        mode: usize,
        node: u32,
        room: bool,
    ) -> bool {
        let (low, high) = object.keys.range(node);
        (low..high).any(|word| self.may_write(object, frame, mode, word, room))
    }

    fn any_key(&self, object: &Object, frame: &Frame) -> bool {
        (0..object.modes.len()).any(|mode| {
            let room = self.room(object, frame, mode);
            self.mode_open(object, frame, mode)
                && (room && !object.modes[mode].free.is_empty() && object.order_allows_free(self, frame)
                    || self.declared_below(object, frame, mode, 0, room))
        })
    }

    /// The frame after the closing quote of a name.
    pub(super) fn with_name(
        &mut self,
        object: &Object,
        frame: &Frame,
        mode: usize,
        word: Option<u32>,
        value: NodeId,
    ) -> Frame {
        let mut seen = frame.seen;
        let bits = word.map(|w| w as usize).into_iter();
        for bit in bits.chain(Self::met_by(object, mode)) {
            if object.bit_words() == 1 {
                seen |= 1 << bit;
            } else {
                let mut set = self.sets[seen as usize].clone();
                set[bit / 64] |= 1 << (bit % 64);
                seen = u64::from(self.intern_set(set));
            }
        }
        let most = if object.max == UNBOUNDED { object.min } else { object.max };
        let count = (frame.count + 1).min(most);
        Frame {
            state: at(COLON, 0),
            seen,
            q: value,
            partial: BOUNDARY,
            count,
            text: 0,
            names: frame.names,
            kind: 0,
            node: frame.node,
        }
    }
}

impl Object {
    /// Free names come last where an order is kept, after all that is required.
    fn order_allows_free(&self, recognizer: &Recognizer, frame: &Frame) -> bool {
        self.order.is_none() || {
            let names = self.keys.words().len();
            (0..names).all(|i| self.required[i / 64] >> (i % 64) & 1 == 0 || recognizer.bit(self, frame, i))
        }
    }
}

impl Array {
    fn may_close(&self, frame: &Frame) -> bool {
        frame.count >= self.min && (self.unique == Unique::Values || self.counts_suffice(frame.seen))
    }

    /// The choices for the next item after which the array can still be completed.
    fn open_choices<'s>(&'s self, frame: &Frame) -> impl Iterator<Item = &'s Choice> + use<'s> {
        let frame = *frame;
        self.choices(frame.count).iter().filter(move |choice| {
            if self.unique == Unique::Values {
                return frame.seen >> choice.counts & 1 == 0;
            }
            let next = self.next_count(&frame);
            self.count(frame.seen, choice).is_some_and(|counts| self.can_end(next, counts))
        })
    }

    /// Items after one more, as far as it matters.
    fn next_count(&self, frame: &Frame) -> u32 {
        let most = if self.max == UNBOUNDED { self.min.max(self.prefix.len() as u32) } else { self.max };
        (frame.count + 1).min(most)
    }

    /// The frame after one more item.
    fn after(&self, frame: &Frame, counts: u32) -> Frame {
        let seen = if self.unique == Unique::Values {
            frame.seen | 1 << counts
        } else {
            self.count(frame.seen, &Choice { node: 0, counts }).unwrap_or(frame.seen)
        };
        Frame { state: at(AFTER, 0), count: self.next_count(frame), seen, ..*frame }
    }
}

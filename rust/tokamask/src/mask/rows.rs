//! Mask rows: which tokens a thread allows, by a walk of the vocabulary's trie with tables for runs of
//! one class, kept by the frames that the walk looked at.

mod fronts;
mod names;
mod places;
mod repeats;
mod texts;

pub use texts::text_row;

use std::sync::Arc;

use fronts::Fronts;
use rustc_hash::FxHashMap;

use crate::grammar::chars::{decode, possible, CharSet, Decoded, Spelling, BOUNDARY};
use crate::grammar::words::{WordTrie, NO_WORD, OFF};
use crate::grammar::{has_byte, Grammar, Node, UNBOUNDED};
use crate::mask::ageing::{Ageing, Weigh};
use crate::mask::lexer::TextRow;
use crate::mask::memo::Memo;
use crate::mask::recognizer::{Frame, Recognizer, Thread, DONE, OFF_TRIE};
use crate::mask::runs::Staying;
use crate::mask::tables::{Lexicon, Table, LARGE_SUBTREE, MIN_SUBTREE, OPENING_SUBTREE};
use crate::vocabulary::trie::TokenTrie;
use crate::vocabulary::Vocabulary;

/// What one thread allows: shared rows and single ids.
#[derive(Clone, Default)]
pub struct MaskRow {
    bases: Vec<Arc<[u32]>>,
    ids: Vec<u32>,
    /// Those of `ids` that hold a whole name.
    suspects: Vec<u32>,
    /// The thread may end here.
    ends: bool,
}

impl MaskRow {
    /// Writes the row, or adds it to what is there.
    pub fn write(&self, out: &mut [u32], fresh: bool) {
        let mut bases = self.bases.iter();
        if fresh {
            match bases.next() {
                Some(base) => out.copy_from_slice(base),
                None => out.fill(0),
            }
        }
        for base in bases {
            out.iter_mut().zip(base.iter()).for_each(|(o, b)| *o |= b);
        }
        for &id in &self.ids {
            out[id as usize / 32] |= 1 << (id % 32);
        }
    }

    /// True if the thread may end here.
    pub fn ends(&self) -> bool {
        self.ends
    }
}

impl Weigh for MaskRow {
    fn weight(&self) -> usize {
        (self.ids.capacity() + self.suspects.capacity()) * 4 + self.bases.len() * 16 + 96
    }
}

enum Cut {
    Row(Arc<MaskRow>),
    /// The row depends on so many frames below the top.
    Deeper(usize),
}

/// What is fixed while rows are computed.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// The grammar.
    pub grammar: &'a Grammar,
    /// The vocabulary's trie and tables.
    pub lexicon: &'a Lexicon,
    /// The vocabulary.
    pub vocabulary: &'a Vocabulary,
    /// False: walk the trie byte by byte, for comparison.
    pub tables: bool,
}

/// JSON's white space, as a set of bytes.
const SPACES: [u64; 4] = [1 << b' ' | 1 << b'\n' | 1 << b'\r' | 1 << b'\t', 0, 0, 0];

/// Places in [`Lexicon::after_quote`], as bits.
type Places = Arc<[u64]>;

/// Rows of one compiled grammar.
pub struct Rows {
    memo: Memo<Arc<MaskRow>>,
    /// Rows of grammars with rules: by the top and a cut of what is below.
    cuts: FxHashMap<(Frame, u64), Cut>,
    /// Rows of grammars of rules and texts alone.
    fronts: Fronts,
    /// The row of a text that may only end.
    end: Arc<MaskRow>,
    /// Threads that tables have served at the node being walked, with the bytes that lead to them.
    served: Vec<([u64; 4], Thread)>,
    /// What may follow a closing quote.
    after: Memo<Places>,
    /// By trie node, automaton and its state.
    texts: Ageing<(u32, u32, u32), Arc<TextRow>>,
    /// By trie node and what a row depends on in the top frame.
    counted_texts: Ageing<(u32, Frame), Arc<TextRow>>,
    buffer: Vec<Thread>,
    bytes: usize,
    full: Arc<CharSet>,
    /// Classes by address; the sets live as long as the grammar or the recognizer.
    classes: FxHashMap<usize, (Arc<CharSet>, u32)>,
    tables: FxHashMap<(u32, u32, Spelling), Arc<Table>>,
    /// Names that have occurred, as tries, with the tokens that hold one of them.
    names: FxHashMap<u32, Arc<(WordTrie, Vec<u32>)>>,
    /// By a set of names and a place in their trie: the tokens that end one of them.
    endings: FxHashMap<(u32, u32), Arc<[u32]>>,
    /// Rows inside strings, by what they say: see [`Self::string_key`].
    strings: FxHashMap<StringKey, Arc<MaskRow>>,
    /// Numbers of what may follow a closing quote.
    place_ids: FxHashMap<Places, u32>,
}

/// What the text may be, what is left of its counts or its state, and what may follow its quote.
type StringKey = (usize, u32, u32);

impl Default for Rows {
    fn default() -> Self {
        Self {
            memo: Memo::default(),
            cuts: FxHashMap::default(),
            fronts: Fronts::default(),
            end: Arc::new(MaskRow { ends: true, ..MaskRow::default() }),
            served: Vec::new(),
            after: Memo::default(),
            texts: Ageing::default(),
            counted_texts: Ageing::default(),
            buffer: Vec::new(),
            bytes: 0,
            full: Arc::new(CharSet::all()),
            classes: FxHashMap::default(),
            tables: FxHashMap::default(),
            names: FxHashMap::default(),
            endings: FxHashMap::default(),
            strings: FxHashMap::default(),
            place_ids: FxHashMap::default(),
        }
    }
}

impl Rows {
    /// The rows whose union is that of a thread.
    pub fn collect(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
        out: &mut Vec<Arc<MaskRow>>,
    ) {
        let in_rule = thread.top.node != DONE
            && matches!(ground.grammar.nodes[thread.top.node as usize], Node::Rule(_));
        if !in_rule || !ground.tables || self.fronts.serve(ground.grammar) {
            out.push(self.row(ground, recognizer, thread));
            return;
        }
        // Between two texts: each that may begin has a row of its own, which many places share.
        let expansion = recognizer.expand(ground.grammar, thread);
        for &(node, below) in &expansion.starts {
            out.push(self.row(ground, recognizer, Thread { top: Frame::start(node), parent: below }));
        }
        for &other in &expansion.others {
            out.push(self.row(ground, recognizer, other));
        }
        if recognizer.accepts(ground.grammar, thread) {
            out.push(Arc::clone(&self.end));
        }
    }

    /// The row of a thread.
    fn row(&mut self, ground: Ground<'_>, recognizer: &mut Recognizer, thread: Thread) -> Arc<MaskRow> {
        if ground.grammar.merges {
            let row = self.row_in_rules(ground, recognizer, thread);
            if !ground.grammar.objects {
                return row;
            }
            return self.without_repeats(ground, recognizer, thread, row);
        }
        let row = self.plain_row(ground, recognizer, thread);
        self.without_repeats(ground, recognizer, thread, row)
    }

    /// As [`Self::plain_row`] where stacks may be groups: the key is the top and a cut of what is below.
    fn row_in_rules(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
    ) -> Arc<MaskRow> {
        let top = recognizer.row_key(ground.grammar, thread);
        let mut depth = 0;
        let mut key = (top, recognizer.stacks.cut(thread.parent, depth));
        while let Some(entry) = self.cuts.get(&key) {
            match entry {
                Cut::Row(row) => return Arc::clone(row),
                Cut::Deeper(next) => depth = *next,
            }
            key = (top, recognizer.stacks.cut(thread.parent, depth));
        }
        let (row, touched) = self.compute(ground, recognizer, thread);
        if touched > depth {
            self.cuts.insert(key, Cut::Deeper(touched));
            key = (top, recognizer.stacks.cut(thread.parent, touched));
        }
        self.bytes += row.weight();
        self.cuts.insert(key, Cut::Row(Arc::clone(&row)));
        row
    }

    /// The row of a thread and how many frames below the top it depends on.
    fn compute(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        thread: Thread,
    ) -> (Arc<MaskRow>, usize) {
        recognizer.stacks.watch(thread.parent);
        if ground.tables && self.fronts.serve(ground.grammar) {
            let row = self.fronts.row(ground, recognizer, thread);
            return (row, recognizer.stacks.unwatch());
        }
        recognizer.exact = false;
        let key = if ground.tables { self.string_key(ground, recognizer, thread) } else { None };
        if let Some(row) = key.and_then(|key| self.strings.get(&key)) {
            recognizer.exact = true;
            return (Arc::clone(row), recognizer.stacks.unwatch());
        }
        let mut row = MaskRow::default();
        self.walk(ground, recognizer, 0, thread, &mut row);
        row.ends = recognizer.accepts(ground.grammar, thread);
        recognizer.exact = true;
        row.ids.shrink_to_fit();
        if ground.grammar.objects {
            row.suspects.extend(row.ids.iter().filter(|&&id| ground.lexicon.holds_name(id)));
        }
        let (row, touched) = (Arc::new(row), recognizer.stacks.unwatch());
        if let Some(key) = key {
            self.bytes += row.weight();
            self.strings.insert(key, Arc::clone(&row));
        }
        (row, touched)
    }

    /// The row of a thread, names that occur twice not excluded.
    fn plain_row(&mut self, ground: Ground<'_>, recognizer: &mut Recognizer, thread: Thread) -> Arc<MaskRow> {
        if let Some((row, _)) = self.memo.find(ground.grammar, recognizer, thread) {
            return row;
        }
        let (row, touched) = self.compute(ground, recognizer, thread);
        self.memo.file(ground.grammar, recognizer, thread, touched, Arc::clone(&row));
        row
    }

    /// Adds the tokens below a trie node that `thread`, standing there, allows.
    fn walk(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        row: &mut MaskRow,
    ) {
        let trie = &ground.lexicon.trie;
        let size = trie.end(node) - node;
        if size == 1 {
            return;
        }
        if ground.tables && self.walk_words(ground, recognizer, node, thread, row) {
            return;
        }
        if ground.tables && size > MIN_SUBTREE {
            if self.walk_string(ground, recognizer, node, thread, row) {
                return;
            }
            if node == 0 && self.walk_space(ground, recognizer, thread, row) {
                return;
            }
            if let Some(run) = recognizer.staying(ground.grammar, thread, &self.full) {
                // Below the root, patterns meet many classes once each: then a table does not pay.
                if node == 0 || size > LARGE_SUBTREE || run.class == self.full {
                    return self.walk_run(ground, recognizer, node, thread, &run, row);
                }
            }
        }
        let mut served = Vec::new();
        if ground.tables && ground.grammar.merges && size > OPENING_SUBTREE {
            self.walk_openings(ground, recognizer, node, thread, row, &mut served);
        }
        let before = std::mem::replace(&mut self.served, served);
        self.children(ground, recognizer, trie, node, thread, None, (0, UNBOUNDED), row);
        self.served = before;
    }

    /// Serves names and the like, which may begin here, from tables; `served` says what not to walk.
    fn walk_openings(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        row: &mut MaskRow,
        served: &mut Vec<([u64; 4], Thread)>,
    ) {
        let mut beginnings = Vec::new();
        recognizer.beginnings(ground.grammar, thread, &mut beginnings);
        for (start, below) in beginnings {
            let Some(opening) = recognizer.opening(ground.grammar, start) else { continue };
            let inside = thread.top.node != DONE && thread.top.state != 0;
            let free = (0..128u8).filter(|&b| has_byte(&opening.bytes, b));
            if inside && !free.clone().all(|b| recognizer.may_follow(ground.grammar, &thread.top, b)) {
                continue;
            }
            let leaving = Thread { top: opening.top, parent: below };
            if served.iter().any(|s| s.1 == leaving) {
                continue;
            }
            let table = ground.lexicon.table_after(ground.vocabulary, node, &opening.first, &opening.class);
            match table.base(UNBOUNDED, ground.lexicon.words) {
                Some(base) => row.bases.push(base),
                None => row.ids.extend(table.inside(UNBOUNDED).iter().map(|i| i.id)),
            }
            let mut next = recognizer.next_bytes(ground.grammar, leaving);
            next.iter_mut().zip(table.leaving()).for_each(|(n, l)| *n &= l);
            for byte in bytes_of(next) {
                let exits = table.exits(ground.vocabulary, byte);
                self.children(ground, recognizer, &exits, 0, leaving, None, (0, UNBOUNDED), row);
            }
            served.push((opening.bytes, leaving));
        }
    }

    /// The part of `walk` below each child. `inside` are bytes that a table has served; `exits` tries
    /// go on without tables, and their items count only within the bounds.
    #[allow(clippy::too_many_arguments)]
    fn children(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        trie: &TokenTrie,
        node: u32,
        thread: Thread,
        inside: Option<&[u64; 4]>,
        bounds: (u32, u32),
        row: &mut MaskRow,
    ) {
        let children = trie.children(node);
        let mut next =
            if children.len() > 2 { recognizer.next_bytes(ground.grammar, thread) } else { [u64::MAX; 4] };
        if let Some(inside) = inside {
            next.iter_mut().zip(inside).for_each(|(n, i)| *n &= !i);
        }
        self.children_among(ground, recognizer, trie, node, thread, next, bounds, row);
    }

    /// As [`Self::children`] for the bytes of a set.
    #[allow(clippy::too_many_arguments)]
    fn children_among(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        trie: &TokenTrie,
        node: u32,
        thread: Thread,
        next: [u64; 4],
        bounds: (u32, u32),
        row: &mut MaskRow,
    ) {
        let children = trie.children(node);
        let few: u32 = next.iter().map(|n| n.count_ones()).sum();
        if few as usize * 8 < children.len() {
            for byte in bytes_of(next) {
                if let Some(child) = trie.child(node, byte) {
                    self.child(ground, recognizer, trie, (byte, child), thread, bounds, row);
                }
            }
            return;
        }
        for &(byte, child) in children {
            if has_byte(&next, byte) {
                self.child(ground, recognizer, trie, (byte, child), thread, bounds, row);
            }
        }
    }

    /// The part of `walk` below one child.
    #[allow(clippy::too_many_arguments)]
    fn child(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        trie: &TokenTrie,
        (byte, child): (u8, u32),
        thread: Thread,
        bounds: (u32, u32),
        row: &mut MaskRow,
    ) {
        let main = std::ptr::eq(trie, &raw const ground.lexicon.trie);
        let from = self.buffer.len();
        let mut buffer = std::mem::take(&mut self.buffer);
        recognizer.step(ground.grammar, thread, byte, &mut buffer);
        self.buffer = buffer;
        if self.served.is_empty() {
            return self.below(ground, recognizer, trie, (main, child), from, bounds, row);
        }
        let served = std::mem::take(&mut self.served);
        let mut k = from;
        while k < self.buffer.len() {
            if served.iter().any(|s| s.1 == self.buffer[k] && has_byte(&s.0, byte)) {
                self.buffer.remove(k);
            } else {
                k += 1;
            }
        }
        self.below(ground, recognizer, trie, (main, child), from, bounds, row);
        self.served = served;
    }

    /// Goes on at a trie node with the threads in the buffer from place `from` on.
    #[allow(clippy::too_many_arguments)]
    fn below(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        trie: &TokenTrie,
        (main, child): (bool, u32),
        from: usize,
        bounds: (u32, u32),
        row: &mut MaskRow,
    ) {
        if ground.grammar.merges {
            recognizer.stacks.join_threads(&mut self.buffer, from);
        }
        let to = self.buffer.len();
        if to > from {
            let items = trie.items(child).iter().filter(|i| i.chars >= bounds.0 && i.chars <= bounds.1);
            row.ids.extend(items.map(|item| item.id));
        }
        for i in from..to {
            let next = self.buffer[i];
            if self.buffer[from..i].contains(&next) {
                continue;
            }
            if main {
                self.walk(ground, recognizer, child, next, row);
            } else {
                self.children(ground, recognizer, trie, child, next, None, bounds, row);
            }
        }
        self.buffer.truncate(from);
    }

    fn table(&mut self, ground: Ground<'_>, node: u32, run: &Staying) -> Arc<Table> {
        let address = Arc::as_ptr(&run.class) as usize;
        let number = || (Arc::clone(&run.class), ground.lexicon.class(&run.class));
        let id = self.classes.entry(address).or_insert_with(number).1;
        let make = || ground.lexicon.table(ground.vocabulary, node, id, &run.class, run.spelling);
        Arc::clone(self.tables.entry((node, id, run.spelling)).or_insert_with(make))
    }

    fn walk_run(
        &mut self,
        ground: Ground<'_>,
        recognizer: &mut Recognizer,
        node: u32,
        thread: Thread,
        run: &Staying,
        row: &mut MaskRow,
    ) {
        let table = self.table(ground, node, run);
        if run.max > 0 {
            match table.base(run.max, ground.lexicon.words) {
                Some(base) => row.bases.push(base),
                None => row.ids.extend(table.inside(run.max).iter().map(|i| i.id)),
            }
        }
        let hidden = declared_exits(ground, node, thread);
        let from = row.ids.len();
        if run.branching {
            for item in table.beyond(run.max) {
                if allows(ground, recognizer, thread, item.id, table.depth()) {
                    row.ids.push(item.id);
                }
            }
            let whole = table.whole(ground.vocabulary);
            self.children(ground, recognizer, whole, 0, thread, None, (0, UNBOUNDED), row);
        } else {
            let leaving = Recognizer::leaving(ground.grammar, thread);
            if !table.closers().is_empty() && has_byte(&recognizer.next_bytes(ground.grammar, leaving), b'"')
            {
                let mut after = Vec::new();
                recognizer.step(ground.grammar, leaving, b'"', &mut after);
                for closed in after {
                    let places = self.after(ground, recognizer, closed);
                    let fits = table.closers().iter().filter(|(place, item)| {
                        item.chars >= run.min && item.chars <= run.max && has_place(&places, *place)
                    });
                    row.ids.extend(fits.map(|c| c.1.id));
                }
            }
            let mut next = if run.closing { [0; 4] } else { recognizer.next_bytes(ground.grammar, leaving) };
            next.iter_mut().zip(table.leaving()).for_each(|(n, l)| *n &= l);
            for byte in bytes_of(next) {
                let exits = table.exits(ground.vocabulary, byte);
                self.children(ground, recognizer, &exits, 0, leaving, None, (run.min, run.max), row);
            }
        }
        if !hidden.is_empty() {
            let kept = row.ids.split_off(from);
            row.ids.extend(kept.into_iter().filter(|id| hidden.binary_search(id).is_err()));
        }
        if !run.closing {
            // Nothing else begins a character of a string that only its quote ends.
            let (trie, inside) = (&ground.lexicon.trie, Some(table.entering()));
            self.children(ground, recognizer, trie, node, thread, inside, (0, UNBOUNDED), row);
        }
    }

    /// Bytes that the rows take.
    pub fn bytes(&self) -> usize {
        self.cut_bytes()
            + self.memo.bytes()
            + self.after.bytes()
            + self.texts.bytes()
            + self.counted_texts.bytes()
    }

    /// Bytes of what was made or asked for since the last [`Self::age`].
    pub fn young_bytes(&self) -> usize {
        self.cut_bytes()
            + self.memo.young_bytes()
            + self.after.young_bytes()
            + self.texts.young_bytes()
            + self.counted_texts.young_bytes()
    }

    fn cut_bytes(&self) -> usize {
        self.bytes + self.fronts.bytes() + self.cuts.len() * 2 * std::mem::size_of::<((Frame, u64), Cut)>()
    }

    /// Forgets what was not asked for lately. Cuts are numbers that [`Recognizer::forget`] gives anew, so
    /// rows of grammars with rules are all forgotten.
    pub fn age(&mut self) {
        self.memo.age();
        self.cuts = FxHashMap::default();
        self.after.age();
        self.texts.age();
        self.counted_texts.age();
        self.names = FxHashMap::default();
        self.endings = FxHashMap::default();
        self.tables = FxHashMap::default();
        self.strings = FxHashMap::default();
        self.place_ids = FxHashMap::default();
        self.fronts = Fronts::default();
        self.bytes = 0;
    }
}

/// The bytes of a set, ascending.
fn bytes_of(set: [u64; 4]) -> impl Iterator<Item = u8> {
    (0..4).flat_map(move |k| {
        let mut word = set[k];
        std::iter::from_fn(move || {
            let byte = (word != 0).then(|| (k * 64) as u8 + word.trailing_zeros() as u8);
            word &= word.wrapping_sub(1);
            byte
        })
    })
}

fn has_place(places: &[u64], place: u32) -> bool {
    places[place as usize / 64] >> (place % 64) & 1 == 1
}

/// True if `thread` allows a token from some byte on.
fn allows(ground: Ground<'_>, recognizer: &mut Recognizer, thread: Thread, id: u32, from: u32) -> bool {
    let bytes = ground.vocabulary.bytes(id.into()).unwrap_or_default();
    let (mut now, mut after) = (vec![thread], Vec::new());
    for &byte in &bytes[from as usize..] {
        after.clear();
        for &thread in &now {
            recognizer.step(ground.grammar, thread, byte, &mut after);
        }
        std::mem::swap(&mut now, &mut after);
    }
    !now.is_empty()
}

/// In a free name: tokens that would close it as a declared one.
fn declared_exits(ground: Ground<'_>, node: u32, thread: Thread) -> Vec<u32> {
    let top = thread.top;
    match &ground.grammar.nodes[top.node as usize] {
        Node::Object(object) if top.position() != OFF_TRIE && !object.keys.words().is_empty() => {
            closing(&ground.lexicon.trie, node, &object.keys, top.position())
        }
        _ => Vec::new(),
    }
}

/// Tokens below `node` that spell the rest of a word, from `at` on, and its closing quote; sorted.
fn closing(trie: &TokenTrie, node: u32, words: &WordTrie, at: u32) -> Vec<u32> {
    let mut out = Vec::new();
    let mut todo = vec![(node, at, BOUNDARY)];
    while let Some((node, at, partial)) = todo.pop() {
        for &(byte, child) in trie.children(node) {
            match decode(partial, byte, Spelling::Json) {
                Decoded::Char(c) => {
                    let next = words.child(at, c);
                    if next != OFF {
                        todo.push((child, next, BOUNDARY));
                    }
                }
                Decoded::More(p)
                    if possible(p, |low, high| {
                        words.children(at).iter().any(|e| (low..=high).contains(&e.0))
                    }) =>
                {
                    todo.push((child, at, p));
                }
                Decoded::Close if words.word(at) != NO_WORD => {
                    out.extend(trie.items_below(child).iter().map(|i| i.id));
                }
                _ => {}
            }
        }
    }
    out.sort_unstable();
    out
}

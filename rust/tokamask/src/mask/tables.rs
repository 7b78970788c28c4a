//! What tokens do to a run of one character class, computed once for a vocabulary.
//!
//! Most states of text stay where they are under a large class of characters: the inside of a string,
//! a name, the digits of a number. For such a class a table says which tokens stay inside (by their
//! number of characters) and which leave it, and where. The row of a state is then a shared base row
//! and a walk of what follows the leaving byte.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustc_hash::FxHashMap;

use crate::grammar::add_byte;
use crate::grammar::chars::{blocks, decode, possible, CharSet, Decoded, Spelling, BOUNDARY, SPECIAL};
use crate::mask::ageing::{Ageing, Weigh};
use crate::mask::inside::Inside;
use crate::mask::lexer::TextRow;
use crate::mask::recognizer::is_space;
use crate::mask::store;
use crate::vocabulary::trie::{Item, TokenTrie};
use crate::vocabulary::Vocabulary;

/// Subtrees with fewer nodes are walked: a table would cost more than it saves.
pub const MIN_SUBTREE: u32 = 64;
/// Below the root, tables of other classes than that of all characters need so many nodes.
pub const LARGE_SUBTREE: u32 = 2_000;
/// Subtrees with fewer nodes are walked where a name may begin.
pub const OPENING_SUBTREE: u32 = 200;
/// Classes with fewer characters are walked.
pub const MIN_CLASS: usize = 10;
/// Bytes that the tables of one vocabulary may take, those of first characters as much again, and the rows of
/// automata that all grammars share as well. What a grammar uses stays as long as it uses it.
pub const TABLE_BYTES: usize = 96 << 20;
/// Rows with fewer ids are written one by one.
pub const MIN_BASE: usize = 200;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is valid after every operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Characters that begin in a token.
fn characters(bytes: &[u8]) -> u32 {
    bytes.iter().filter(|&&b| b & 0xc0 != 0x80).count() as u32
}

/// Texts between two quotes of a token: whole names or strings.
fn whole_names(bytes: &[u8]) -> Vec<String> {
    let mut out = Vec::new();
    for begin in memchr::memchr_iter(b'"', bytes) {
        let (mut partial, mut name) = (BOUNDARY, String::new());
        for &byte in &bytes[begin + 1..] {
            match decode(partial, byte, Spelling::Json) {
                Decoded::Char(c) => {
                    name.extend(char::from_u32(c));
                    partial = BOUNDARY;
                }
                Decoded::More(p) => partial = p,
                Decoded::Close => {
                    out.push(name);
                    break;
                }
                Decoded::Dead => break,
            }
        }
    }
    out
}

/// What a token adds to a text that it ends, and what follows the quote.
fn ending(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (mut partial, mut text) = (BOUNDARY, String::new());
    for (i, &byte) in bytes.iter().enumerate() {
        match decode(partial, byte, Spelling::Json) {
            Decoded::Char(c) => {
                text.extend(char::from_u32(c));
                partial = BOUNDARY;
            }
            Decoded::More(p) => partial = p,
            Decoded::Close => return Some((text, &bytes[i + 1..])),
            Decoded::Dead => return None,
        }
    }
    None
}

/// Sorts by the number of characters, and counts the tokens of at most so many.
fn by_characters(items: &[Item], top: u32) -> (Vec<Item>, Vec<u32>) {
    let mut up_to = vec![0u32; top as usize + 1];
    for item in items {
        up_to[item.chars as usize] += 1;
    }
    let mut sum = 0;
    for count in &mut up_to {
        sum += *count;
        *count = sum;
    }
    let mut next: Vec<u32> = std::iter::once(0).chain(up_to.iter().copied()).collect();
    let mut sorted = vec![Item { id: 0, chars: 0 }; items.len()];
    for &item in items {
        let place = &mut next[item.chars as usize];
        sorted[*place as usize] = item;
        *place += 1;
    }
    (sorted, up_to)
}

fn above(trie: &TokenTrie) -> Vec<u32> {
    let mut out = vec![0u32; trie.len()];
    for node in 0..trie.len() as u32 {
        for &(byte, child) in trie.children(node) {
            out[child as usize] = out[node as usize] + u32::from(byte & 0xc0 != 0x80);
        }
    }
    out
}

fn deepest(trie: &TokenTrie, above: &[u32]) -> Vec<u32> {
    let mut out = vec![0u32; trie.len()];
    for node in (0..trie.len() as u32).rev() {
        for &(_, child) in trie.children(node) {
            let step = above[child as usize] - above[node as usize];
            out[node as usize] = out[node as usize].max(out[child as usize] + step);
        }
    }
    out
}

/// The characters below each node.
fn below(trie: &TokenTrie) -> Vec<u128> {
    let mut out = vec![0u128; trie.len()];
    let mut partial = vec![BOUNDARY; trie.len()];
    let mut own = vec![0u128; trie.len()];
    for node in 0..trie.len() as u32 {
        for &(byte, child) in trie.children(node) {
            let bits = if own[node as usize] & SPECIAL != 0 {
                SPECIAL
            } else {
                match decode(partial[node as usize], byte, Spelling::Json) {
                    Decoded::Char(c) if c < 128 => 1 << c,
                    Decoded::Char(c) => blocks(c, c),
                    Decoded::More(p) if byte != b'\\' => {
                        partial[child as usize] = p;
                        let mut bits = 0;
                        possible(p, |low, high| {
                            bits |= blocks(low.max(0x80), high);
                            false
                        });
                        bits
                    }
                    _ => SPECIAL,
                }
            };
            own[child as usize] = bits;
        }
    }
    for node in (0..trie.len() as u32).rev() {
        for &(_, child) in trie.children(node) {
            out[node as usize] |= out[child as usize] | own[child as usize];
        }
    }
    out
}

/// A trie node, a class and a spelling.
type TableKey = (u32, u32, Spelling);

/// What the masks of one vocabulary share.
pub struct Lexicon {
    /// Its ordinary tokens.
    pub trie: TokenTrie,
    /// 32-bit words of a mask row.
    pub words: usize,
    /// Bytes of the longest token.
    pub longest: u32,
    /// What follows a quote in some token.
    pub after_quote: TokenTrie,
    /// For each trie node, the characters below it: bits 32 and up are printable ASCII, low ones
    /// blocks of the rest of Unicode, [`SPECIAL`] all that is no plain character of a JSON string.
    pub below: Vec<u128>,
    /// For each trie node, characters that begin above it and at it.
    pub above: Vec<u32>,
    /// For each trie node, most characters that begin below it.
    pub deepest: Vec<u32>,
    /// Tokens that hold a whole name, by the name.
    pub named: FxHashMap<Box<str>, Vec<u32>>,
    /// Tokens that end a text and hold it once more, by that text as far as it stands before them.
    pub reopening: FxHashMap<Box<str>, Vec<u32>>,
    /// A bit for each token that holds a whole name.
    holding: Box<[u64]>,
    /// Tokens that hold the same name twice.
    pub twice: Vec<u32>,
    /// White space: see [`Spaces`].
    pub spaces: Spaces,
    classes: Mutex<FxHashMap<Arc<CharSet>, u32>>,
    tables: Mutex<Ageing<TableKey, Arc<Table>>>,
    /// By trie node, class of the first character and class of the others.
    tables_after: Mutex<Ageing<(u32, u32, u32), Arc<Table>>>,
    texts: Mutex<Ageing<TextKey, Arc<TextRow>>>,
    /// By trie node and class.
    insides: Mutex<Ageing<(u32, u32), Arc<Inside>>>,
    /// Bytes that each of these maps may take.
    pub(crate) most_bytes: usize,
}

/// A trie node, a known automaton, its state, and the spelling.
type TextKey = (u32, u32, u32, Spelling);

/// The tokens that begin with JSON's white space.
#[derive(Default)]
pub struct Spaces {
    /// Tokens of nothing else, with their length.
    pub tokens: Vec<Item>,
    /// For each other byte, the trie nodes behind it where it follows white space, with the length of that.
    pub ends: Vec<Vec<(u32, u32)>>,
}

impl Spaces {
    fn new(trie: &TokenTrie) -> Self {
        let (mut spaces, mut todo) = (Self::default(), vec![(0, 0)]);
        spaces.ends.resize(256, Vec::new());
        while let Some((node, length)) = todo.pop() {
            for &(byte, child) in trie.children(node) {
                if is_space(byte) {
                    todo.push((child, length + 1));
                } else if length > 0 {
                    spaces.ends[byte as usize].push((child, length));
                }
            }
            spaces.tokens.extend(trie.items(node).iter().map(|i| Item { id: i.id, chars: length }));
        }
        spaces.tokens.retain(|item| item.chars > 0);
        spaces
    }
}

impl Lexicon {
    /// Builds the trie.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let words: Vec<(&[u8], Item)> = store::order(vocabulary)
            .into_iter()
            .filter_map(|id| Some((id, vocabulary.bytes(id.into())?)))
            .map(|(id, bytes)| (bytes, Item { id, chars: characters(bytes) }))
            .collect();
        crate::grammar::json_schema::prepare();
        let trie = TokenTrie::new(&words);
        let mut suffixes: Vec<&[u8]> = Vec::new();
        let mut reopening = FxHashMap::<Box<str>, Vec<u32>>::default();
        let mut holding = vec![0u64; vocabulary.len().div_ceil(64)];
        let (mut named, mut twice) = (FxHashMap::<Box<str>, Vec<u32>>::default(), Vec::new());
        for &(bytes, item) in &words {
            suffixes.extend(memchr::memchr_iter(b'"', bytes).map(|at| &bytes[at + 1..]));
            let mut names = whole_names(bytes);
            if let Some((ending, rest)) = ending(bytes) {
                for name in whole_names(rest) {
                    if let Some(before) = name.strip_suffix(ending.as_str()) {
                        reopening.entry(before.into()).or_default().push(item.id);
                    }
                }
            }
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                twice.push(item.id);
            }
            names.dedup();
            if !names.is_empty() {
                holding[item.id as usize / 64] |= 1 << (item.id % 64);
            }
            for name in names {
                named.entry(name.into()).or_default().push(item.id);
            }
        }
        suffixes.sort_unstable();
        suffixes.dedup();
        let suffixes: Vec<_> =
            suffixes.into_iter().map(|suffix| (suffix, Item { id: 0, chars: 0 })).collect();
        let above = above(&trie);
        Self {
            below: below(&trie),
            deepest: deepest(&trie, &above),
            above,
            spaces: Spaces::new(&trie),
            longest: words.iter().map(|w| w.0.len() as u32).max().unwrap_or(0),
            trie,
            words: vocabulary.len().div_ceil(32),
            after_quote: TokenTrie::new(&suffixes),
            named,
            reopening,
            holding: holding.into(),
            twice,
            classes: Mutex::default(),
            tables: Mutex::default(),
            texts: Mutex::default(),
            insides: Mutex::default(),
            tables_after: Mutex::default(),
            most_bytes: TABLE_BYTES,
        }
    }

    /// True if a token holds a whole name.
    pub fn holds_name(&self, id: u32) -> bool {
        self.holding[id as usize / 64] >> (id % 64) & 1 == 1
    }

    /// The number of a class.
    pub fn class(&self, class: &Arc<CharSet>) -> u32 {
        let mut classes = lock(&self.classes);
        let next = classes.len() as u32;
        *classes.entry(Arc::clone(class)).or_insert(next)
    }

    /// The table of a class below a trie node.
    pub fn table(
        &self,
        vocabulary: &Vocabulary,
        node: u32,
        id: u32,
        class: &CharSet,
        spelling: Spelling,
    ) -> Arc<Table> {
        let key = (node, id, spelling);
        if let Some(table) = lock(&self.tables).get(&key) {
            return table;
        }
        // Built outside the lock: two threads may build the same, and the first stands.
        let table = Arc::new(Table::new(vocabulary, self, node, class, class, spelling));
        self.keep(&self.tables, key, table)
    }

    /// Keeps a value that others may have made meanwhile; forgets others where there are too many.
    fn keep<K: std::hash::Hash + Eq, V: Clone + Weigh>(
        &self,
        map: &Mutex<Ageing<K, V>>,
        key: K,
        value: V,
    ) -> V {
        let mut map = lock(map);
        if let Some(found) = map.get(&key) {
            return found;
        }
        if map.len() % 32 == 0 {
            map.weigh(); // tables grow
        }
        if map.young_bytes() > self.most_bytes / 2 {
            map.age();
        }
        map.insert(key, value.clone());
        value
    }

    /// The table of a plain class whose run begins with one character of another class.
    pub fn table_after(
        &self,
        vocabulary: &Vocabulary,
        node: u32,
        first: &Arc<CharSet>,
        class: &Arc<CharSet>,
    ) -> Arc<Table> {
        let key = (node, self.class(first), self.class(class));
        if let Some(table) = lock(&self.tables_after).get(&key) {
            return table;
        }
        let table = Arc::new(Table::new(vocabulary, self, node, first, class, Spelling::Plain));
        self.keep(&self.tables_after, key, table)
    }

    /// The tokens below a trie node that stay in a class of plain characters.
    pub fn inside(&self, node: u32, class: &Arc<CharSet>) -> Arc<Inside> {
        let key = (node, self.class(class));
        if let Some(found) = lock(&self.insides).get(&key) {
            return found;
        }
        self.keep(&self.insides, key, Arc::new(Inside::new(self, node, class)))
    }

    /// What tokens do from a state of an automaton that all grammars share.
    pub fn text(&self, key: TextKey, make: impl FnOnce() -> TextRow) -> Arc<TextRow> {
        if let Some(found) = lock(&self.texts).get(&key) {
            return found;
        }
        self.keep(&self.texts, key, Arc::new(make()))
    }

    /// The tokens at and below a trie node that stands behind a quote, with their places in `after_quote`.
    pub fn following(&self, node: u32, place: u32, found: &mut dyn FnMut(u32, u32)) {
        for item in self.trie.items(node) {
            found(place, item.id);
        }
        for &(byte, child) in self.trie.children(node) {
            if let Some(place) = self.after_quote.child(place, byte) {
                self.following(child, place, found);
            }
        }
    }

    /// Bytes of the tables, shared by all grammars of the vocabulary.
    pub fn bytes(&self) -> usize {
        weighed(&self.tables) + weighed(&self.tables_after) + weighed(&self.texts) + weighed(&self.insides)
    }
}

/// Bytes of a map whose values grow.
fn weighed<K: std::hash::Hash + Eq, V: Clone + Weigh>(map: &Mutex<Ageing<K, V>>) -> usize {
    let mut map = lock(map);
    map.weigh();
    map.bytes()
}

/// A token that leaves the class.
struct Exit {
    id: u32,
    /// Offset in the token of the first character outside.
    offset: u32,
    /// Characters inside before it.
    chars: u32,
    /// Its first byte.
    byte: u8,
}

/// For one trie node and one class: tokens that stay inside and tokens that leave.
pub struct Table {
    /// Sorted by their number of characters.
    inside: Vec<Item>,
    /// Number of tokens of at most so many characters.
    up_to: Vec<u32>,
    exits: Vec<Exit>,
    /// Tokens that close the JSON string, with the place of what follows in [`Lexicon::after_quote`].
    closers: Vec<(u32, Item)>,
    /// Bytes of the token before the table's node.
    depth: u32,
    /// Bytes that leave.
    leaving: [u64; 4],
    /// Bytes that begin what the table speaks of.
    entering: [u64; 4],
    rows: Mutex<FxHashMap<u32, Arc<[u32]>>>,
    tries: Mutex<FxHashMap<u8, Arc<TokenTrie>>>,
    whole: OnceLock<TokenTrie>,
    closing: OnceLock<TokenTrie>,
}

impl Table {
    fn new(
        vocabulary: &Vocabulary,
        lexicon: &Lexicon,
        node: u32,
        first: &CharSet,
        class: &CharSet,
        spelling: Spelling,
    ) -> Self {
        let trie = &lexicon.trie;
        let depth = trie.depth(node);
        let (mut inside, mut exits, mut leaving) = (Vec::new(), Vec::new(), [0u64; 4]);
        let mut closers = Vec::new();
        // (partial character, characters, offset of the character begun) after each depth.
        let mut path = vec![(BOUNDARY, 0u32, depth)];
        let (mut at, end) = (node + 1, trie.end(node));
        let (first_ascii, class_ascii) = (first.ascii(), class.ascii());
        let plain = if spelling == Spelling::Json { class.plain() } else { 0 };
        while at < end {
            let d = (trie.depth(at) - depth) as usize;
            path.truncate(d);
            let (partial, chars, begun) = path[d - 1];
            let byte = trie.byte(at);
            let (class, ascii) = if chars == 0 { (first, first_ascii) } else { (class, class_ascii) };
            let next = match decode(partial, byte, spelling) {
                Decoded::Char(c) if if c < 128 { ascii >> c & 1 == 1 } else { class.has(c) } => {
                    inside.extend(trie.items(at).iter().map(|i| Item { id: i.id, chars: chars + 1 }));
                    Some((BOUNDARY, chars + 1, depth + d as u32))
                }
                Decoded::More(p) if possible(p, |low, high| class.any_in(low, high)) => {
                    // A character may end outside the class as well; such tokens are no base.
                    inside.extend(trie.items(at).iter().map(|i| Item { id: i.id, chars: chars + 1 }));
                    Some((p, chars, begun))
                }
                _ => None,
            };
            if let Some(next) = next {
                // A subtree that keeps to the class is taken at once.
                let below = lexicon.below[at as usize];
                if next.0 == BOUNDARY && below != 0 && below & !plain == 0 {
                    let here = trie.items(at).len();
                    let before = lexicon.above[at as usize] - next.1;
                    inside.extend(
                        trie.items_below(at)[here..]
                            .iter()
                            .map(|i| Item { id: i.id, chars: i.chars - before }),
                    );
                    at = trie.end(at);
                    continue;
                }
                path.push(next);
                at += 1;
                continue;
            }
            // What leaves at once is walked by the caller, but for the closing quote.
            if partial == BOUNDARY && byte == b'"' && spelling == Spelling::Json {
                lexicon.following(at, 0, &mut |place, id| closers.push((place, Item { id, chars })));
            } else if begun > depth || partial != BOUNDARY {
                let first = trie.items_below(at).first().and_then(|i| vocabulary.bytes(i.id.into()));
                let byte = first.and_then(|bytes| bytes.get(begun as usize)).copied().unwrap_or(byte);
                leaving[byte as usize / 64] |= 1 << (byte % 64);
                let left = trie.items_below(at).iter();
                exits.extend(left.map(|i| Exit { id: i.id, offset: begun, chars, byte }));
            }
            at = trie.end(at);
        }
        let top = inside.iter().map(|i| i.chars).max().unwrap_or(0);
        exits.sort_by_key(|e: &Exit| e.byte);
        let (inside, up_to) = by_characters(&inside, top);
        Self {
            inside,
            up_to,
            exits,
            closers,
            depth,
            leaving,
            entering: entering(first, spelling),
            rows: Mutex::default(),
            tries: Mutex::default(),
            whole: OnceLock::new(),
            closing: OnceLock::new(),
        }
    }

    /// Tokens that close the JSON string, with the place of what follows in [`Lexicon::after_quote`].
    pub fn closers(&self) -> &[(u32, Item)] {
        &self.closers
    }

    /// Bytes with which tokens leave, the closing quote aside.
    pub fn leaving(&self) -> &[u64; 4] {
        &self.leaving
    }

    /// Bytes that begin what the table speaks of: a character of the class, or the closing quote.
    pub fn entering(&self) -> &[u64; 4] {
        &self.entering
    }

    /// Bytes of each token before the table's node.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    fn split(&self, most: u32) -> usize {
        self.up_to[(most as usize).min(self.up_to.len() - 1)] as usize
    }

    /// Tokens inside of at most so many characters.
    pub fn inside(&self, most: u32) -> &[Item] {
        &self.inside[..self.split(most)]
    }

    /// Tokens inside of more than so many characters.
    pub fn beyond(&self, most: u32) -> &[Item] {
        &self.inside[self.split(most)..]
    }

    /// The tokens inside of at most `most` characters as a shared row; None if they are few.
    pub fn base(&self, most: u32, words: usize) -> Option<Arc<[u32]>> {
        let ids = self.inside(most);
        if ids.len() <= MIN_BASE {
            return None;
        }
        let most = most.min(self.up_to.len() as u32 - 1);
        if let Some(row) = lock(&self.rows).get(&most) {
            return Some(Arc::clone(row));
        }
        let mut row = vec![0u32; words];
        for item in ids {
            row[item.id as usize / 32] |= 1 << (item.id % 32);
        }
        let row: Arc<[u32]> = row.into();
        Some(Arc::clone(lock(&self.rows).entry(most).or_insert(row)))
    }

    /// What follows in the tokens that leave with `byte`, from that byte on.
    pub fn exits(&self, vocabulary: &Vocabulary, byte: u8) -> Arc<TokenTrie> {
        if let Some(trie) = lock(&self.tries).get(&byte) {
            return Arc::clone(trie);
        }
        let mut words: Vec<(&[u8], Item)> = self.exits[self.exits.partition_point(|e| e.byte < byte)..]
            .iter()
            .take_while(|e| e.byte == byte)
            .filter_map(|e| Some((vocabulary.bytes(e.id.into())?.get(e.offset as usize..)?, e)))
            .map(|(bytes, e)| (bytes, Item { id: e.id, chars: e.chars }))
            .collect();
        words.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let trie = Arc::new(TokenTrie::new(&words));
        Arc::clone(lock(&self.tries).entry(byte).or_insert(trie))
    }

    /// The tokens that leave, spelled from the table's node.
    pub fn whole(&self, vocabulary: &Vocabulary) -> &TokenTrie {
        self.whole.get_or_init(|| {
            let items = self.exits.iter().map(|e| Item { id: e.id, chars: e.chars });
            let mut words: Vec<(&[u8], Item)> = items
                .chain(self.closers.iter().map(|c| c.1))
                .filter_map(|e| Some((vocabulary.bytes(e.id.into())?.get(self.depth as usize..)?, e)))
                .collect();
            words.sort_unstable_by(|a, b| a.0.cmp(b.0));
            TokenTrie::new(&words)
        })
    }

    /// The tokens that close the JSON string, spelled from the table's node; their items carry the place
    /// of what follows the quote.
    pub fn closing(&self, vocabulary: &Vocabulary) -> &TokenTrie {
        self.closing.get_or_init(|| {
            let items = self.closers.iter().map(|&(place, item)| Item { id: item.id, chars: place });
            let mut words: Vec<(&[u8], Item)> = items
                .filter_map(|e| Some((vocabulary.bytes(e.id.into())?.get(self.depth as usize..)?, e)))
                .collect();
            words.sort_unstable_by(|a, b| a.0.cmp(b.0));
            TokenTrie::new(&words)
        })
    }
}

impl Weigh for Table {
    fn weight(&self) -> usize {
        let rows: usize = lock(&self.rows).values().map(|r| r.len() * 4).sum();
        // A trie of what follows takes some forty bytes for each token, where it was made.
        self.inside.len() * 8 + (self.exits.len() + self.closers.len()) * 48 + rows
    }
}

fn entering(class: &CharSet, spelling: Spelling) -> [u64; 4] {
    let mut set = [0; 4];
    for byte in 0..=255u8 {
        let inside = match decode(BOUNDARY, byte, spelling) {
            Decoded::Char(c) => class.has(c),
            Decoded::More(partial) => possible(partial, |low, high| class.any_in(low, high)),
            Decoded::Close => true,
            Decoded::Dead => false,
        };
        if inside {
            add_byte(&mut set, byte);
        }
    }
    set
}

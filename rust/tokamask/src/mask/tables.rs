//! What tokens do to a run of one character class, computed once for a vocabulary.
//!
//! Most states of text stay where they are under a large class of characters: the inside of a string,
//! a name, the digits of a number. For such a class a table says which tokens stay inside (by their
//! number of characters) and which leave it, and where. The row of a state is then a shared base row
//! and a walk of what follows the leaving byte.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustc_hash::FxHashMap;

use crate::grammar::add_byte;
use crate::grammar::chars::{decode, possible, CharSet, Decoded, Spelling, BOUNDARY};
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
/// Rows with fewer ids are written one by one.
const MIN_BASE: usize = 200;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is valid after every operation.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A trie node, a class and a spelling.
type TableKey = (u32, u32, Spelling);

/// What the masks of one vocabulary share.
pub struct Lexicon {
    /// Its ordinary tokens.
    pub trie: TokenTrie,
    /// 32-bit words of a mask row.
    pub words: usize,
    /// Ids of tokens with two quotes or more, and with four or more: they may hold whole names.
    pub quoted: [Vec<u32>; 2],
    classes: Mutex<FxHashMap<Arc<CharSet>, u32>>,
    tables: Mutex<FxHashMap<TableKey, Arc<Table>>>,
    /// By trie node, class of the first character and class of the others.
    tables_after: Mutex<FxHashMap<(u32, u32, u32), Arc<Table>>>,
}

impl Lexicon {
    /// Builds the trie.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        let mut words: Vec<(&[u8], Item)> = vocabulary
            .ordinary_tokens()
            .filter(|(_, bytes)| !bytes.is_empty())
            .map(|(id, bytes)| (bytes, Item { id: id.get(), chars: 0 }))
            .collect();
        words.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let with_quotes = |least: usize| {
            let quotes = |bytes: &[u8]| memchr::memchr_iter(b'"', bytes).count();
            words.iter().filter(|w| quotes(w.0) >= least).map(|w| w.1.id).collect()
        };
        let quoted = [with_quotes(2), with_quotes(4)];
        let trie = TokenTrie::new(&words);
        let words = vocabulary.len().div_ceil(32);
        Self {
            trie,
            words,
            quoted,
            classes: Mutex::default(),
            tables: Mutex::default(),
            tables_after: Mutex::default(),
        }
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
            return Arc::clone(table);
        }
        // Built outside the lock: two threads may build the same, and the first stands.
        let table = Arc::new(Table::new(vocabulary, &self.trie, node, class, class, spelling));
        Arc::clone(lock(&self.tables).entry(key).or_insert(table))
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
            return Arc::clone(table);
        }
        let table = Arc::new(Table::new(vocabulary, &self.trie, node, first, class, Spelling::Plain));
        Arc::clone(lock(&self.tables_after).entry(key).or_insert(table))
    }

    /// Bytes of the tables, shared by all grammars of the vocabulary.
    pub fn bytes(&self) -> usize {
        let after: usize = lock(&self.tables_after).values().map(|t| t.bytes()).sum();
        after + lock(&self.tables).values().map(|t| t.bytes()).sum::<usize>()
    }
}

/// A token that leaves the class.
struct Exit {
    id: u32,
    /// Offset in the token of the first character outside.
    offset: u32,
    /// Characters inside before it.
    chars: u32,
}

/// For one trie node and one class: tokens that stay inside and tokens that leave.
pub struct Table {
    /// Sorted by their number of characters.
    inside: Vec<Item>,
    /// Number of tokens of at most so many characters.
    up_to: Vec<u32>,
    exits: Vec<Exit>,
    /// Bytes of the token before the table's node.
    depth: u32,
    /// Bytes that leave.
    leaving: [u64; 4],
    /// Bytes that begin what the table speaks of.
    entering: [u64; 4],
    rows: Mutex<FxHashMap<u32, Arc<[u32]>>>,
    /// Exits by the byte with which they leave.
    buckets: OnceLock<Vec<Vec<u32>>>,
    tries: Mutex<FxHashMap<u8, Arc<TokenTrie>>>,
    whole: OnceLock<TokenTrie>,
}

impl Table {
    fn new(
        vocabulary: &Vocabulary,
        trie: &TokenTrie,
        node: u32,
        first: &CharSet,
        class: &CharSet,
        spelling: Spelling,
    ) -> Self {
        let depth = trie.depth(node);
        let (mut inside, mut exits, mut leaving) = (Vec::new(), Vec::new(), [0u64; 4]);
        // (partial character, characters, offset of the character begun) after each depth.
        let mut path = vec![(BOUNDARY, 0u32, depth)];
        let (mut at, end) = (node + 1, trie.end(node));
        let (first_ascii, class_ascii) = (first.ascii(), class.ascii());
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
                path.push(next);
                at += 1;
                continue;
            }
            // What leaves at once is walked by the caller, but for the closing quote.
            if begun > depth || partial != BOUNDARY || byte == b'"' && spelling == Spelling::Json {
                for item in trie.items_below(at) {
                    exits.push(Exit { id: item.id, offset: begun, chars });
                    if let Some(&first) = vocabulary.bytes(item.id.into()).and_then(|b| b.get(begun as usize))
                    {
                        leaving[first as usize / 64] |= 1 << (first % 64);
                    }
                }
            }
            at = trie.end(at);
        }
        let top = inside.iter().map(|i| i.chars).max().unwrap_or(0);
        inside.sort_by_key(|i| i.chars);
        let up_to = (0..=top).map(|n| inside.partition_point(|i| i.chars <= n) as u32).collect();
        Self {
            inside,
            up_to,
            exits,
            depth,
            leaving,
            entering: entering(first, spelling),
            rows: Mutex::default(),
            buckets: OnceLock::new(),
            tries: Mutex::default(),
            whole: OnceLock::new(),
        }
    }

    /// Bytes with which tokens leave.
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
        let buckets = self.buckets.get_or_init(|| {
            let mut buckets = vec![Vec::new(); 256];
            for (i, exit) in self.exits.iter().enumerate() {
                let bytes = vocabulary.bytes(exit.id.into()).unwrap_or_default();
                if let Some(&byte) = bytes.get(exit.offset as usize) {
                    buckets[byte as usize].push(i as u32);
                }
            }
            buckets
        });
        let mut words: Vec<(&[u8], Item)> = buckets[byte as usize]
            .iter()
            .map(|&i| &self.exits[i as usize])
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
            let mut words: Vec<(&[u8], Item)> = self
                .exits
                .iter()
                .filter_map(|e| Some((vocabulary.bytes(e.id.into())?.get(self.depth as usize..)?, e)))
                .map(|(bytes, e)| (bytes, Item { id: e.id, chars: e.chars }))
                .collect();
            words.sort_unstable_by(|a, b| a.0.cmp(b.0));
            TokenTrie::new(&words)
        })
    }

    fn bytes(&self) -> usize {
        let rows: usize = lock(&self.rows).values().map(|r| r.len() * 4).sum();
        self.inside.len() * 8 + self.exits.len() * 12 + rows
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

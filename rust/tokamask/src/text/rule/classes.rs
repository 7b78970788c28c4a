//! Classes of characters that no set of a rule tells apart.

use regex_syntax::hir::ClassUnicode;
use rustc_hash::FxHashMap;

use super::NotRegular;

/// Most classes a rule may have; class numbers are bytes.
const MAX_CLASSES: usize = 200;

/// The class of every character, and the classes of every set.
pub struct Classes {
    /// Block of 64 characters by code point / 64.
    blocks: Vec<u16>,
    /// Class by block and code point % 64.
    table: Vec<u8>,
    /// Class of each ASCII character.
    pub ascii: [u8; 128],
    /// Number of classes; the class `count` stands for the end of the text.
    pub count: usize,
    /// `members[set][class]`.
    members: Vec<Vec<bool>>,
}

impl Classes {
    /// Divides all characters.
    pub fn new(sets: &[ClassUnicode]) -> Result<Self, NotRegular> {
        if sets.len() > 128 {
            return Err(NotRegular("more than 128 sets"));
        }
        // Where any set begins or ends.
        let mut edges: Vec<(u32, usize)> = Vec::new();
        for (nth, set) in sets.iter().enumerate() {
            for range in set.ranges() {
                edges.push((range.start() as u32, nth));
                edges.push((range.end() as u32 + 1, nth));
            }
        }
        edges.sort_unstable();
        let mut numbers: FxHashMap<u128, u8> = FxHashMap::default();
        let mut members = vec![Vec::new(); sets.len()];
        let (mut all, mut next) = (vec![0u8; 0x11_0000], 0);
        let (mut inside, mut at) = (0u128, 0u32);
        while at < 0x11_0000 {
            while next < edges.len() && edges[next].0 == at {
                inside ^= 1 << edges[next].1;
                next += 1;
            }
            let end = edges.get(next).map_or(0x11_0000, |edge| edge.0);
            let fresh = numbers.len();
            let class = *numbers.entry(inside).or_insert(fresh as u8);
            if usize::from(class) == fresh {
                if fresh >= MAX_CLASSES {
                    return Err(NotRegular("more than 200 classes"));
                }
                for (nth, members) in members.iter_mut().enumerate() {
                    members.push(inside >> nth & 1 != 0);
                }
            }
            all[at as usize..end as usize].fill(class);
            at = end;
        }
        let mut known: FxHashMap<&[u8], u16> = FxHashMap::default();
        let (mut blocks, mut table) = (Vec::with_capacity(0x11_0000 / 64), Vec::new());
        for block in all.chunks(64) {
            let number = *known.entry(block).or_insert_with(|| {
                table.extend_from_slice(block);
                (table.len() / 64 - 1) as u16
            });
            blocks.push(number);
        }
        let mut ascii = [0; 128];
        ascii.copy_from_slice(&all[..128]);
        Ok(Self { blocks, table, ascii, count: numbers.len(), members })
    }

    /// The class of a code point.
    #[inline]
    pub fn of(&self, code_point: u32) -> u8 {
        let block = self.blocks.get(code_point as usize >> 6).copied().unwrap_or(0);
        self.table[usize::from(block) << 6 | code_point as usize & 63]
    }

    /// True if the class (or the end of the text) is of the set.
    pub fn holds(&self, set: usize, class: usize) -> bool {
        self.members[set].get(class).copied().unwrap_or(false)
    }

    /// By class: it is of the set.
    pub fn members(&self, set: usize) -> &[bool] {
        &self.members[set]
    }

    /// By class: some character beyond ASCII is of it.
    pub fn beyond_ascii(&self) -> Vec<bool> {
        let (mut beyond, mut seen) = (vec![false; self.count], vec![false; self.table.len() / 64]);
        for &block in &self.blocks[2..] {
            let block = usize::from(block);
            if !std::mem::replace(&mut seen[block], true) {
                for &class in &self.table[block << 6..(block + 1) << 6] {
                    beyond[usize::from(class)] = true;
                }
            }
        }
        beyond
    }

    /// Class of the character that ends before `at`, which is not the start of the text.
    #[inline]
    pub fn before(&self, text: &[u8], at: usize) -> usize {
        let first = (1..=at.min(4)).find(|&back| text[at - back] & 0xC0 != 0x80).unwrap_or(1);
        usize::from(self.at(text, at - first).0)
    }

    /// Class and width of the character at `at`, which is the first byte of one.
    #[inline]
    pub fn at(&self, text: &[u8], at: usize) -> (u8, usize) {
        let byte = text[at];
        if byte < 0x80 {
            return (self.ascii[usize::from(byte)], 1);
        }
        let (code_point, width) = decode(text, at);
        (self.of(code_point), width)
    }
}

/// Width of a character by its first byte.
#[inline]
pub fn width(first: u8) -> usize {
    match first {
        0..=0xBF => 1,
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        _ => 4,
    }
}

/// Code point and width of the character at `at`; text is UTF-8.
#[inline]
pub fn decode(text: &[u8], at: usize) -> (u32, usize) {
    let rest = &text[at..];
    let bits = |nth: usize| u32::from(rest.get(nth).copied().unwrap_or(0) & 0x3F);
    let first = u32::from(rest[0]);
    match first {
        0..=0x7F => (first, 1),
        0x80..=0xDF => ((first & 0x1F) << 6 | bits(1), 2),
        0xE0..=0xEF => ((first & 0xF) << 12 | bits(1) << 6 | bits(2), 3),
        _ => ((first & 7) << 18 | bits(1) << 12 | bits(2) << 6 | bits(3), 4),
    }
}

//! Sets of characters, and the decoder that turns bytes of UTF-8 or of a JSON string into characters.

/// Largest Unicode scalar value.
pub const MAX_CHAR: u32 = 0x10_ffff;

/// In a set of characters as bits: bytes that are no plain character of a JSON string. Controls and
/// these two characters need no bits of their own; other low bits are the blocks of [`BLOCKS`].
pub const SPECIAL: u128 = 2;
/// The bits of characters that stand for themselves in a JSON string.
pub const PRINTABLE: u128 = !0xffff_ffff & !(1 << b'"') & !(1 << b'\\');
/// Blocks of characters beyond ASCII, and the bit of each. What patterns like to leave out (spaces, line
/// separators, controls) is apart, so that classes such as `.` and `\S` hold the other blocks whole.
const BLOCKS: [(u32, u32, u32); 27] = [
    (0x80, 0xa0, 0),
    (0xa1, 0xbf, 3),
    (0xc0, 0xd6, 2),
    (0xd7, 0xd7, 3),
    (0xd8, 0xf6, 2),
    (0xf7, 0xf7, 3),
    (0xf8, 0x24f, 2),
    (0x250, 0x36f, 3),
    (0x370, 0x3ff, 4),
    (0x400, 0x52f, 5),
    (0x530, 0x167f, 6),
    (0x1680, 0x1680, 0),
    (0x1681, 0x1fff, 6),
    (0x2000, 0x200f, 0),
    (0x2010, 0x2027, 7),
    (0x2028, 0x202f, 0),
    (0x2030, 0x205e, 7),
    (0x205f, 0x206f, 0),
    (0x2070, 0x2fff, 7),
    (0x3000, 0x3000, 0),
    (0x3001, 0x33ff, 8),
    (0x3400, 0x9fff, 9),
    (0xa000, 0xabff, 10),
    (0xac00, 0xd7ff, 11),
    (0xe000, 0xfefe, 12),
    (0xfeff, 0xfeff, 0),
    (0xff00, MAX_CHAR, 13),
];

/// The bits of all blocks that meet `low..=high`, which is beyond ASCII.
pub fn blocks(low: u32, high: u32) -> u128 {
    let met = BLOCKS.iter().filter(|b| b.0 <= high && low <= b.1);
    met.fold(0, |bits, b| bits | 1 << b.2)
}

/// A set of Unicode scalar values: sorted, disjoint, inclusive ranges. Surrogates are never members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CharSet {
    ranges: Vec<(u32, u32)>,
}

impl CharSet {
    /// Every scalar value.
    pub fn all() -> Self {
        Self { ranges: vec![(0, 0xd7ff), (0xe000, MAX_CHAR)] }
    }

    /// One character.
    pub fn one(c: u32) -> Self {
        Self::from_ranges([(c, c)])
    }

    /// The union of inclusive ranges, surrogates left out.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut sorted: Vec<(u32, u32)> = Vec::new();
        for (low, high) in ranges {
            for (a, b) in [(low, high.min(0xd7ff)), (low.max(0xe000), high.min(MAX_CHAR))] {
                if a <= b {
                    sorted.push((a, b));
                }
            }
        }
        sorted.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
        for (low, high) in sorted {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self { ranges: merged }
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[(u32, u32)] {
        &self.ranges
    }

    /// True if nothing is a member.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(|&(a, b)| (b - a + 1) as usize).sum()
    }

    /// Membership.
    pub fn has(&self, c: u32) -> bool {
        self.any_in(c, c)
    }

    /// True if some member lies in `low..=high`.
    pub fn any_in(&self, low: u32, high: u32) -> bool {
        let at = self.ranges.partition_point(|r| r.1 < low);
        self.ranges.get(at).is_some_and(|r| r.0 <= high)
    }

    /// Members of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.ranges.iter().chain(&other.ranges).copied())
    }

    /// Everything that is not a member.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut out = Vec::new();
        let mut from = 0;
        for &(low, high) in &self.ranges {
            if low > from {
                out.push((from, low - 1));
            }
            from = high + 1;
        }
        if from <= MAX_CHAR {
            out.push((from, MAX_CHAR));
        }
        Self::from_ranges(out)
    }

    /// Members of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut i, mut j, mut out) = (0, 0, Vec::new());
        while let (Some(a), Some(b)) = (self.ranges.get(i), other.ranges.get(j)) {
            let (low, high) = (a.0.max(b.0), a.1.min(b.1));
            if low <= high {
                out.push((low, high));
            }
            if a.1 < b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        Self { ranges: out }
    }

    /// The members that stand for themselves in a JSON string, as bits: printable ASCII, and the blocks
    /// of which everything is a member.
    pub fn plain(&self) -> u128 {
        let mut bits = self.ascii() & PRINTABLE | blocks(0x80, MAX_CHAR);
        for &(low, high) in self.complement().ranges() {
            if high >= 0x80 {
                bits &= !blocks(low.max(0x80), high);
            }
        }
        bits
    }

    /// The ASCII members as bits.
    pub fn ascii(&self) -> u128 {
        let mut bits = 0;
        for &(low, high) in &self.ranges {
            for c in low..=high.min(127) {
                bits |= 1u128 << c;
            }
        }
        bits
    }
}

/// How text is spelled in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Spelling {
    /// Plain UTF-8.
    Plain,
    /// The inside of a JSON string: quote, backslash and controls appear only as escapes.
    Json,
}

/// A character begun but not finished, packed; 0 between characters.
pub type Partial = u32;

/// Between two characters.
pub const BOUNDARY: Partial = 0;

/// What one more byte makes of a partial character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A character is complete.
    Char(u32),
    /// A character goes on; see [`possible`] for what it may become.
    More(Partial),
    /// The closing quote of a JSON string.
    Close,
    /// No character is spelled so.
    Dead,
}

const KIND: u32 = 28;
const UTF8: u32 = 1 << KIND; // | length << 26 | missing << 24 | value
const ESCAPE: u32 = 2 << KIND;
const HEX: u32 = 3 << KIND; // | digits << 24 | value
const HIGH: u32 = 4 << KIND; // | ten bits
const HIGH_ESCAPE: u32 = 5 << KIND; // | ten bits
const LOW: u32 = 6 << KIND; // | digits << 24 | ten bits << 12 | value

/// Advances the decoder. Printable ASCII characters are spelled plainly only: `\u0041` is not `A`
/// here, so that each name has few spellings; everything else may also be `\uXXXX`, as pairs of
/// surrogates beyond the basic plane.
pub fn decode(partial: Partial, byte: u8, spelling: Spelling) -> Decoded {
    let b = u32::from(byte);
    if partial == BOUNDARY {
        if spelling == Spelling::Json {
            match byte {
                b'"' => return Decoded::Close,
                b'\\' => return Decoded::More(ESCAPE),
                0..=0x1f => return Decoded::Dead,
                _ => {}
            }
        }
        return match byte {
            0..=0x7f => Decoded::Char(b),
            0xc2..=0xdf => Decoded::More(UTF8 | 2 << 26 | 1 << 24 | (b & 0x1f)),
            0xe0..=0xef => Decoded::More(UTF8 | 3 << 26 | 2 << 24 | (b & 0x0f)),
            // A length of four is stored as one: two bits are enough.
            0xf0..=0xf4 => Decoded::More(UTF8 | 1 << 26 | 3 << 24 | (b & 0x07)),
            _ => Decoded::Dead,
        };
    }
    match partial & (0xf << KIND) {
        UTF8 if byte & 0xc0 == 0x80 => {
            let missing = (partial >> 24 & 3) - 1;
            let value = (partial & 0xff_ffff) << 6 | (b & 0x3f);
            let next = partial & (3 << 26) | UTF8 | missing << 24 | value;
            let Some((low, high)) = utf8_range(next) else { return Decoded::Dead };
            if missing > 0 {
                Decoded::More(next)
            } else if low == high && !(0xd800..0xe000).contains(&low) {
                Decoded::Char(low)
            } else {
                Decoded::Dead
            }
        }
        ESCAPE => match byte {
            b'"' | b'\\' | b'/' => Decoded::Char(b),
            b'b' => Decoded::Char(8),
            b'f' => Decoded::Char(12),
            b'n' => Decoded::Char(10),
            b'r' => Decoded::Char(13),
            b't' => Decoded::Char(9),
            b'u' => Decoded::More(HEX),
            _ => Decoded::Dead,
        },
        HEX => {
            let Some(digit) = (byte as char).to_digit(16) else { return Decoded::Dead };
            let (digits, value) = ((partial >> 24 & 3) + 1, (partial & 0xffff) << 4 | digit);
            match (digits, value) {
                (1..=3, _) => Decoded::More(HEX | digits << 24 | value),
                (_, 0xd800..=0xdbff) => Decoded::More(HIGH | value & 0x3ff),
                (_, 0..=0x1f | 0x7f..=0xd7ff | 0xe000..=0xffff) => Decoded::Char(value),
                _ => Decoded::Dead,
            }
        }
        HIGH if byte == b'\\' => Decoded::More(HIGH_ESCAPE | partial & 0x3ff),
        HIGH_ESCAPE if byte == b'u' => Decoded::More(LOW | (partial & 0x3ff) << 12),
        LOW => {
            let Some(digit) = (byte as char).to_digit(16) else { return Decoded::Dead };
            let (digits, high) = ((partial >> 24 & 3) + 1, partial >> 12 & 0x3ff);
            let value = (partial & 0xfff) << 4 | digit;
            match digits {
                1 if value == 0xd => Decoded::More(LOW | 1 << 24 | high << 12 | value),
                2 if value >= 0xdc => Decoded::More(LOW | 2 << 24 | high << 12 | value),
                3 => Decoded::More(LOW | 3 << 24 | high << 12 | value),
                4 => Decoded::Char(0x1_0000 + (high << 10 | value & 0x3ff)),
                _ => Decoded::Dead,
            }
        }
        _ => Decoded::Dead,
    }
}

/// True if `low..=high` holds more than surrogates.
pub fn any_scalar(low: u32, high: u32) -> bool {
    low < 0xd800 || high > 0xdfff
}

/// The characters a UTF-8 prefix may become, before surrogates are taken out.
fn utf8_range(partial: Partial) -> Option<(u32, u32)> {
    let shift = 6 * (partial >> 24 & 3);
    let low = (partial & 0xff_ffff) << shift;
    let high = low | ((1 << shift) - 1);
    let least = match partial >> 26 & 3 {
        2 => 0x80,
        3 => 0x800,
        _ => 0x1_0000,
    };
    let (low, high) = (low.max(least), high.min(MAX_CHAR));
    (low <= high).then_some((low, high))
}

/// True if `live(low, high)` holds for one of the ranges of characters a partial one may become.
pub fn possible(partial: Partial, mut live: impl FnMut(u32, u32) -> bool) -> bool {
    match partial & (0xf << KIND) {
        UTF8 => utf8_range(partial).is_some_and(|(low, high)| live(low, high)),
        ESCAPE => [(0, 0x1f), (0x22, 0x22), (0x2f, 0x2f), (0x5c, 0x5c), (0x7f, MAX_CHAR)]
            .iter()
            .any(|r| live(r.0, r.1)),
        HEX => {
            let shift = 4 * (4 - (partial >> 24 & 3));
            let low = (partial & 0xffff) << shift;
            let high = low + (1 << shift) - 1;
            let astral = high >= 0xd800 && low <= 0xdbff && {
                let (first, last) = (low.max(0xd800) & 0x3ff, high.min(0xdbff) & 0x3ff);
                live(0x1_0000 + (first << 10), 0x1_0000 + (last << 10 | 0x3ff))
            };
            let plain = |a: u32, b: u32, live: &mut dyn FnMut(u32, u32) -> bool| {
                let (a, b) = (low.max(a), high.min(b));
                a <= b && live(a, b)
            };
            astral || plain(0, 0x1f, &mut live) || plain(0x7f, 0xffff, &mut live)
        }
        HIGH | HIGH_ESCAPE => {
            let high = partial & 0x3ff;
            live(0x1_0000 + (high << 10), 0x1_0000 + (high << 10 | 0x3ff))
        }
        LOW => {
            let (digits, high) = (partial >> 24 & 3, partial >> 12 & 0x3ff);
            let shift = 4 * (4 - digits);
            let low = if digits < 2 { 0xdc00 } else { (partial & 0xfff) << shift };
            let top = if digits < 2 { 0xdfff } else { low + (1 << shift) - 1 };
            live(0x1_0000 + (high << 10 | low & 0x3ff), 0x1_0000 + (high << 10 | top & 0x3ff))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], spelling: Spelling) -> Option<Vec<u32>> {
        let (mut partial, mut out) = (BOUNDARY, vec![]);
        for &b in bytes {
            match decode(partial, b, spelling) {
                Decoded::Char(c) => {
                    out.push(c);
                    partial = BOUNDARY;
                }
                Decoded::More(p) if possible(p, |a, b| CharSet::all().any_in(a, b)) => partial = p,
                _ => return None,
            }
        }
        (partial == BOUNDARY).then_some(out)
    }

    proptest! {
        #[test]
        fn plain_is_utf8(bytes in proptest::collection::vec(any::<u8>(), 0..6)) {
            let expected = std::str::from_utf8(&bytes).ok().map(|s| s.chars().map(u32::from).collect::<Vec<_>>());
            prop_assert_eq!(read(&bytes, Spelling::Plain), expected);
        }

        #[test]
        fn json_reads_what_serde_writes(text in any::<String>()) {
            let written = serde_json::to_string(&text).expect("a string");
            let inner = &written.as_bytes()[1..written.len() - 1];
            prop_assert_eq!(read(inner, Spelling::Json), Some(text.chars().map(u32::from).collect()));
        }

        #[test]
        fn surrogate_pairs_are_one_character(c in any::<char>()) {
            let mut units = [0; 2];
            let escaped = c.encode_utf16(&mut units).iter().fold(String::new(), |s, u| format!("{s}\\u{u:04x}"));
            let c = u32::from(c);
            let expected = if (0x20..0x7f).contains(&c) { None } else { Some(vec![c]) };
            prop_assert_eq!(read(escaped.as_bytes(), Spelling::Json), expected);
        }

        #[test]
        fn sets_form_an_algebra(a in proptest::collection::vec((0u32..300, 0u32..300), 0..4), b in proptest::collection::vec((0u32..300, 0u32..300), 0..4)) {
            let (a, b) = (CharSet::from_ranges(a), CharSet::from_ranges(b));
            for c in 0..310 {
                prop_assert_eq!(a.union(&b).has(c), a.has(c) || b.has(c));
                prop_assert_eq!(a.intersection(&b).has(c), a.has(c) && b.has(c));
                prop_assert_eq!(a.complement().has(c), !a.has(c));
            }
        }
    }
}

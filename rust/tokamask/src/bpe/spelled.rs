//! Merging over characters by the byte-level encoder: SentencePiece's kind of BPE at its speed.
//!
//! The vocabulary gets a symbol for every byte, and for every proper prefix of a character of
//! several bytes; merges that build characters from their bytes come before all others. Merging
//! bytes is then merging characters. A symbol of bytes that is left over belongs to a character
//! that is no token; it is spelled out, or becomes the unknown token, on the way to the sink.
//!
//! Where the model marks spaces by a character, tokens are kept with a space for the mark, and the
//! text stays as it is. No normal text has both, so nothing is confused.
//!
//! A text without pretokens is cut at exact barriers: between two characters that stand side by
//! side in no token that merging can reach, no merge can ever happen.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};

use super::encoder::{Encoder, Sink, BATCH};
use super::{Merges, NONE};
use crate::error::VocabularyError;
use crate::text::normalizer::{Normalizer, Replaced};
use crate::text::pretokenizer::{Scheme, Step};
use crate::text::rule::classes::decode;
use crate::text::runs::Runs;

/// What becomes of characters that are no tokens.
#[derive(Clone, Copy, Debug)]
pub enum Unknown {
    /// Nothing.
    Dropped,
    /// A token; runs of them are one if the flag is set.
    Token(u32, bool),
}

/// The vocabulary of a model that merges characters.
pub struct Spelling<'a> {
    /// Spellings by id.
    pub tokens: &'a [Option<Vec<u8>>],
    /// Pairs of ids, best first.
    pub merges: &'a [(u32, u32)],
    /// The tokens of bytes, if unknown characters become those of their bytes.
    pub bytes: Option<[u32; 256]>,
    /// What becomes of them otherwise.
    pub unknown: Unknown,
    /// A piece that is a token becomes it without merging.
    pub whole_pieces: bool,
    /// Runs of the mark that form after every merge.
    pub runs: Option<Runs>,
    /// Tokens that are matched in the text before anything merges.
    pub matched: FxHashSet<u32>,
}

/// How spaces reach a model that marks them.
#[derive(Clone, Debug, PartialEq)]
pub struct Spaces {
    /// What comes before.
    pub front: Vec<Normalizer>,
    /// What stands for a space in tokens.
    pub mark: char,
    /// Which texts get a space before them.
    pub prefix: Prefix,
    /// Cut before every space.
    pub split: bool,
    /// The marks are set by the normalizer, not by the pre-tokenizer.
    pub normalizes: bool,
}

/// Which texts get a space before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// All.
    Every,
    /// Those that do not begin with one, if the scheme wants it.
    Missing(Scheme),
}

impl Spaces {
    /// The reading of a normalizer and of steps, if all they do is to mark spaces in the end.
    pub fn new(normalizer: Option<&Normalizer>, steps: &[Step]) -> Option<Self> {
        let all: Vec<&Normalizer> = normalizer.map(Normalizer::steps).unwrap_or_default();
        let own = |steps: &[&Normalizer]| steps.iter().map(|step| (*step).clone()).collect();
        if let [Step::Metaspace { replacement, scheme, split }] = steps {
            let prefix = Prefix::Missing(*scheme);
            return Some(Self {
                front: own(&all),
                mark: *replacement,
                prefix,
                split: *split,
                normalizes: false,
            });
        }
        // Once every space is marked, a cut at spaces does nothing.
        let idle = |step: &Step| matches!(step, Step::Split { pattern, invert: false, .. } if pattern == " ");
        if !steps.iter().all(idle) {
            return None;
        }
        if let [front @ .., Normalizer::SentencePiece(piece)] = &all[..] {
            let prefix = if piece.add_dummy_prefix { Prefix::Every } else { Prefix::Missing(Scheme::Never) };
            return piece.is_plain().then(|| Self {
                front: own(front),
                mark: '\u{2581}',
                prefix,
                split: false,
                normalizes: true,
            });
        }
        let [front @ .., Normalizer::Replace { pattern: Replaced::String(old), content }] = &all[..] else {
            return None;
        };
        let mut mark = content.chars();
        let (Some(mark), None, " ") = (mark.next(), mark.next(), &**old) else { return None };
        if mark == ' ' {
            return None;
        }
        let (front, prefix) = match front {
            [front @ .., Normalizer::Prepend { prepend }] if *prepend == *content => (front, Prefix::Every),
            [.., Normalizer::Prepend { .. }] => return None,
            front => (front, Prefix::Missing(Scheme::Never)),
        };
        Some(Self { front: own(front), mark, prefix, split: false, normalizes: true })
    }

    /// The text with spaces for marks, and one before it where that is wanted.
    pub fn apply<'a>(&self, text: &'a str, first: bool) -> Cow<'a, str> {
        let mut bytes = [0; 4];
        let mark = &*self.mark.encode_utf8(&mut bytes);
        let marked = memchr::memmem::find(text.as_bytes(), mark.as_bytes()).is_some();
        let text = if marked { Cow::Owned(text.replace(mark, " ")) } else { Cow::Borrowed(text) };
        let wanted = match self.prefix {
            Prefix::Every => true,
            Prefix::Missing(Scheme::Never) => false,
            Prefix::Missing(Scheme::First) => first && !text.starts_with(' '),
            Prefix::Missing(Scheme::Always) => !text.starts_with(' '),
        };
        if !wanted || text.is_empty() {
            return text;
        }
        let mut longer = String::with_capacity(text.len() + 1);
        longer.push(' ');
        longer.push_str(&text);
        Cow::Owned(longer)
    }
}

/// The encoder.
pub struct Spelled {
    encoder: Encoder,
    /// Ids from here on are bytes and prefixes of characters.
    first: u32,
    /// The bytes of each of those.
    stray: Vec<Box<[u8]>>,
    bytes: Option<Box<[u32; 256]>>,
    unknown: Unknown,
    /// The whole text is one piece, looked up first.
    whole: FxHashMap<Box<[u8]>, u32>,
    pairs: Neighbours,
    runs: Option<Runs>,
}

impl Spelled {
    /// Builds the tables; `None` if a merge has to do with the tokens of bytes, which this encoder
    /// never sees, or if unknown characters vanish, so that their neighbours may merge.
    pub fn new(spelling: &Spelling, spaces: Option<&Spaces>) -> Result<Option<Self>, VocabularyError> {
        let split = spaces.is_none_or(|spaces| spaces.split);
        if split
            && matches!(spelling.unknown, Unknown::Token(_, true))
            && spelling.bytes.is_none()
            && spaces.is_some()
        {
            return Ok(None); // runs of unknown characters end with pieces, which barriers do not show
        }
        if spelling.bytes.is_none() && matches!(spelling.unknown, Unknown::Dropped) {
            return Ok(None);
        }
        if let Some(bytes) = &spelling.bytes {
            let byte: FxHashSet<u32> = bytes.iter().copied().collect();
            if spelling.merges.iter().any(|(left, right)| byte.contains(left) || byte.contains(right)) {
                return Ok(None);
            }
        }
        let mark = spaces.map(|spaces| spaces.mark);
        if let Some(mark) = mark {
            // An unknown mark is spelled out as itself, not as a space.
            let mark = mark.to_string();
            if !spelling.tokens.iter().flatten().any(|token| token == mark.as_bytes()) {
                return Ok(None);
            }
        }
        let inner: Vec<Option<Cow<[u8]>>> =
            spelling.tokens.iter().map(|token| inner(token.as_deref()?, mark)).collect();
        let first = inner.len() as u32;
        let (stray, chars) = characters(&inner, first);
        let mut merges = chars;
        let bytes_of = |id: u32| inner.get(id as usize).and_then(Option::as_ref);
        merges.extend(
            spelling
                .merges
                .iter()
                .filter(|(left, right)| bytes_of(*left).is_some() && bytes_of(*right).is_some()),
        );
        let mut slices: Vec<Option<&[u8]>> = inner.iter().map(Option::as_deref).collect();
        slices.extend(stray.iter().map(|stray| Some(&**stray)));
        let merges = Merges::List(merges);
        let all = spelling.whole_pieces && split;
        let encoder =
            Encoder::finding(&slices, &merges, |id| all || spelling.matched.contains(&(id as u32)))?;
        let mut whole: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
        if spelling.whole_pieces && !split {
            let known = (0..first).zip(&inner).filter_map(|(id, token)| Some((token.as_deref()?.into(), id)));
            whole.extend(known);
        }
        let reached = |id: usize| encoder.bpe().symbols.get(id).is_some_and(|&symbol| symbol != NONE);
        let mut pairs = Neighbours::default();
        if spaces.is_some() {
            let known = inner
                .iter()
                .enumerate()
                .filter(|&(id, _)| reached(id))
                .filter_map(|(_, token)| token.as_deref());
            // With whole pieces every piece is a unit of its own.
            pairs = Neighbours::new(known, split, spelling.runs.is_some(), spelling.whole_pieces && split);
        }
        Ok(Some(Self {
            encoder,
            first,
            stray,
            bytes: spelling.bytes.map(Box::new),
            unknown: spelling.unknown,
            whole,
            pairs,
            runs: spelling.runs.clone(),
        }))
    }

    /// One piece, as it is spelled in the file.
    pub fn encode_piece(&self, piece: &str, sink: &mut impl Sink) {
        let mut ids = Vec::new();
        self.encoder.encode_piece(piece.as_bytes(), &mut ids);
        let mut out = self.spell_out(sink);
        out.ids(&ids);
        out.end();
    }

    /// A text whose spaces are spaces, of at most 4 GiB.
    pub fn encode(&self, text: &str, sink: &mut impl Sink) {
        if let Some(&id) = self.whole.get(text.as_bytes()) {
            return sink.ids(&[id]);
        }
        self.encode_around(text, std::iter::empty(), sink);
    }

    /// True if [`Self::encode_around`] knows a token by its text.
    pub fn finds(&self, id: u32, text: &str) -> bool {
        self.whole.is_empty() && self.encoder.whole_id(text.as_bytes()) == id
    }

    /// The same with tokens at some places, which come in order.
    pub fn encode_around(
        &self,
        text: &str,
        tokens: impl Iterator<Item = (usize, usize)>,
        sink: &mut impl Sink,
    ) {
        let mut units = Units { text: text.as_bytes(), at: 0, tokens, token: (0, 0), pairs: &self.pairs };
        units.next_token();
        let mut out = self.spell_out(sink);
        self.encoder.encode(text.as_bytes(), |starts| units.fill(starts), &mut out);
        out.end();
    }

    /// What becomes of characters that are no tokens and have no bytes that are.
    pub fn unknown(&self) -> Unknown {
        self.unknown
    }

    /// True if a token stands for a byte of a character that is no token.
    pub fn is_byte(&self, id: u32) -> bool {
        self.bytes.as_ref().is_some_and(|bytes| bytes.contains(&id))
    }

    /// True if a character is a token, with a space for the mark.
    pub fn knows(&self, char: &[u8]) -> bool {
        let mut ids = Vec::new();
        self.encoder.encode_piece(char, &mut ids);
        matches!(ids[..], [id] if id < self.first)
    }

    /// True if a text may be cut before a space here: no token has it behind what comes before, which is no space.
    pub fn parts_at(&self, text: &[u8], at: usize) -> bool {
        let before = text[at - 1];
        self.whole.is_empty()
            && text[at] == b' '
            && before < 0x80
            && before != b' '
            && self.pairs.ascii_apart(before, b' ')
    }

    fn spell_out<'a, S: Sink>(&'a self, to: &'a mut S) -> SpellOut<'a, S> {
        let single = self.runs.as_ref().map_or(NONE, Runs::single);
        SpellOut { spelled: self, to, unknown_before: false, single, run: 0, ready: Vec::new() }
    }
}

/// A token as this encoder keeps it; `None` if no normal text can have it.
fn inner(token: &[u8], mark: Option<char>) -> Option<Cow<'_, [u8]>> {
    let Some(mark) = mark else { return Some(Cow::Borrowed(token)) };
    if token.contains(&b' ') {
        return None;
    }
    match std::str::from_utf8(token) {
        Ok(text) if text.contains(mark) => Some(Cow::Owned(text.replace(mark, " ").into_bytes())),
        _ => Some(Cow::Borrowed(token)),
    }
}

/// Bytes and prefixes of characters, numbered from `first`, and the merges that build characters.
#[allow(clippy::type_complexity)]
fn characters(tokens: &[Option<Cow<[u8]>>], first: u32) -> (Vec<Box<[u8]>>, Vec<(u32, u32)>) {
    let mut known: FxHashMap<Box<[u8]>, u32> = FxHashMap::default();
    let mut chars = Vec::new();
    for (id, token) in tokens.iter().enumerate() {
        let Some(token) = token.as_deref() else { continue };
        let Some(&lead) = token.first() else { continue };
        let width = crate::text::rule::classes::width(lead);
        if token.len() == width && (lead < 0x80 || width > 1) {
            known.entry(token.into()).or_insert(id as u32);
            chars.push(token);
        }
    }
    let mut stray: Vec<Box<[u8]>> = Vec::new();
    let mut add = |bytes: &[u8], known: &mut FxHashMap<Box<[u8]>, u32>| {
        *known.entry(bytes.into()).or_insert_with(|| {
            stray.push(bytes.into());
            first + stray.len() as u32 - 1
        })
    };
    for byte in 0..=255u8 {
        add(&[byte], &mut known);
    }
    let mut merges: [Vec<(u32, u32)>; 3] = Default::default();
    for char in chars {
        for length in 2..=char.len() {
            let fresh = !known.contains_key(&char[..length]);
            if fresh {
                add(&char[..length], &mut known);
            }
            if fresh || length == char.len() {
                merges[length - 2].push((known[&char[..length - 1]], known[&char[length - 1..length]]));
            }
        }
    }
    (stray, merges.concat())
}

/// Cuts text into units.
struct Units<'a, T> {
    text: &'a [u8],
    at: usize,
    /// Tokens that were matched: each is a unit.
    tokens: T,
    /// The next of them; the end of the text if there is none.
    token: (usize, usize),
    pairs: &'a Neighbours,
}

impl<T: Iterator<Item = (usize, usize)>> Units<'_, T> {
    fn next_token(&mut self) {
        self.token = self.tokens.next().unwrap_or((self.text.len(), self.text.len()));
    }

    fn fill(&mut self, starts: &mut Vec<u32>) {
        let text = self.text;
        if self.at >= text.len() {
            return;
        }
        starts.resize(BATCH + 2, 0);
        starts[0] = self.at as u32;
        let mut count = 1;
        while self.at < text.len() && count <= BATCH {
            if self.at == self.token.0 {
                self.at = self.token.1;
                starts[count] = self.at as u32;
                count += 1;
                self.next_token();
                continue;
            }
            let end = self.token.0;
            let (mut before, width) = decode(text, self.at);
            let mut at = self.at + width;
            while at < end && count <= BATCH {
                let byte = text[at];
                starts[count] = at as u32;
                if before < 0x80 && byte < 0x80 {
                    count += usize::from(self.pairs.ascii_apart(before as u8, byte));
                    before = byte.into();
                    at += 1;
                } else {
                    let (c, width) = decode(text, at);
                    count += usize::from(self.pairs.apart(before, c));
                    before = c;
                    at += width;
                }
            }
            if count <= BATCH {
                starts[count] = at as u32;
                count += 1;
            }
            self.at = starts[count - 1] as usize;
        }
        starts.truncate(count);
    }
}

/// The characters that stand side by side in some token. Of others than ASCII the set may say so
/// of a few too many: a unit is then longer than it need be, never wrong.
struct Neighbours {
    ascii: Box<[[u64; 2]; 128]>,
    bits: Vec<u64>,
    /// Nothing parts but spaces.
    only_spaces: bool,
    before_space: bool,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self { ascii: Box::new([[0; 2]; 128]), bits: vec![0], only_spaces: false, before_space: false }
    }
}

impl Neighbours {
    fn new<'a>(tokens: impl Iterator<Item = &'a [u8]>, split: bool, runs: bool, only_spaces: bool) -> Self {
        let mut wide = FxHashSet::default();
        let mut ascii = Box::new([[0; 2]; 128]);
        if only_spaces {
            ascii.fill([!0; 2]);
        }
        for token in tokens {
            let mut at = 0;
            let mut before = None;
            while at < token.len() {
                let (c, width) = decode(token, at);
                if let Some(before) = before {
                    if before < 0x80 && c < 0x80 {
                        ascii[before as usize][c as usize >> 6] |= 1 << (c & 63);
                    } else {
                        wide.insert((before, c));
                    }
                }
                (before, at) = (Some(c), at + width);
            }
        }
        if runs {
            ascii[32][0] |= 1 << 32; // a run of spaces is one unit
        }
        if split {
            ascii.iter_mut().for_each(|row| row[0] &= !(1 << 32));
        }
        let mut bits = vec![0; (wide.len() / 8).max(8).next_power_of_two()];
        for (before, c) in wide {
            let (word, bit) = place(before, c, bits.len());
            bits[word] |= 1 << bit;
        }
        Self { ascii, bits, only_spaces, before_space: split }
    }

    /// True if no token has the two side by side.
    #[inline]
    fn ascii_apart(&self, before: u8, after: u8) -> bool {
        self.ascii[usize::from(before & 127)][usize::from(after >> 6 & 1)] >> (after & 63) & 1 == 0
    }

    #[inline]
    fn apart(&self, before: u32, after: u32) -> bool {
        if after == 32 && self.before_space {
            return true;
        }
        let (word, bit) = place(before, after, self.bits.len());
        self.bits[word] >> bit & 1 == 0 && !self.only_spaces
    }
}

#[inline]
fn place(before: u32, after: u32, words: usize) -> (usize, u32) {
    let hash = (u64::from(before) << 21 | u64::from(after)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((hash >> 38) as usize & (words - 1), (hash >> 32) as u32 & 63)
}

/// Between the encoder and the caller's sink.
struct SpellOut<'a, S> {
    spelled: &'a Spelled,
    to: &'a mut S,
    unknown_before: bool,
    /// The token whose runs are joined, and how many of it wait.
    single: u32,
    run: usize,
    ready: Vec<u32>,
}

impl<S: Sink> Sink for SpellOut<'_, S> {
    #[inline]
    fn ids(&mut self, ids: &[u32]) {
        let (mut most, mut runs) = (0, self.run > 0);
        for &id in ids {
            most = most.max(id);
            runs |= id == self.single;
        }
        if most < self.spelled.first && !runs {
            self.unknown_before &= ids.is_empty();
            return self.to.ids(ids);
        }
        self.other(ids);
    }
}

impl<S: Sink> SpellOut<'_, S> {
    /// Ids among which some are not the caller's.
    fn other(&mut self, ids: &[u32]) {
        let (single, first) = (self.single, self.spelled.first);
        let mut rest = ids;
        while let Some(&id) = rest.first() {
            let taken = if id == single {
                let run = rest.iter().take_while(|&&id| id == single).count();
                self.run += run;
                self.unknown_before = false;
                run
            } else {
                self.join();
                if id < first {
                    let plain = rest.iter().take_while(|&&id| id < first && id != single).count();
                    self.unknown_before = false;
                    self.ready.extend_from_slice(&rest[..plain]);
                    plain
                } else {
                    self.stray(&self.spelled.stray[(id - first) as usize]);
                    1
                }
            };
            rest = &rest[taken..];
        }
        self.to.ids(&self.ready);
        self.ready.clear();
    }

    #[inline]
    fn join(&mut self) {
        if let (1.., Some(runs)) = (self.run, &self.spelled.runs) {
            runs.join(self.run, &mut self.ready);
            self.run = 0;
        }
    }

    /// Bytes of a character that is no token.
    fn stray(&mut self, bytes: &[u8]) {
        if let Some(tokens) = &self.spelled.bytes {
            return self.ready.extend(bytes.iter().map(|&byte| tokens[usize::from(byte)]));
        }
        // Only the first byte of a character counts.
        if matches!(bytes.first(), Some(0x80..=0xBF)) {
            return;
        }
        if let Unknown::Token(id, fused) = self.spelled.unknown {
            if !(fused && self.unknown_before) {
                self.ready.push(id);
            }
            self.unknown_before = true;
        }
    }

    /// The run that the text ends with.
    fn end(&mut self) {
        self.join();
        self.to.ids(&self.ready);
        self.ready.clear();
    }
}

//! Several split rules one after another in one pass: each cuts the pieces of the one before, and nothing is kept
//! of a piece once it is cut.
//!
//! A rule sees the end of its piece as the end of the text, so rules cannot simply be joined. But most pieces of
//! all rules but the last are found by looking for the few characters that their matches begin with
//! ([`Rule::begins`]), and the last rule then runs as if it were alone, by vectors where its piece is long.

use super::rule::dfa::Span;
use super::rule::scan::{Pieces, CHUNK};
use super::rule::vain::Vain;
use super::rule::{classes, Rule};

/// A rule and the piece that it cuts.
struct Level<'a> {
    rule: &'a Rule,
    /// The end of that piece.
    end: usize,
    /// A match that was found behind the piece returned last.
    found: Option<(usize, usize)>,
    /// Look-ahead bits of the piece, from `base` on; empty: none of them holds anywhere.
    looks: Vec<u8>,
    base: usize,
    vain: Vain,
}

/// The pieces of a text.
pub struct Levels<'a> {
    text: &'a [u8],
    at: usize,
    rules: Vec<Level<'a>>,
    last: Pieces<'a>,
    /// The last rule cuts all of its piece.
    covers: bool,
}

impl<'a> Levels<'a> {
    /// The pieces of `text` by these rules, `None` if there are none; each match is a piece, and so is what lies between.
    pub fn new(rules: &[&'a Rule], text: &'a [u8]) -> Option<Self> {
        let level =
            |&rule| Level { rule, end: 0, found: None, looks: Vec::new(), base: 0, vain: Vain::default() };
        let last = *rules.last()?;
        let mut rules: Vec<Level> = rules.iter().map(level).collect();
        rules[0].begin(text, 0, text.len());
        // The last rule waits for a piece of the one before, if there is one.
        let end = if rules.len() == 1 { text.len() } else { 0 };
        Some(Self {
            text,
            at: 0,
            rules,
            last: Pieces::within(last, text, 0, end),
            covers: last.covers_alone(),
        })
    }

    /// Appends the starts of the next pieces and the end of the last; nothing at the end.
    pub fn fill(&mut self, starts: &mut Vec<u32>) {
        let goal = self.text.len().min(self.at + CHUNK);
        if self.at < goal {
            starts.push(self.at as u32);
        }
        let last = self.rules.len() - 1;
        while self.at < goal {
            if !self.covers {
                self.at = self.next(last, self.at);
                starts.push(self.at as u32);
                continue;
            }
            if self.last.is_done() {
                let end = self.next(last - 1, self.at);
                self.last = Pieces::within(self.rules[last].rule, self.text, self.at, end);
            }
            self.at = self.last.fill_on(starts);
        }
    }

    /// The end of the piece of a level that starts at `at`.
    fn next(&mut self, level: usize, at: usize) -> usize {
        if level > 0 && at >= self.rules[level].end {
            let end = self.next(level - 1, at);
            self.rules[level].begin(self.text, at, end);
        }
        self.rules[level].next(self.text, at)
    }
}

impl Level<'_> {
    /// Turns to the piece `text[start..end]`.
    fn begin(&mut self, text: &[u8], start: usize, end: usize) {
        (self.end, self.base) = (end, start);
        self.looks.clear();
        self.vain.clear();
        if self.rule.looks_far() && self.first(&text[..end], start) < end {
            self.looks = self.rule.look_bits(&text[start..end]);
        }
    }

    /// The first place from `at` on where a match may begin.
    #[inline]
    fn first(&self, text: &[u8], at: usize) -> usize {
        let begins = self.rule.begins();
        text[at..].iter().position(|&byte| begins[usize::from(byte)]).map_or(text.len(), |more| at + more)
    }

    fn next(&mut self, text: &[u8], start: usize) -> usize {
        let text = &text[..self.end];
        if let Some((_, to)) = self.found.take().filter(|&(from, to)| from == start && to > from) {
            return to;
        }
        let mut at = start;
        loop {
            at = self.first(text, at);
            if at >= text.len() {
                return text.len();
            }
            let span = Span { text, base: self.base, aheads: &self.looks };
            match self.rule.match_at(&span, at, &mut self.vain) {
                Some(to) if at > start => {
                    self.found = Some((at, to));
                    return at;
                }
                Some(to) if to > at => return to,
                // An empty match here cuts nothing.
                _ => at += classes::width(text[at]),
            }
        }
    }
}

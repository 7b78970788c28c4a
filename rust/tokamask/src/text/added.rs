//! Added tokens: matched in the text before anything else, leftmost first, longest of those.

use aho_corasick::{AhoCorasick, MatchKind};
use serde::{Deserialize, Serialize};

use crate::error::VocabularyError;

/// A token that stands beside the merges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // the flags of the file format
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Its id.
    pub id: u32,
    /// Matched only where it is allowed, and skipped by decoders that skip special tokens.
    pub special: bool,
    /// Only between characters that are not of words.
    #[serde(default)]
    pub single_word: bool,
    /// Takes the white space before it.
    #[serde(default)]
    pub lstrip: bool,
    /// Takes the white space after it.
    #[serde(default)]
    pub rstrip: bool,
    /// Matched in the normalised text.
    #[serde(default)]
    pub normalized: bool,
}

impl AddedToken {
    /// A special token that is matched as it is.
    pub fn special(content: String, id: u32) -> Self {
        Self {
            content,
            id,
            special: true,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
        }
    }
}

/// Which special tokens the text may contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// None: their text is ordinary text.
    None,
    /// All of them.
    All,
    /// These, by their text.
    Some(Vec<String>),
}

/// The automaton over all added tokens.
pub struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// What each is matched as: its text, or the normal form of it.
    texts: Vec<String>,
    /// All of them.
    all: Option<AhoCorasick>,
    /// Those that are not special: matched always.
    plain: Option<(AhoCorasick, Vec<usize>)>,
}

fn automaton<'a>(contents: impl Iterator<Item = &'a str>) -> Result<AhoCorasick, VocabularyError> {
    AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(contents)
        .map_err(|error| VocabularyError::new(format!("too many added tokens: {error}")))
}

/// A stretch of text, or an added token in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Ordinary text and where it begins.
    Text(&'a str, usize),
    /// An added token's id and its span.
    Token(u32, (usize, usize)),
}

impl AddedTokens {
    /// Builds the automata; tokens are matched as what `form` makes of their text.
    pub fn new(tokens: Vec<AddedToken>, form: impl Fn(&str) -> String) -> Result<Self, VocabularyError> {
        let texts: Vec<String> = tokens.iter().map(|token| form(&token.content)).collect();
        if let Some(empty) = texts.iter().position(String::is_empty) {
            return Err(VocabularyError::new(format!("added token {} is empty", tokens[empty].id)));
        }
        let plain: Vec<usize> = (0..tokens.len()).filter(|&i| !tokens[i].special).collect();
        let all = (!tokens.is_empty()).then(|| automaton(texts.iter().map(|text| &**text))).transpose()?;
        let some = (!plain.is_empty()).then(|| automaton(plain.iter().map(|&i| &*texts[i])));
        Ok(Self { all, plain: some.transpose()?.map(|automaton| (automaton, plain)), tokens, texts })
    }

    /// The tokens, in the order given.
    pub fn tokens(&self) -> &[AddedToken] {
        &self.tokens
    }

    /// True if the text of some token is in `text`.
    pub fn any(&self, text: &str) -> bool {
        self.all.as_ref().is_some_and(|all| all.is_match(text))
    }

    /// Tokens that are matched in any text, and as what.
    pub fn plain(&self) -> impl Iterator<Item = (u32, &str)> {
        let which = self.plain.as_ref().map(|(_, which)| &which[..]).unwrap_or_default();
        which.iter().map(|&nth| (self.tokens[nth].id, &*self.texts[nth]))
    }

    /// True if these are there, and none of them looks at what is beside it.
    pub fn stand_alone(&self) -> bool {
        let which = self.plain.as_ref().map(|(_, which)| &which[..]).unwrap_or_default();
        let tokens = || which.iter().map(|&nth| &self.tokens[nth]);
        !which.is_empty() && !tokens().any(|token| token.lstrip || token.rstrip || token.single_word)
    }

    /// Where they are in a text.
    pub fn plain_spans<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        let found = self.plain.iter().flat_map(move |(plain, _)| plain.find_iter(text));
        found.map(|hit| (hit.start(), hit.end()))
    }

    /// The stretch after the last added token for sure and before the first that more text could make, special
    /// tokens aside; `None` if that cannot be told here.
    pub fn settled(&self, text: &str) -> Option<(usize, usize)> {
        let Some((plain, which)) = &self.plain else { return Some((0, text.len())) };
        let longest = which.iter().map(|&i| self.texts[i].len()).max().unwrap_or(0);
        if which.iter().map(|&i| &self.tokens[i]).any(|t| t.lstrip || t.rstrip || t.single_word) {
            return None;
        }
        let (mut start, mut end) = (0, (text.len() + 1).saturating_sub(longest));
        for hit in plain.find_iter(text) {
            if hit.start() + longest > text.len() {
                end = end.min(hit.start());
                break;
            }
            start = hit.end();
        }
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Some((start, end.max(start)))
    }

    /// Calls `part` for each stretch of `text`, in order.
    pub fn parts<'a>(
        &self,
        text: &'a str,
        allowed: &Allowed,
        mut part: impl FnMut(Part<'a>),
    ) -> Result<(), VocabularyError> {
        let mut last = 0;
        let mut take = |token: &AddedToken, start: usize, end: usize| {
            if let Some((start, end)) = span(text, token, last, start, end) {
                if start > last {
                    part(Part::Text(&text[last..start], last));
                }
                part(Part::Token(token.id, (start, end)));
                last = end;
            }
        };
        match (allowed, &self.all, &self.plain) {
            (Allowed::All, Some(all), _) => {
                for hit in all.find_iter(text) {
                    take(&self.tokens[hit.pattern()], hit.start(), hit.end());
                }
            }
            (Allowed::None, _, Some((plain, which))) => {
                for hit in plain.find_iter(text) {
                    take(&self.tokens[which[hit.pattern()]], hit.start(), hit.end());
                }
            }
            (Allowed::Some(names), _, _) => {
                let wanted =
                    |&(token, _): &(&AddedToken, _)| !token.special || names.contains(&token.content);
                let which: Vec<(&AddedToken, &String)> =
                    self.tokens.iter().zip(&self.texts).filter(wanted).collect();
                let automaton = automaton(which.iter().map(|(_, text)| &***text))?;
                for hit in automaton.find_iter(text) {
                    take(which[hit.pattern()].0, hit.start(), hit.end());
                }
            }
            _ => {}
        }
        if last < text.len() {
            part(Part::Text(&text[last..], last));
        }
        Ok(())
    }
}

/// The span a match takes with its flags, or `None` if they forbid it. It may begin in the white
/// space that the token before has taken: the library that owns the format has it so.
fn span(text: &str, token: &AddedToken, last: usize, start: usize, end: usize) -> Option<(usize, usize)> {
    let word = |c: char| regex_syntax::try_is_word_character(c).unwrap_or(false);
    if token.single_word
        && (text[..start].chars().next_back().is_some_and(word)
            || text[end..].chars().next().is_some_and(word))
    {
        return None;
    }
    let start = if token.lstrip { text[..start].trim_end().len().max(last) } else { start };
    let end = if token.rstrip { text.len() - text[end..].trim_start().len() } else { end };
    Some((start, end))
}

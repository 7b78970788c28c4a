//! EBNF in the GBNF dialect of llama.cpp.
//!
//! Rules are `name ::= alternatives`; a rule ends where the next one begins. Texts stand in double
//! quotes, classes in brackets, `.` is any character; `* + ?` and `{m}`, `{m,}`, `{m,n}` repeat;
//! `<name>` and `<[id]>` are tokens themselves. `#` begins a comment.

use rustc_hash::FxHashMap;

use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::chars::{CharSet, MAX_CHAR};
use crate::grammar::regex::Regex;
use crate::grammar::rules::{Expr, Rules};
use crate::grammar::{Grammar, Node, SpecialToken, UNBOUNDED};

/// Nesting of groups.
const MAX_DEPTH: usize = 200;

/// Reads a grammar; texts are what the rule `root` matches.
pub fn read(text: &str, root: &str) -> Result<Grammar, Error> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
        rules: Rules::default(),
        names: FxHashMap::default(),
        specials: FxHashMap::default(),
    };
    reader.read_rules()?;
    let Some(place) = reader.names.get(root) else {
        return Err(
            GrammarError::at_offset(format!("there is no rule {root:?} to begin with"), text, 0).into()
        );
    };
    let root = place.rule;
    reader.rules.finish(root)
}

struct Name {
    rule: usize,
    defined: bool,
    /// Where it was first used.
    offset: usize,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    rules: Rules,
    names: FxHashMap<&'a str, Name>,
    specials: FxHashMap<SpecialToken, u32>,
}

impl<'a> Reader<'a> {
    fn error_at(&self, message: impl Into<String>, offset: usize) -> Error {
        GrammarError::at_offset(message, self.text, offset).into()
    }

    fn error(&self, message: impl Into<String>) -> Error {
        self.error_at(message, self.at)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// White space and comments.
    fn space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                self.at += self.text[self.at..].find('\n').unwrap_or(self.text.len() - self.at);
            } else if c.is_whitespace() {
                self.at += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    fn rule(&mut self, name: &'a str, offset: usize) -> usize {
        let rules = &mut self.rules;
        let new = || Name { rule: rules.add(Expr::empty()), defined: false, offset };
        self.names.entry(name).or_insert_with(new).rule
    }

    fn read_rules(&mut self) -> Result<(), Error> {
        self.space();
        while self.at < self.text.len() {
            let start = self.at;
            let Some(name) = self.name() else { return Err(self.error("expected the name of a rule")) };
            self.space();
            if !self.text[self.at..].starts_with("::=") {
                return Err(self.error(format!("expected ::= after the name {name:?}")));
            }
            self.at += 3;
            let rule = self.rule(name, start);
            if self.names.get(name).is_some_and(|n| n.defined) {
                return Err(self.error_at(format!("the rule {name:?} is defined twice"), start));
            }
            let body = self.alternatives()?;
            self.rules.set(rule, body);
            if let Some(entry) = self.names.get_mut(name) {
                entry.defined = true;
            }
            if self.peek().is_some_and(|c| c == ')') {
                return Err(self.error("unbalanced )"));
            }
        }
        let missing = self.names.iter().filter(|(_, n)| !n.defined).min_by_key(|(_, n)| n.offset);
        match missing {
            Some((name, n)) => Err(self.error_at(format!("the rule {name:?} is not defined"), n.offset)),
            None => Ok(()),
        }
    }

    fn alternatives(&mut self) -> Result<Expr, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(LimitError { limit: "grammar nesting".into(), value: self.depth as u64 }.into());
        }
        let mut parts = vec![self.sequence()?];
        while self.take('|') {
            parts.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Choice(parts) })
    }

    /// True if the next name begins a rule.
    fn at_rule(&mut self) -> bool {
        let start = self.at;
        let found = self.name().is_some() && {
            self.space();
            self.text[self.at..].starts_with("::=")
        };
        self.at = start;
        found
    }

    fn sequence(&mut self) -> Result<Expr, Error> {
        let mut parts: Vec<Expr> = Vec::new();
        loop {
            self.space();
            let start = self.at;
            let Some(c) = self.peek() else { break };
            let part = match c {
                '|' | ')' => break,
                '"' => self.literal()?,
                '[' => self.class()?,
                '.' => {
                    self.at += 1;
                    Expr::Regular(Regex::Class(CharSet::all()))
                }
                '(' => self.group()?,
                '<' => self.special()?,
                '!' => return Err(self.error("tokens that may not stand somewhere are not supported")),
                '*' | '+' | '?' | '{' => return Err(self.error("nothing to repeat")),
                _ if self.at_rule() => break,
                _ => match self.name() {
                    Some(name) => Expr::Rule(self.rule(name, start)),
                    None => return Err(self.error("unexpected character")),
                },
            };
            parts.push(self.repeated(part)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Sequence(parts) })
    }

    fn group(&mut self) -> Result<Expr, Error> {
        let open = self.at;
        self.at += 1;
        if self.text[self.at..].starts_with('=') {
            return Err(self.error("conditions on what follows are not supported"));
        }
        let inner = self.alternatives()?;
        if !self.take(')') {
            return Err(self.error_at("unbalanced (", open));
        }
        Ok(inner)
    }

    fn repeated(&mut self, mut part: Expr) -> Result<Expr, Error> {
        loop {
            let before = self.at;
            self.space();
            let (min, max) = match self.peek() {
                Some('*') => (0, UNBOUNDED),
                Some('+') => (1, UNBOUNDED),
                Some('?') => (0, 1),
                Some('{') => self.counts()?,
                _ => {
                    self.at = before;
                    return Ok(part);
                }
            };
            if !self.text[before..self.at].contains('{') {
                self.at += 1;
            }
            part = Expr::Repeat(Box::new(part), min, max);
        }
    }

    fn counts(&mut self) -> Result<(u32, u32), Error> {
        let open = self.at;
        self.at += 1;
        self.space();
        let min = self.number()?;
        self.space();
        let (min, max) = if self.take(',') {
            self.space();
            let max = self.number()?;
            if min.is_none() && max.is_none() {
                return Err(self.error("expected a number"));
            }
            (min.unwrap_or(0), max.unwrap_or(UNBOUNDED))
        } else {
            let Some(min) = min else { return Err(self.error("expected a number")) };
            (min, min)
        };
        self.space();
        if !self.take('}') {
            return Err(self.error("expected }"));
        }
        if max < min {
            return Err(self.error_at("the counts are out of order", open));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<Option<u32>, Error> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return Ok(None);
        }
        match self.text[start..self.at].parse::<u32>() {
            Ok(value) if value < UNBOUNDED => Ok(Some(value)),
            _ => Err(self.error_at("the count is too large", start)),
        }
    }

    fn literal(&mut self) -> Result<Expr, Error> {
        let open = self.at;
        self.at += 1;
        let mut chars = Vec::new();
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => chars.push(Regex::Class(CharSet::one(self.escape()?))),
                Some('\n') | None => return Err(self.error_at("a text without closing quote", open)),
                Some(c) => chars.push(Regex::Class(CharSet::one(c.into()))),
            }
        }
        Ok(Expr::Regular(Regex::Concat(chars)))
    }

    fn class(&mut self) -> Result<Expr, Error> {
        let open = self.at;
        self.at += 1;
        let negated = self.take('^');
        let mut ranges = Vec::new();
        loop {
            let low = match self.next() {
                Some(']') => break,
                None => return Err(self.error_at("unbalanced [", open)),
                Some('\\') => self.escape()?,
                Some(c) => c.into(),
            };
            let mut high = low;
            if self.text[self.at..].starts_with('-') && !self.text[self.at..].starts_with("-]") {
                let dash = self.at;
                self.at += 1;
                high = match self.next() {
                    None => return Err(self.error_at("unbalanced [", open)),
                    Some('\\') => self.escape()?,
                    Some(c) => c.into(),
                };
                if high < low {
                    return Err(self.error_at("the range is out of order", dash));
                }
            }
            ranges.push((low, high));
        }
        let set = CharSet::from_ranges(ranges);
        Ok(Expr::Regular(Regex::Class(if negated { set.complement() } else { set })))
    }

    fn escape(&mut self) -> Result<u32, Error> {
        let start = self.at - 1;
        let digits = match self.next() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some('n') => return Ok(10),
            Some('r') => return Ok(13),
            Some('t') => return Ok(9),
            Some(c) if c.is_ascii_punctuation() => return Ok(c.into()),
            _ => return Err(self.error_at("unknown escape", start)),
        };
        let mut value = 0u32;
        for _ in 0..digits {
            let digit = self.peek().and_then(|c| c.to_digit(16));
            let Some(digit) = digit else { return Err(self.error("a hexadecimal digit is missing")) };
            value = value.wrapping_mul(16) | digit;
            self.at += 1;
        }
        if value > MAX_CHAR || (0xd800..0xe000).contains(&value) {
            return Err(self.error_at("this is no character", start));
        }
        Ok(value)
    }

    /// `<name>` or `<[12]>`.
    fn special(&mut self) -> Result<Expr, Error> {
        let open = self.at;
        let Some(end) = self.text[self.at..].find('>') else {
            return Err(self.error("a token without closing >"));
        };
        let name = &self.text[open..=open + end];
        self.at += end + 1;
        let token = match name.strip_prefix("<[").and_then(|rest| rest.strip_suffix("]>")) {
            Some(id) => match id.parse() {
                Ok(id) => SpecialToken::Ids(id, id),
                Err(_) => return Err(self.error_at("expected the id of a token", open + 2)),
            },
            None if name.len() > 2 && !name.contains(char::is_whitespace) => {
                SpecialToken::Name(name.to_owned())
            }
            None => return Err(self.error_at("expected the name of a token", open)),
        };
        let rules = &mut self.rules;
        let make = |token: &SpecialToken| rules.add_node(Node::Special(vec![token.clone()]));
        Ok(Expr::Node(*self.specials.entry(token).or_insert_with_key(make)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(text: &str) -> (Option<usize>, Option<usize>) {
        match read(text, "root") {
            Err(Error::Grammar(error)) => (error.line, error.column),
            _ => (None, None),
        }
    }

    #[test]
    fn errors_stand_where_they_are() {
        assert_eq!(place("root ::= a\na ::= \"x"), (Some(2), Some(7)));
        assert_eq!(place("root ::= b"), (Some(1), Some(10)));
        assert_eq!(place("root ::= (\"a\" \n"), (Some(1), Some(10)));
        assert_eq!(place("root ::= \"a\"{3,1}"), (Some(1), Some(13)));
        assert_eq!(place("root ::= \"a\"\nroot ::= \"b\""), (Some(2), Some(1)));
        assert_eq!(place("x ::= \"a\""), (Some(1), Some(1)));
        assert_eq!(place("root ::= [z-a]"), (Some(1), Some(12)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_read_or_refused(text in r#"(root|a|::=|\||"x"|"|\(|\)|\[a-z\]|\[|\*|\+|\?|\{2\}|\{,9\}|\{|#|\n| |<t>|\\|é){0,24}"#) {
            let _ = read(&text, "root");
            let _ = read(&format!("root ::= {text}"), "root");
        }
    }
}

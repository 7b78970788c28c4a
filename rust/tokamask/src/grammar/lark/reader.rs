//! From the text of a grammar to its definitions.

use super::{common, Definition, Document, Item, Kind, Pattern};
use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::chars::CharSet;
use crate::grammar::regex::{self, Dialect, Regex};
use crate::grammar::{SpecialToken, UNBOUNDED};

/// Nesting of groups.
const MAX_DEPTH: usize = 200;

/// Reads all definitions and statements.
pub fn read(text: &str) -> Result<Document, Error> {
    let mut reader = Reader { text, at: 0, depth: 0, nesting: 0 };
    let mut document = Document::default();
    loop {
        reader.space(true);
        match reader.peek() {
            None => return Ok(document),
            Some('%') => reader.statement(&mut document)?,
            Some(_) => {
                let definition = reader.definition()?;
                document.definitions.push(definition);
            }
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Open groups: inside, line ends mean nothing.
    nesting: usize,
}

impl<'a> Reader<'a> {
    fn error_at(&self, message: impl Into<String>, offset: usize) -> Error {
        GrammarError::at_offset(message, self.text, offset).into()
    }

    fn error(&self, message: impl Into<String>) -> Error {
        self.error_at(message, self.at)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        self.at += if found { what.len() } else { 0 };
        found
    }

    /// White space and comments; line ends only if they mean nothing here.
    fn space(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            if c == '#' || self.rest().starts_with("//") {
                self.at += self.rest().find('\n').unwrap_or(self.rest().len());
            } else if c != '\n' && c.is_whitespace() || c == '\n' && lines {
                self.at += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn blank(&mut self) {
        self.space(self.nesting > 0);
    }

    /// True if the definition goes on: on this line, or with `|` on a later one.
    fn continues(&mut self) -> bool {
        self.blank();
        if self.peek() == Some('\n') {
            let before = self.at;
            self.space(true);
            if self.peek() != Some('|') {
                self.at = before;
                return false;
            }
        }
        self.peek().is_some()
    }

    fn name(&mut self) -> Result<String, Error> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        let name = rest[..end].trim_end_matches('-');
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error("expected a name"));
        }
        self.at += name.len();
        Ok(name.to_owned())
    }

    fn end_of_line(&mut self) -> Result<(), Error> {
        self.space(false);
        match self.peek() {
            None | Some('\n') => Ok(()),
            Some(_) => Err(self.error("expected the end of the line")),
        }
    }

    fn statement(&mut self, document: &mut Document) -> Result<(), Error> {
        let start = self.at;
        self.at += 1;
        let word = self.name()?;
        self.space(false);
        match word.as_str() {
            "ignore" => {
                let item = self.choice()?;
                document.ignored.push(item);
                self.end_of_line()
            }
            "import" => {
                self.import(document, start)?;
                self.end_of_line()
            }
            "declare" => {
                while !matches!(self.peek(), None | Some('\n')) {
                    document.declared.push(self.name()?);
                    self.space(false);
                }
                Ok(())
            }
            "llguidance" => {
                self.json()?;
                self.end_of_line()
            }
            _ => Err(self.error_at(format!("the statement %{word} is not supported"), start)),
        }
    }

    fn import(&mut self, document: &mut Document, start: usize) -> Result<(), Error> {
        let module = self.name()?;
        if module != "common" {
            return Err(self.error_at("only terminals of common can be imported", start));
        }
        let mut names = Vec::new();
        self.space(false);
        if self.take(".") {
            let at = self.at;
            let name = self.name()?;
            self.space(false);
            let alias = if self.take("->") {
                self.space(false);
                self.name()?
            } else {
                name.clone()
            };
            names.push((at, name, alias));
        } else if self.take("(") {
            loop {
                self.space(true);
                let at = self.at;
                let name = self.name()?;
                names.push((at, name.clone(), name));
                self.space(true);
                if !self.take(",") {
                    break;
                }
            }
            if !self.take(")") {
                return Err(self.error("expected )"));
            }
        } else {
            return Err(self.error("expected . or ("));
        }
        for (offset, name, alias) in names {
            let Some(pattern) = common::pattern(&name) else {
                return Err(self.error_at(format!("common has no terminal {name}"), offset));
            };
            let regex = regex::parse(pattern, Dialect::Python)?;
            let body = Item { offset, kind: Kind::Pattern(Pattern { regex, lazy: false }) };
            let definition = Definition { name: alias, offset, parameters: Vec::new(), priority: 0, body };
            document.definitions.push(definition);
        }
        Ok(())
    }

    fn definition(&mut self) -> Result<Definition, Error> {
        while self.take("!") || self.take("?") {}
        let offset = self.at;
        let name = self.name()?;
        let mut parameters = Vec::new();
        if self.take("{") {
            loop {
                self.space(false);
                parameters.push(self.name()?);
                self.space(false);
                if !self.take(",") {
                    break;
                }
            }
            if !self.take("}") {
                return Err(self.error("expected }"));
            }
        }
        if self.peek() == Some('[') {
            return Err(self.error("attributes of rules are not supported"));
        }
        let mut priority = 0;
        if self.take(".") {
            let negative = self.take("-");
            let start = self.at;
            while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                self.at += 1;
            }
            priority =
                self.text[start..self.at].parse().map_err(|_| self.error_at("expected a priority", start))?;
            priority = if negative { -priority } else { priority };
        }
        self.space(false);
        if !self.take(":") {
            return Err(self.error(format!("expected : after the name {name}")));
        }
        let body = self.choice()?;
        if self.peek().is_some_and(|c| c != '\n') {
            return Err(self.error("unexpected character"));
        }
        Ok(Definition { name, offset, parameters, priority, body })
    }

    fn choice(&mut self) -> Result<Item, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(LimitError { limit: "grammar nesting".into(), value: self.depth as u64 }.into());
        }
        let offset = self.at;
        let mut parts = Vec::new();
        // The first bar may stand before the first alternative.
        if self.continues() {
            self.take("|");
        }
        loop {
            parts.push(self.sequence()?);
            if !(self.continues() && self.take("|")) {
                break;
            }
        }
        self.depth -= 1;
        let one = parts.len() == 1;
        Ok(match parts.pop() {
            Some(only) if one => only,
            Some(last) => {
                parts.push(last);
                Item { offset, kind: Kind::Choice(parts) }
            }
            None => Item { offset, kind: Kind::Choice(parts) },
        })
    }

    fn sequence(&mut self) -> Result<Item, Error> {
        let offset = self.at;
        let mut parts = Vec::new();
        loop {
            self.blank();
            match self.peek() {
                None | Some('\n' | '|' | ')' | ']' | ',' | '}') => break,
                Some('-') if self.rest().starts_with("->") => {
                    self.at += 2;
                    self.blank();
                    self.name()?;
                }
                Some(_) => {
                    let item = self.atom()?;
                    parts.push(self.repeated(item)?);
                }
            }
        }
        let one = parts.len() == 1;
        match parts.pop() {
            Some(only) if one => Ok(only),
            last => {
                parts.extend(last);
                Ok(Item { offset, kind: Kind::Sequence(parts) })
            }
        }
    }

    fn group(&mut self, close: &str) -> Result<Item, Error> {
        let open = self.at;
        self.at += 1;
        self.nesting += 1;
        let inner = self.choice()?;
        self.blank();
        if !self.take(close) {
            return Err(self.error_at(format!("a group without closing {close}"), open));
        }
        self.nesting -= 1;
        Ok(inner)
    }

    fn atom(&mut self) -> Result<Item, Error> {
        let offset = self.at;
        let kind = match self.peek() {
            Some('(') => return self.group(")"),
            Some('[') => Kind::Repeat(Box::new(self.group("]")?), 0, 1),
            Some('"') => self.literal()?,
            Some('/') => self.pattern()?,
            Some('<') => self.special()?,
            Some('%') => {
                if !self.take("%json") {
                    return Err(self.error("only %json can stand in a rule"));
                }
                self.blank();
                Kind::Json(self.json()?)
            }
            Some(c) if c.is_alphabetic() || c == '_' => {
                let name = self.name()?;
                if self.peek() == Some('{')
                    && !self.rest()[1..].trim_start().starts_with(|c: char| c.is_ascii_digit() || c == ',')
                {
                    self.at += 1;
                    self.nesting += 1;
                    let mut arguments = vec![self.choice()?];
                    while self.take(",") {
                        arguments.push(self.choice()?);
                    }
                    if !self.take("}") {
                        return Err(self.error("expected }"));
                    }
                    self.nesting -= 1;
                    Kind::Usage(name, arguments)
                } else {
                    Kind::Name(name)
                }
            }
            Some('*' | '+' | '?' | '~') => return Err(self.error("nothing to repeat")),
            _ => return Err(self.error("unexpected character")),
        };
        Ok(Item { offset, kind })
    }

    fn repeated(&mut self, mut item: Item) -> Result<Item, Error> {
        loop {
            let before = self.at;
            self.blank();
            let start = self.at;
            let (min, max) = match self.peek() {
                Some('*') => (0, UNBOUNDED),
                Some('+') => (1, UNBOUNDED),
                Some('?') => (0, 1),
                Some('~') => {
                    self.at += 1;
                    self.blank();
                    let min = self.number()?;
                    let max = if self.take("..") { self.number()? } else { min };
                    (min, max)
                }
                Some('{') => {
                    self.at += 1;
                    self.blank();
                    let min = if self.peek() == Some(',') { 0 } else { self.number()? };
                    self.blank();
                    let max = if self.take(",") {
                        self.blank();
                        if self.peek() == Some('}') {
                            UNBOUNDED
                        } else {
                            self.number()?
                        }
                    } else {
                        min
                    };
                    self.blank();
                    if !self.take("}") {
                        return Err(self.error("expected }"));
                    }
                    (min, max)
                }
                _ => {
                    self.at = before;
                    return Ok(item);
                }
            };
            if max < min {
                return Err(self.error_at("the counts are out of order", start));
            }
            if self.at == start {
                self.at += 1;
            }
            let offset = item.offset;
            item = Item { offset, kind: Kind::Repeat(Box::new(item), min, max) };
        }
    }

    fn number(&mut self) -> Result<u32, Error> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        match self.text[start..self.at].parse::<u32>() {
            Ok(value) if value < UNBOUNDED => Ok(value),
            _ => Err(self.error_at("expected a count", start)),
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        let open = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let Some(c) = self.peek() else {
                return Err(self.error_at("a text without closing quote", open));
            };
            self.at += c.len_utf8();
            match c {
                '"' => return Ok(out),
                '\n' => return Err(self.error_at("a text without closing quote", open)),
                '\\' => out.push(self.escape()?),
                _ => out.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let start = self.at - 1;
        let Some(c) = self.peek() else { return Err(self.error_at("a backslash at the end", start)) };
        self.at += c.len_utf8();
        let digits = match c {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'f' => return Ok('\u{c}'),
            'v' => return Ok('\u{b}'),
            'b' => return Ok('\u{8}'),
            'a' => return Ok('\u{7}'),
            '0' => return Ok('\0'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c if c.is_ascii_punctuation() => return Ok(c),
            _ => return Err(self.error_at("unknown escape", start)),
        };
        let mut value = 0u32;
        for _ in 0..digits {
            let digit = self.peek().and_then(|c| c.to_digit(16));
            let Some(digit) = digit else { return Err(self.error("a hexadecimal digit is missing")) };
            value = value.wrapping_mul(16) | digit;
            self.at += 1;
        }
        char::from_u32(value).ok_or_else(|| self.error_at("this is no character", start))
    }

    fn literal(&mut self) -> Result<Kind, Error> {
        let start = self.at;
        let low = self.string()?;
        if self.take("..") {
            if self.peek() != Some('"') {
                return Err(self.error("expected the last character of the range"));
            }
            let high = self.string()?;
            let (mut a, mut b) = (low.chars(), high.chars());
            return match (a.next(), a.next(), b.next(), b.next()) {
                (Some(a), None, Some(b), None) if a <= b => {
                    let set = CharSet::from_ranges([(a.into(), b.into())]);
                    Ok(Kind::Pattern(Pattern { regex: Regex::Class(set), lazy: false }))
                }
                _ => Err(self.error_at("a range goes from one character to a later one", start)),
            };
        }
        let follows = self.rest().strip_prefix('i');
        let any_case =
            follows.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'));
        self.at += usize::from(any_case);
        Ok(Kind::Literal(low, any_case))
    }

    fn pattern(&mut self) -> Result<Kind, Error> {
        let open = self.at;
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some('/') => break,
                Some('\\') => {
                    self.at += 1;
                    self.at += self.peek().map_or(0, char::len_utf8);
                }
                Some('\n') | None => return Err(self.error_at("a pattern without closing /", open)),
                Some(c) => self.at += c.len_utf8(),
            }
        }
        let mut source = self.text[start..self.at].to_owned();
        self.at += 1;
        let (mut any_case, mut dot_all) = (false, false);
        while let Some(flag @ ('i' | 'm' | 's' | 'l' | 'u' | 'x')) = self.peek() {
            match flag {
                'i' => any_case = true,
                's' => dot_all = true,
                'x' => source = without_space(&source),
                'm' | 'l' => return Err(self.error(format!("the flag {flag} is not supported"))),
                _ => {}
            }
            self.at += 1;
        }
        let found = regex::parse_python(&source, any_case, dot_all);
        let (regex, lazy) = found.map_err(|error| match error {
            Error::Grammar(inner) => self.error_at(inner.message, start + inner.column.map_or(0, |c| c - 1)),
            other => other,
        })?;
        if regex.has_assertion() {
            return Err(self.error_at("conditions on what stands around a pattern are not supported", open));
        }
        Ok(Kind::Pattern(Pattern { regex, lazy }))
    }

    /// `<name>`, `<[12]>` or `<[1-3,7]>`.
    fn special(&mut self) -> Result<Kind, Error> {
        let open = self.at;
        let line = self.rest().split('\n').next().unwrap_or_default();
        let Some(end) = line.find('>') else { return Err(self.error("a token without closing >")) };
        let name = &line[..=end];
        self.at += name.len();
        let Some(ids) = name.strip_prefix("<[").and_then(|rest| rest.strip_suffix("]>")) else {
            if name.len() < 3 || name.contains(char::is_whitespace) {
                return Err(self.error_at("expected the name of a token", open));
            }
            return Ok(Kind::Special(vec![SpecialToken::Name(name.to_owned())]));
        };
        let mut tokens = Vec::new();
        for range in ids.split(',') {
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            match (low.trim().parse(), high.trim().parse()) {
                (Ok(low), Ok(high)) if low <= high => tokens.push(SpecialToken::Ids(low, high)),
                _ => return Err(self.error_at("expected ids of tokens", open)),
            }
        }
        Ok(Kind::Special(tokens))
    }

    /// The text of one JSON value.
    fn json(&mut self) -> Result<String, Error> {
        let start = self.at;
        let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter::<serde_json::Value>();
        match values.next() {
            Some(Ok(_)) => {
                self.at += values.byte_offset();
                Ok(self.text[start..self.at].to_owned())
            }
            Some(Err(error)) => Err(self.error(format!("this is not JSON: {error}"))),
            None => Err(self.error("expected a JSON value")),
        }
    }
}

/// A verbose pattern in one piece.
fn without_space(pattern: &str) -> String {
    let (mut out, mut chars, mut in_class) = (String::new(), pattern.chars(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(chars.next());
                continue;
            }
            '[' => in_class = true,
            ']' => in_class = false,
            c if c.is_whitespace() && !in_class => continue,
            _ => {}
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_is_read_or_refused(text in r#"(start|A|a|:|\||"x"|"i|"|/a+/|/|\(|\)|\[|\]|\*|\+|\?|~2|~1\.\.3|\{2\}|\{a\}|,|\{|%ignore|%import common.|INT|->|#|\n| |<t>|<\[1\]>|\.2|\\|é|%json|\{\}){0,24}"#) {
            let _ = read(&text, "start");
            let _ = read(&format!("start: {text}"), "start");
            let _ = read(&format!("start: {text}\n%ignore \" \""), "start");
        }
    }
}

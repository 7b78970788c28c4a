//! Patterns as people write them (the dialect of JSON Schema, ECMA 262) to a syntax tree.

use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::chars::CharSet;

/// Nesting of groups that a pattern may have.
const MAX_DEPTH: usize = 200;

/// A regular expression.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Regex {
    /// One character of a set.
    Class(CharSet),
    /// One after another; empty matches the empty text.
    Concat(Vec<Regex>),
    /// One of several; empty matches nothing.
    Alternation(Vec<Regex>),
    /// Between `min` and `max` times.
    Repeat(Box<Regex>, u32, Option<u32>),
    /// The beginning of the text.
    Start,
    /// The end of the text.
    End,
    /// A condition on the rest of the text: what it must, or must not, begin with.
    Ahead(Box<Regex>, bool),
    /// Everything else than the operand matches.
    Not(Box<Regex>),
    /// What every operand matches.
    All(Vec<Regex>),
    /// An automaton spelled out: whether each state accepts, and its edges. State 0 is the start.
    Table(Vec<(bool, Vec<(CharSet, u32)>)>),
}

impl Regex {
    /// The empty text.
    pub fn empty() -> Self {
        Self::Concat(Vec::new())
    }

    /// A literal text.
    pub fn literal(text: &str) -> Self {
        Self::Concat(text.chars().map(|c| Self::Class(CharSet::one(c.into()))).collect())
    }

    /// Any text.
    pub fn anything() -> Self {
        Self::Repeat(Box::new(Self::Class(CharSet::all())), 0, None)
    }

    /// The texts in which the pattern is found somewhere, as `re.search` would: anchors at the ends
    /// of each alternative are resolved, others are left for the automaton.
    #[must_use]
    pub fn searched(self) -> Self {
        match self {
            Self::Alternation(parts) => Self::Alternation(parts.into_iter().map(Self::searched).collect()),
            Self::Concat(mut parts) if parts.len() == 1 => match parts.pop() {
                Some(part) => part.searched(),
                None => Self::anything(),
            },
            Self::Concat(parts) => {
                let mut out = Vec::with_capacity(parts.len() + 2);
                let mut parts = parts.into_iter().peekable();
                if parts.next_if_eq(&Self::Start).is_none() {
                    out.push(Self::anything());
                }
                while parts.next_if_eq(&Self::Start).is_some() {}
                out.extend(parts);
                if out.last() == Some(&Self::End) {
                    while out.last() == Some(&Self::End) {
                        out.pop();
                    }
                } else {
                    out.push(Self::anything());
                }
                Self::Concat(out)
            }
            Self::Start | Self::End => Self::anything(),
            other => Self::Concat(vec![Self::anything(), other, Self::anything()]),
        }
    }

    fn has_ahead(&self) -> bool {
        match self {
            Self::Ahead(..) => true,
            Self::Class(_) | Self::Table(_) | Self::Start | Self::End => false,
            Self::Concat(parts) | Self::Alternation(parts) | Self::All(parts) => {
                parts.iter().any(Self::has_ahead)
            }
            Self::Repeat(part, ..) | Self::Not(part) => part.has_ahead(),
        }
    }

    /// True if a condition is left that looks beyond the characters it consumes.
    pub fn has_assertion(&self) -> bool {
        match self {
            Self::Start | Self::End | Self::Ahead(..) => true,
            Self::Class(_) | Self::Table(_) => false,
            Self::Concat(parts) | Self::Alternation(parts) | Self::All(parts) => {
                parts.iter().any(Self::has_assertion)
            }
            Self::Repeat(part, ..) | Self::Not(part) => part.has_assertion(),
        }
    }
}

/// The texts in which a pattern is found, as a conjunction: conditions on what follows, right after
/// a leading `^`, become parts of their own.
pub fn search_parts(regex: Regex) -> Result<Vec<(Regex, bool)>, Error> {
    let mut out = Vec::new();
    let rest = match regex {
        Regex::Concat(parts) if parts.first() == Some(&Regex::Start) => {
            let mut rest = vec![Regex::Start];
            let mut leading = true;
            for part in parts.into_iter().skip(1) {
                match part {
                    Regex::Ahead(inner, positive) if leading => {
                        out.push((Regex::Concat(vec![Regex::Start, *inner]).searched(), positive));
                    }
                    other => {
                        leading = false;
                        rest.push(other);
                    }
                }
            }
            Regex::Concat(rest)
        }
        other => other,
    };
    out.push((rest.searched(), true));
    if out.iter().any(|part| part.0.has_ahead()) {
        let message = "pattern: conditions on what follows are supported only right after a leading ^";
        return Err(GrammarError {
            message: message.into(),
            source_text: None,
            line: None,
            column: None,
            json_pointer: None,
        }
        .into());
    }
    Ok(out)
}

/// One pattern for a signed conjunction.
pub fn conjunction(parts: &[(Regex, bool)]) -> Regex {
    let signed = |(regex, positive): &(Regex, bool)| {
        if *positive {
            regex.clone()
        } else {
            Regex::Not(Box::new(regex.clone()))
        }
    };
    match parts {
        [only] => signed(only),
        many => Regex::All(many.iter().map(signed).collect()),
    }
}

/// Digits, as `\d` means in ECMA 262.
pub fn digits() -> CharSet {
    CharSet::from_ranges([(0x30, 0x39)])
}

fn word() -> CharSet {
    CharSet::from_ranges([(0x30, 0x39), (0x41, 0x5a), (0x5f, 0x5f), (0x61, 0x7a)])
}

fn space() -> CharSet {
    let ranges = [
        (9, 13),
        (32, 32),
        (0xa0, 0xa0),
        (0x1680, 0x1680),
        (0x2000, 0x200a),
        (0x2028, 0x2029),
        (0x202f, 0x202f),
        (0x205f, 0x205f),
        (0x3000, 0x3000),
        (0xfeff, 0xfeff),
    ];
    CharSet::from_ranges(ranges)
}

/// Which dialect a pattern is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// JSON Schema.
    Ecma,
    /// `&` and `~` are intersection and complement as well.
    Extended,
    /// Python's `re`: classes are those of Unicode, a dot is all but a line feed.
    Python,
}

/// Reads a pattern.
pub fn parse(pattern: &str, dialect: Dialect) -> Result<Regex, Error> {
    let chars: Vec<(usize, char)> = pattern.char_indices().collect();
    let mut parser = Parser {
        text: pattern,
        chars,
        at: 0,
        dialect,
        depth: 0,
        ignore_case: false,
        dot_all: false,
        lazy: false,
    };
    parser.whole()
}

/// Reads a pattern of Python's `re` with its flags; also says whether some repetition is lazy.
pub fn parse_python(pattern: &str, ignore_case: bool, dot_all: bool) -> Result<(Regex, bool), Error> {
    let chars: Vec<(usize, char)> = pattern.char_indices().collect();
    let dialect = Dialect::Python;
    let mut parser =
        Parser { text: pattern, chars, at: 0, dialect, depth: 0, ignore_case, dot_all, lazy: false };
    Ok((parser.whole()?, parser.lazy))
}

struct Parser<'a> {
    text: &'a str,
    chars: Vec<(usize, char)>,
    at: usize,
    dialect: Dialect,
    depth: usize,
    ignore_case: bool,
    dot_all: bool,
    /// A lazy repetition was seen.
    lazy: bool,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Regex, Error> {
        let regex = self.alternation()?;
        if self.at < self.chars.len() {
            return Err(self.error("unbalanced )"));
        }
        Ok(regex)
    }

    /// The class of a letter after a backslash, in Unicode where the dialect says so.
    fn named(&self, name: &str, ascii: CharSet) -> CharSet {
        if self.dialect != Dialect::Python {
            return ascii;
        }
        match regex_syntax::parse(name).map(regex_syntax::hir::Hir::into_kind) {
            Ok(regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class))) => {
                CharSet::from_ranges(class.iter().map(|r| (r.start().into(), r.end().into())))
            }
            _ => ascii,
        }
    }

    fn error(&self, message: &str) -> Error {
        let offset = self.chars.get(self.at).map_or(self.text.len(), |c| c.0);
        GrammarError::at_offset(format!("pattern: {message}"), self.text, offset).into()
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|c| c.1)
    }

    fn peek_at(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).map(|c| c.1)
    }

    fn take(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn take_text(&mut self, text: &str) -> bool {
        let found = text.chars().enumerate().all(|(i, c)| self.peek_at(i) == Some(c));
        if found {
            self.at += text.chars().count();
        }
        found
    }

    fn alternation(&mut self) -> Result<Regex, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(LimitError { limit: "pattern nesting".into(), value: self.depth as u64 }.into());
        }
        let mut parts = vec![self.conjunction()?];
        while self.take('|') {
            parts.push(self.conjunction()?);
        }
        self.depth -= 1;
        Ok(if parts.len() == 1 { parts.remove(0) } else { Regex::Alternation(parts) })
    }

    fn conjunction(&mut self) -> Result<Regex, Error> {
        let mut parts = vec![self.concat()?];
        while self.dialect == Dialect::Extended && self.take('&') {
            parts.push(self.concat()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Regex::All(parts) })
    }

    fn concat(&mut self) -> Result<Regex, Error> {
        let mut parts = Vec::new();
        while let Some(c) = self.peek() {
            if c == '|' || c == ')' || c == '&' && self.dialect == Dialect::Extended {
                break;
            }
            parts.push(self.repeat()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Regex::Concat(parts) })
    }

    fn repeat(&mut self) -> Result<Regex, Error> {
        if self.dialect == Dialect::Extended && self.take('~') {
            return Ok(Regex::Not(Box::new(self.repeat()?)));
        }
        let mut regex = self.atom()?;
        loop {
            let start = self.at;
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => match self.counts()? {
                    Some(counts) => counts,
                    None => return Ok(regex),
                },
                _ => return Ok(regex),
            };
            if self.at == start {
                self.at += 1;
            }
            self.lazy |= self.take('?'); // lazy or greedy: the language is the same
            if matches!(regex, Regex::Start | Regex::End | Regex::Ahead(..)) {
                return Err(self.error("nothing to repeat"));
            }
            regex = Regex::Repeat(Box::new(regex), min, max);
        }
    }

    /// `{m}`, `{m,}`, `{m,n}`; None if the brace is a literal.
    fn counts(&mut self) -> Result<Option<(u32, Option<u32>)>, Error> {
        let start = self.at;
        self.at += 1;
        let min = self.number()?;
        let (min, max) = match (min, self.take(',')) {
            (Some(min), false) => (min, Some(min)),
            (Some(min), true) => (min, self.number()?),
            (None, _) => {
                self.at = start;
                return Ok(None);
            }
        };
        if !self.take('}') {
            self.at = start;
            return Ok(None);
        }
        if max.is_some_and(|max| max < min) {
            self.at = start;
            return Err(self.error("the counts are out of order"));
        }
        Ok(Some((min, max)))
    }

    fn number(&mut self) -> Result<Option<u32>, Error> {
        let mut value: Option<u32> = None;
        while let Some(digit) = self.peek().and_then(|c| c.to_digit(10)) {
            let next = value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(digit));
            value = Some(next.ok_or_else(|| self.error("the count is too large"))?);
            self.at += 1;
        }
        Ok(value)
    }

    fn class(&self, set: CharSet) -> Regex {
        if !self.ignore_case {
            return Regex::Class(set);
        }
        let bits = set.ascii();
        let flipped = (65..=90u32).filter(|&c| bits >> c & 1 == 1 || bits >> (c + 32) & 1 == 1);
        let both: Vec<(u32, u32)> = flipped.flat_map(|c| [(c, c), (c + 32, c + 32)]).collect();
        Regex::Class(set.union(&CharSet::from_ranges(both)))
    }

    fn atom(&mut self) -> Result<Regex, Error> {
        let Some(c) = self.peek() else { return Ok(Regex::empty()) };
        match c {
            '(' => self.group(),
            '[' => {
                let set = self.bracket()?;
                Ok(self.class(set))
            }
            '.' => {
                self.at += 1;
                let outside = match self.dialect {
                    _ if self.dot_all => CharSet::default(),
                    Dialect::Python => CharSet::one(10),
                    _ => CharSet::from_ranges([(10, 10), (13, 13), (0x2028, 0x2029)]),
                };
                Ok(Regex::Class(outside.complement()))
            }
            '^' => {
                self.at += 1;
                Ok(Regex::Start)
            }
            '$' => {
                self.at += 1;
                Ok(Regex::End)
            }
            '*' | '+' | '?' => Err(self.error("nothing to repeat")),
            '{' if self.counts()?.is_some() => Err(self.error("nothing to repeat")),
            '\\' => {
                if self.peek_at(1) == Some('b') || self.peek_at(1) == Some('B') {
                    return Err(self.error("word boundaries are not supported"));
                }
                if self.peek_at(1).is_some_and(|c| ('1'..='9').contains(&c) || c == 'k') {
                    return Err(self.error("back references are not regular"));
                }
                if self.take_text("\\A") {
                    return Ok(Regex::Start);
                }
                if self.take_text("\\Z") || self.take_text("\\z") {
                    return Ok(Regex::End);
                }
                let set = self.escape()?;
                Ok(self.class(set))
            }
            _ => {
                self.at += 1;
                Ok(self.class(CharSet::one(c.into())))
            }
        }
    }

    fn group(&mut self) -> Result<Regex, Error> {
        let open = self.at;
        self.at += 1;
        let outer_case = self.ignore_case;
        let mut ahead = None;
        if self.take('?') {
            if self.take(':') {
            } else if self.take('=') {
                ahead = Some(true);
            } else if self.take('!') {
                ahead = Some(false);
            } else if self.take_text("i:") {
                self.ignore_case = true;
            } else if self.take_text("i)") {
                // Up to the end of the enclosing group.
                self.ignore_case = true;
                return Ok(Regex::empty());
            } else if self.take_text("<=") || self.take_text("<!") {
                self.at = open;
                return Err(self.error("conditions on the text before are not supported"));
            } else if self.take_text("P<") || self.take('<') {
                while self.peek().is_some_and(|c| c != '>') {
                    self.at += 1;
                }
                if !self.take('>') {
                    return Err(self.error("unfinished group name"));
                }
            } else {
                return Err(self.error("unknown group"));
            }
        }
        let inner = self.alternation()?;
        self.ignore_case = outer_case;
        if !self.take(')') {
            self.at = open;
            return Err(self.error("unbalanced ("));
        }
        Ok(match ahead {
            Some(positive) => Regex::Ahead(Box::new(inner), positive),
            None => inner,
        })
    }

    fn bracket(&mut self) -> Result<CharSet, Error> {
        let open = self.at;
        self.at += 1;
        let negated = self.take('^');
        let mut set = CharSet::default();
        loop {
            let Some(c) = self.peek() else {
                self.at = open;
                return Err(self.error("unbalanced ["));
            };
            if c == ']' {
                self.at += 1;
                break;
            }
            let low = self.bracket_item(c)?;
            let single = (low.len() == 1).then(|| low.ranges()[0].0);
            if let (Some(first), Some('-'), Some(next)) = (single, self.peek(), self.peek_at(1)) {
                if next != ']' {
                    self.at += 1;
                    let high = self.bracket_item(next)?;
                    if high.len() == 1 {
                        let last = high.ranges()[0].0;
                        if last < first {
                            return Err(self.error("the range is out of order"));
                        }
                        set = set.union(&CharSet::from_ranges([(first, last)]));
                    } else {
                        set = set.union(&low).union(&CharSet::one('-'.into())).union(&high);
                    }
                    continue;
                }
            }
            set = set.union(&low);
        }
        Ok(if negated { set.complement() } else { set })
    }

    fn bracket_item(&mut self, c: char) -> Result<CharSet, Error> {
        if c == '\\' {
            if self.take_text("\\b") {
                return Ok(CharSet::one(8));
            }
            return self.escape();
        }
        if c == '[' && self.peek_at(1) == Some(':') {
            return Err(self.error("POSIX classes are not supported"));
        }
        self.at += 1;
        Ok(CharSet::one(c.into()))
    }

    fn escape(&mut self) -> Result<CharSet, Error> {
        self.at += 1;
        let Some(c) = self.peek() else { return Err(self.error("a backslash at the end")) };
        self.at += 1;
        Ok(match c {
            'd' => self.named("\\d", digits()),
            'D' => self.named("\\d", digits()).complement(),
            'w' => self.named("\\w", word()),
            'W' => self.named("\\w", word()).complement(),
            's' => self.named("\\s", space()),
            'S' => self.named("\\s", space()).complement(),
            'n' => CharSet::one(10),
            'r' => CharSet::one(13),
            't' => CharSet::one(9),
            'f' => CharSet::one(12),
            'v' => CharSet::one(11),
            '0' => CharSet::one(0),
            'x' => CharSet::one(self.hex(2)?),
            'u' if self.take('{') => {
                let mut value = 0u32;
                while let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) {
                    value = value.saturating_mul(16).saturating_add(digit);
                    self.at += 1;
                }
                if !self.take('}') || value > 0x10_ffff {
                    return Err(self.error("bad code point"));
                }
                CharSet::one(value)
            }
            'u' => {
                let high = self.hex(4)?;
                if (0xd800..0xdc00).contains(&high) && self.take_text("\\u") {
                    let low = self.hex(4)?;
                    CharSet::one(0x1_0000 + ((high & 0x3ff) << 10 | low & 0x3ff))
                } else {
                    CharSet::one(high)
                }
            }
            'c' => {
                let letter = self.peek().filter(char::is_ascii_alphabetic);
                self.at += 1;
                CharSet::one(letter.map(u32::from).ok_or_else(|| self.error("bad control escape"))? & 31)
            }
            'p' | 'P' => {
                let set = self.property()?;
                if c == 'P' {
                    set.complement()
                } else {
                    set
                }
            }
            c if c.is_ascii_alphanumeric() => {
                self.at -= 1;
                return Err(self.error("unknown escape"));
            }
            c => CharSet::one(c.into()),
        })
    }

    fn hex(&mut self, digits: usize) -> Result<u32, Error> {
        let mut value = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|c| c.to_digit(16));
            value = value * 16 + digit.ok_or_else(|| self.error("a hexadecimal digit is missing"))?;
            self.at += 1;
        }
        Ok(value)
    }

    /// `\p{...}`: the tables are those of regex-syntax.
    fn property(&mut self) -> Result<CharSet, Error> {
        if !self.take('{') {
            return Err(self.error("a property in braces is missing"));
        }
        let mut name = String::new();
        while let Some(c) = self.peek().filter(|&c| c != '}') {
            name.push(c);
            self.at += 1;
        }
        let hir = regex_syntax::parse(&format!("\\p{{{name}}}"));
        let known = self.take('}')
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_=".contains(c));
        let Ok(hir) = hir.map_err(|_| ()).and_then(|hir| if known { Ok(hir) } else { Err(()) }) else {
            return Err(self.error("unknown character property"));
        };
        match hir.kind() {
            regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
                Ok(CharSet::from_ranges(class.iter().map(|r| (r.start().into(), r.end().into()))))
            }
            regex_syntax::hir::HirKind::Literal(literal) => {
                let text = String::from_utf8_lossy(&literal.0);
                Ok(CharSet::from_ranges(text.chars().map(|c| (c.into(), c.into()))))
            }
            _ => Err(self.error("unknown character property")),
        }
    }
}

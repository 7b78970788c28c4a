//! JSON as schemas need it: members in order, numbers by their text, places for errors.

use crate::error::{Error, GrammarError, LimitError};

/// Nesting that a schema document may have.
const MAX_DEPTH: usize = 256;

/// A JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Json {
    Null,
    Bool(bool),
    Number(Decimal),
    String(String),
    Array(Vec<Json>),
    /// Members in the order of the text; of a name given twice the last stands.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The member of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.members().iter().find(|m| m.0 == name).map(|m| &m.1)
    }

    /// The members of an object; empty for anything else.
    pub fn members(&self) -> &[(String, Json)] {
        match self {
            Json::Object(members) => members,
            _ => &[],
        }
    }

    /// The items of an array.
    pub fn items(&self) -> Option<&[Json]> {
        match self {
            Json::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// A non-negative integer that fits; larger ones are cut at `u32::MAX - 1`.
    pub fn count(&self) -> Option<u32> {
        match self {
            Json::Number(number) if !number.negative && number.is_integer() => {
                Some(number.to_u64().map_or(u32::MAX - 1, |v| v.min(u64::from(u32::MAX - 1)) as u32))
            }
            _ => None,
        }
    }

    /// Equality as JSON Schema means it: numbers by value, objects whatever the order.
    pub fn same(&self, other: &Json) -> bool {
        match (self, other) {
            (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Json::Object(a), Json::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(name, a)| other.get(name).is_some_and(|b| a.same(b)))
            }
            _ => self == other,
        }
    }
}

/// A decimal number: `digits` * 10^`exponent`, without zeros at either end; zero has no digits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decimal {
    /// Below zero.
    pub negative: bool,
    /// Significant digits, `0..=9` each.
    pub digits: Vec<u8>,
    /// Power of ten of the last digit.
    pub exponent: i64,
}

impl Decimal {
    /// Reads the text of a JSON number.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (negative, mantissa) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|b| b.wrapping_sub(b'0')).collect();
        if digits.is_empty() || digits.iter().any(|&d| d > 9) {
            return None;
        }
        Some(Self::normal(negative, digits, exponent.checked_sub(fraction.len() as i64)?))
    }

    fn normal(negative: bool, mut digits: Vec<u8>, mut exponent: i64) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
            exponent += 1;
        }
        let zeros = digits.iter().take_while(|&&d| d == 0).count();
        digits.drain(..zeros);
        if digits.is_empty() {
            return Self::default();
        }
        Self { negative, digits, exponent }
    }

    /// True if there is no fraction.
    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// True for zero.
    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// The value, if it is a `u64`.
    pub fn to_u64(&self) -> Option<u64> {
        if self.negative || self.exponent < 0 || self.exponent > 20 {
            return None;
        }
        let digits = self.digits.iter().copied().chain(std::iter::repeat_n(0, self.exponent as usize));
        digits.into_iter().try_fold(0u64, |v, d| v.checked_mul(10)?.checked_add(u64::from(d)))
    }

    /// Digits before and after the point, without a sign. Numbers of more than `limit` digits are refused.
    pub fn plain(&self, limit: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let n = self.digits.len() as i64;
        if self.exponent.unsigned_abs() as usize > limit || n as usize > limit {
            return None;
        }
        let point = n + self.exponent;
        let whole: Vec<u8> =
            (0..point.max(0)).map(|i| self.digits.get(i as usize).copied().unwrap_or(0)).collect();
        let fraction: Vec<u8> =
            (point..n.max(point)).map(|i| if i < 0 { 0 } else { self.digits[i as usize] }).collect();
        Some((whole, fraction))
    }
}

/// Reads one JSON document.
pub fn parse(text: &str) -> Result<Json, Error> {
    let mut parser = Parser { text, bytes: text.as_bytes(), at: 0, depth: 0 };
    let value = parser.value()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.error("text after the end of the JSON document"));
    }
    Ok(value)
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error(&self, message: &str) -> Error {
        GrammarError::at_offset(format!("JSON: {message}"), self.text, self.at).into()
    }

    fn space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.peek() != Some(byte) {
            return Err(self.error(&format!("expected {:?}", byte as char)));
        }
        self.at += 1;
        Ok(())
    }

    fn value(&mut self) -> Result<Json, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(LimitError { limit: "JSON nesting".into(), value: self.depth as u64 }.into());
        }
        let value = match self.peek() {
            Some(b'{') => self.object()?,
            Some(b'[') => self.array()?,
            Some(b'"') => Json::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => {
                let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
                let rest = &self.bytes[self.at.min(self.bytes.len())..];
                match words.into_iter().find(|(word, _)| rest.starts_with(word.as_bytes())) {
                    Some((word, value)) => {
                        self.at += word.len();
                        value
                    }
                    None => return Err(self.error("expected a value")),
                }
            }
        };
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Result<Json, Error> {
        self.at += 1;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut places: rustc_hash::FxHashMap<String, usize> = rustc_hash::FxHashMap::default();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a member name"));
            }
            let name = self.string()?;
            self.expect(b':')?;
            let value = self.value()?;
            // Few members are compared one by one; many are looked up.
            if members.len() == 16 {
                places = members.iter().enumerate().map(|(i, m)| (m.0.clone(), i)).collect();
            }
            let known = if members.len() < 16 {
                members.iter().position(|m| m.0 == name)
            } else {
                places.insert(name.clone(), members.len())
            };
            match known {
                Some(i) => {
                    if members.len() >= 16 {
                        places.insert(name, i);
                    }
                    members[i].1 = value;
                }
                None => members.push((name, value)),
            }
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return Err(self.error("expected , or }")),
            }
        }
        self.at += 1;
        Ok(Json::Object(members))
    }

    fn array(&mut self) -> Result<Json, Error> {
        self.at += 1;
        let mut items = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return Err(self.error("expected , or ]")),
            }
        }
        self.at += 1;
        Ok(Json::Array(items))
    }

    fn number(&mut self) -> Result<Json, Error> {
        let start = self.at;
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let unsigned = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let proper = !(unsigned.len() > 1 && unsigned[0] == b'0' && unsigned[1].is_ascii_digit())
            && unsigned.first().is_some_and(u8::is_ascii_digit);
        if let Some(number) = Decimal::parse(text).filter(|_| proper) {
            return Ok(Json::Number(number));
        }
        self.at = start;
        Err(self.error("bad number"))
    }

    fn string(&mut self) -> Result<String, Error> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let run = self.at;
            while self.bytes.get(self.at).is_some_and(|&b| b != b'"' && b != b'\\' && b >= 0x20) {
                self.at += 1;
            }
            out.push_str(&self.text[run..self.at]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    let c = self.escape()?;
                    out.push(c);
                }
                Some(_) => return Err(self.error("a control character in a string")),
                None => return Err(self.error("unfinished string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        self.at += 1;
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(b @ (b'"' | b'\\' | b'/')) => b as char,
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hex()?;
                let code = if (0xd800..0xdc00).contains(&high) && self.bytes[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hex()?;
                    0x1_0000 + ((high & 0x3ff) << 10) + (low & 0x3ff)
                } else {
                    high
                };
                // A lone surrogate is no character: it can never be matched.
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.error("bad escape")),
        })
    }

    fn hex(&mut self) -> Result<u32, Error> {
        let digits = self.bytes.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let value = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        self.at += 4;
        value.ok_or_else(|| self.error("bad \\u escape"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_by_value() {
        let n = |t: &str| Decimal::parse(t).expect("a number");
        assert_eq!(n("1.0"), n("1"));
        assert_eq!(n("1e2"), n("100.00"));
        assert_eq!(n("-0.0"), n("0"));
        assert_ne!(n("0.1"), n("0.10000000000000001"));
        assert_eq!(n("12.50").plain(99), Some((vec![1, 2], vec![5])));
        assert_eq!(n("0.05").plain(99), Some((vec![], vec![0, 5])));
        assert_eq!(n("1200").to_u64(), Some(1200));
    }

    #[test]
    fn places_are_named() {
        let Err(Error::Grammar(error)) = parse("{\n  \"a\": tru\n}") else { panic!("must fail") };
        assert_eq!((error.line, error.column), (Some(2), Some(8)));
        assert!(parse("[1,]").is_err());
        assert!(parse("01").is_err());
        assert!(parse("\"\\ud800\"").is_ok());
        assert!(matches!(parse(&"[".repeat(100_000)), Err(Error::Limit(_))));
    }
}

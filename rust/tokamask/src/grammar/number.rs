//! JSON numbers between bounds, as patterns over their digits.

use crate::error::LimitError;
use crate::grammar::chars::CharSet;
use crate::grammar::json::Decimal;
use crate::grammar::regex::{digits, Regex};

/// States that the remainders of `multipleOf` may take.
const MAX_STATES: u64 = 10_000;

fn class(low: u8, high: u8) -> Regex {
    Regex::Class(CharSet::from_ranges([(u32::from(b'0' + low), u32::from(b'0' + high))]))
}

fn text(digits: &[u8]) -> Regex {
    Regex::Concat(digits.iter().map(|&d| class(d, d)).collect())
}

fn many(min: u32, max: Option<u32>) -> Regex {
    Regex::Repeat(Box::new(Regex::Class(digits())), min, max)
}

fn optional(regex: Regex) -> Regex {
    Regex::Repeat(Box::new(regex), 0, Some(1))
}

fn point(rest: Vec<Regex>) -> Regex {
    Regex::Concat(std::iter::once(Regex::literal(".")).chain(rest).collect())
}

fn fraction() -> Regex {
    optional(point(vec![many(1, None)]))
}

/// Digits before the point, without zeros in front.
fn whole() -> Regex {
    Regex::Alternation(vec![class(0, 0), Regex::Concat(vec![class(1, 9), many(0, None)])])
}

fn zeros() -> Regex {
    Regex::Repeat(Box::new(class(0, 0)), 0, None)
}

/// Every integer. `1.0` is an integer to JSON Schema; one zero is enough.
pub fn integer() -> Regex {
    Regex::Concat(vec![optional(Regex::literal("-")), whole(), optional(Regex::literal(".0"))])
}

/// Every integer of the drafts up to 5, to which `1.0` is none.
pub fn bare_integer() -> Regex {
    Regex::Concat(vec![optional(Regex::literal("-")), whole()])
}

/// Every number.
pub fn number() -> Regex {
    let sign = Regex::Class(CharSet::from_ranges([(0x2b, 0x2b), (0x2d, 0x2d)]));
    let e = Regex::Class(CharSet::from_ranges([(0x45, 0x45), (0x65, 0x65)]));
    let exponent = Regex::Concat(vec![e, optional(sign), many(1, None)]);
    Regex::Concat(vec![optional(Regex::literal("-")), whole(), fraction(), optional(exponent)])
}

/// Every number without an exponent.
pub fn plain_number() -> Regex {
    Regex::Concat(vec![optional(Regex::literal("-")), whole(), fraction()])
}

/// Digits of a bound: (whole, at least one digit; fraction, last digit not zero).
type Magnitude = (Vec<u8>, Vec<u8>);

/// Unsigned texts at least as large as the bound.
fn magnitude_from((w, f): &Magnitude, strict: bool) -> Regex {
    let mut options = vec![Regex::Concat(vec![class(1, 9), many(w.len() as u32, None), fraction()])];
    for (i, &d) in w.iter().enumerate() {
        if d < 9 {
            let rest = (w.len() - i - 1) as u32;
            options.push(Regex::Concat(vec![
                text(&w[..i]),
                class(d + 1, 9),
                many(rest, Some(rest)),
                fraction(),
            ]));
        }
    }
    options.push(Regex::Concat(vec![text(w), fraction_from(f, strict)]));
    Regex::Alternation(options)
}

/// Fractions, the point included, of at least that of the bound.
fn fraction_from(f: &[u8], strict: bool) -> Regex {
    let mut same = Vec::new();
    for (i, &d) in f.iter().enumerate() {
        if d < 9 {
            same.push(point(vec![text(&f[..i]), class(d + 1, 9), many(0, None)]));
        }
    }
    let more = vec![text(f), many(0, None), class(1, 9), many(0, None)];
    same.push(match (strict, f.is_empty()) {
        (true, _) => point(more),
        (false, true) => fraction(),
        (false, false) => point(vec![text(f), many(0, None)]),
    });
    Regex::Alternation(same)
}

/// Unsigned texts at most as large as the bound.
fn magnitude_to((w, f): &Magnitude, strict: bool) -> Regex {
    let mut options = Vec::new();
    if w.len() > 1 {
        let longest = w.len() as u32 - 2;
        let shorter = Regex::Concat(vec![class(1, 9), many(0, Some(longest))]);
        options.push(Regex::Concat(vec![Regex::Alternation(vec![class(0, 0), shorter]), fraction()]));
    }
    for (i, &d) in w.iter().enumerate() {
        let least = u8::from(i == 0 && w.len() > 1);
        if d > least {
            let rest = (w.len() - i - 1) as u32;
            options.push(Regex::Concat(vec![
                text(&w[..i]),
                class(least, d - 1),
                many(rest, Some(rest)),
                fraction(),
            ]));
        }
    }
    options.push(Regex::Concat(vec![text(w), fraction_to(f, strict)]));
    Regex::Alternation(options)
}

/// Fractions, the point included, of at most that of the bound.
fn fraction_to(f: &[u8], strict: bool) -> Regex {
    let mut same = Vec::new();
    if !f.is_empty() {
        same.push(Regex::empty());
    }
    for (i, &d) in f.iter().enumerate() {
        if d > 0 {
            same.push(point(vec![text(&f[..i]), class(0, d - 1), many(0, None)]));
        }
        if i > 0 {
            same.push(point(vec![text(&f[..i])]));
        }
    }
    match (strict, f.is_empty()) {
        (true, _) => {}
        (false, true) => same.push(optional(point(vec![class(0, 0), zeros()]))),
        (false, false) => same.push(point(vec![text(f), zeros()])),
    }
    Regex::Alternation(same)
}

/// Digits of a whole number below or above `n`, zeros in front allowed.
fn whole_beyond(n: u64, above: bool) -> Option<Regex> {
    let w: Vec<u8> = n.to_string().bytes().map(|b| b - b'0').collect();
    let mut options = Vec::new();
    for (i, &d) in w.iter().enumerate() {
        let rest = (w.len() - i - 1) as u32;
        let (low, high) = if above { (d + 1, 9) } else { (0, d.wrapping_sub(1)) };
        if low <= high && (above || d > 0) {
            options.push(Regex::Concat(vec![text(&w[..i]), class(low, high), many(rest, Some(rest))]));
        }
    }
    if above {
        options.push(Regex::Concat(vec![class(1, 9), many(w.len() as u32, None)]));
    } else {
        options.push(many(1, Some(w.len() as u32 - 1)));
    }
    options.retain(|option| !matches!(option, Regex::Repeat(_, 1, Some(0))));
    (!options.is_empty()).then(|| Regex::Concat(vec![zeros(), Regex::Alternation(options)]))
}

fn plus() -> Regex {
    optional(Regex::literal("+"))
}

/// Exponents, from the letter on, of more or less than `k`.
fn exponent_beyond(k: i64, above: bool) -> Regex {
    let any = || many(1, None);
    let (n, e) = (k.unsigned_abs(), Regex::Class(CharSet::from_ranges([(0x45, 0x45), (0x65, 0x65)])));
    let mut options = Vec::new();
    let signed = |sign: Regex, digits: Option<Regex>| digits.map(|d| Regex::Concat(vec![sign, d]));
    match (above, k < 0) {
        (true, false) => options.extend(signed(plus(), whole_beyond(n, true))),
        (true, true) => {
            options.extend(signed(plus(), Some(any())));
            options.extend(signed(Regex::literal("-"), whole_beyond(n, false)));
        }
        (false, false) if k == 0 => options.extend(signed(Regex::literal("-"), whole_beyond(0, true))),
        (false, false) => {
            options.extend(signed(plus(), whole_beyond(n, false)));
            options.extend(signed(Regex::literal("-"), Some(any())));
        }
        (false, true) => options.extend(signed(Regex::literal("-"), whole_beyond(n, true))),
    }
    Regex::Concat(vec![e, Regex::Alternation(options)])
}

fn exponent_of(k: i64) -> Regex {
    let sign = match k {
        0 => Regex::Class(CharSet::from_ranges([(0x2b, 0x2b), (0x2d, 0x2d)])),
        1.. => Regex::literal("+"),
        _ => Regex::literal("-"),
    };
    let sign = if k < 0 { sign } else { optional(sign) };
    let e = Regex::Class(CharSet::from_ranges([(0x45, 0x45), (0x65, 0x65)]));
    Regex::Concat(vec![e, sign, zeros(), Regex::literal(&k.unsigned_abs().to_string())])
}

/// Unsigned numbers with an exponent and one digit, not zero, before the point: what programs write.
fn scientific() -> Regex {
    let sign = Regex::Class(CharSet::from_ranges([(0x2b, 0x2b), (0x2d, 0x2d)]));
    let e = Regex::Class(CharSet::from_ranges([(0x45, 0x45), (0x65, 0x65)]));
    Regex::Concat(vec![class(1, 9), fraction(), e, optional(sign), many(1, None)])
}

/// Every number without an exponent, or with one as in [`scientific`].
pub fn written_number() -> Regex {
    Regex::Alternation(vec![plain_number(), Regex::Concat(vec![optional(Regex::literal("-")), scientific()])])
}

/// Those of [`scientific`] that are at least or at most as large as the bound, which is not zero.
fn scientific_beyond(bound: &Decimal, strict: bool, above: bool) -> Regex {
    let (d, f) = (bound.digits[0], &bound.digits[1..]);
    let k = bound.exponent.saturating_add(f.len() as i64);
    let mut same = Vec::new();
    let (low, high) = if above { (d + 1, 9) } else { (1, d - 1) };
    if low <= high {
        same.push(Regex::Concat(vec![class(low, high), fraction()]));
    }
    same.push(Regex::Concat(vec![
        class(d, d),
        if above { fraction_from(f, strict) } else { fraction_to(f, strict) },
    ]));
    Regex::Alternation(vec![
        Regex::Concat(vec![class(1, 9), fraction(), exponent_beyond(k, above)]),
        Regex::Concat(vec![Regex::Alternation(same), exponent_of(k)]),
    ])
}

fn magnitude(bound: &Decimal, limit: usize) -> Option<Magnitude> {
    let (mut w, f) = bound.plain(limit)?;
    if w.is_empty() {
        w.push(0);
    }
    Some((w, f))
}

fn minus(regex: Regex) -> Regex {
    Regex::Concat(vec![Regex::literal("-"), regex])
}

fn unsigned() -> Regex {
    Regex::Alternation(vec![Regex::Concat(vec![whole(), fraction()]), scientific()])
}

/// Unsigned texts at least (`above`) or at most as large as the bound.
fn beyond(bound: &Decimal, m: &Magnitude, strict: bool, above: bool) -> Regex {
    let plain = if above { magnitude_from(m, strict) } else { magnitude_to(m, strict) };
    match (bound.is_zero(), above) {
        (false, _) => Regex::Alternation(vec![plain, scientific_beyond(bound, strict, above)]),
        (true, true) => Regex::Alternation(vec![plain, scientific()]),
        (true, false) => plain,
    }
}

fn zero() -> Regex {
    Regex::Concat(vec![class(0, 0), optional(point(vec![class(0, 0), zeros()]))])
}

/// Numbers as in [`written_number`] of at least the bound (more, if strict); None if the bound has too
/// many digits.
pub fn at_least(bound: &Decimal, strict: bool, limit: usize) -> Option<Regex> {
    let m = magnitude(bound, limit)?;
    Some(if bound.negative {
        Regex::Alternation(vec![unsigned(), minus(beyond(bound, &m, strict, false))])
    } else if bound.is_zero() && !strict {
        Regex::Alternation(vec![unsigned(), minus(zero())])
    } else {
        beyond(bound, &m, strict, true)
    })
}

/// Numbers as in [`written_number`] of at most the bound (less, if strict).
pub fn at_most(bound: &Decimal, strict: bool, limit: usize) -> Option<Regex> {
    let m = magnitude(bound, limit)?;
    Some(if bound.negative {
        minus(beyond(bound, &m, strict, true))
    } else if bound.is_zero() && strict {
        minus(beyond(bound, &m, true, true))
    } else {
        Regex::Alternation(vec![beyond(bound, &m, strict, false), minus(unsigned())])
    })
}

/// Plain spellings of one value.
pub fn equal_to(value: &Decimal, limit: usize) -> Option<Regex> {
    let (w, f) = magnitude(value, limit)?;
    let digits = if f.is_empty() {
        Regex::Concat(vec![text(&w), optional(Regex::literal(".0"))])
    } else {
        Regex::Concat(vec![text(&w), point(vec![text(&f)])])
    };
    Some(if value.negative {
        minus(digits)
    } else if value.is_zero() {
        Regex::Concat(vec![optional(Regex::literal("-")), digits])
    } else {
        digits
    })
}

/// Every plain spelling of one value, zeros at the end included.
pub fn spelled(value: &Decimal, limit: usize) -> Option<Regex> {
    let (w, f) = magnitude(value, limit)?;
    let tail = point(vec![text(&f), zeros()]);
    let digits = Regex::Concat(vec![text(&w), if f.is_empty() { optional(tail) } else { tail }]);
    Some(match (value.is_zero(), value.negative) {
        (true, _) => Regex::Concat(vec![optional(Regex::literal("-")), digits]),
        (_, true) => minus(digits),
        _ => digits,
    })
}

/// Plain numbers without a fraction other than zeros.
pub fn whole_values() -> Regex {
    Regex::Concat(vec![optional(Regex::literal("-")), whole(), optional(point(vec![class(0, 0), zeros()]))])
}

/// Plain numbers that are a multiple of `step`: remainders are followed digit by digit.
pub fn multiple_of(step: &Decimal) -> Result<Regex, LimitError> {
    let too_many = |value: u64| LimitError { limit: "states of multipleOf".into(), value };
    let coefficient = Decimal { negative: false, digits: step.digits.clone(), exponent: 0 };
    let m = coefficient.to_u64().ok_or_else(|| too_many(u64::MAX))?;
    let places = usize::try_from(-step.exponent.min(0)).map_err(|_| too_many(u64::MAX))?;
    let zeros_after = usize::try_from(step.exponent.max(0)).map_err(|_| too_many(u64::MAX))?;
    let states = m.saturating_mul(places as u64 + 1).saturating_add(zeros_after as u64);
    if states > MAX_STATES {
        return Err(too_many(states));
    }
    // States: the remainder before the point, then for each place after it, then only zeros.
    let m = m as usize;
    let whole = |r: usize| 1 + r as u32;
    let after = |place: usize, r: usize| 1 + (m * place + r) as u32;
    let end = 1 + (m * (places + 1)) as u32;
    let digit = |d: usize| CharSet::one(u32::from(b'0') + d as u32);
    let dot = CharSet::one(u32::from(b'.'));
    let power = |n: usize| (0..n).fold(1 % m, |p, _| p * 10 % m);
    let mut table = vec![(false, (0..10).map(|d| (digit(d), whole(d % m))).collect::<Vec<_>>())];
    for r in 0..m {
        let mut edges: Vec<_> = (0..10).map(|d| (digit(d), whole((r * 10 + d) % m))).collect();
        // `end + 1` is the point itself, where no place counts.
        if places > 0 {
            edges.push((dot.clone(), end + 1 + r as u32));
        } else if r == 0 && zeros_after == 0 {
            edges.push((dot.clone(), end + 1));
        }
        table.push((r * power(places) % m == 0 && zeros_after == 0, edges));
    }
    for place in 1..=places {
        for r in 0..m {
            let mut edges: Vec<(CharSet, u32)> = Vec::new();
            if place < places {
                edges.extend((0..10).map(|d| (digit(d), after(place + 1, (r * 10 + d) % m))));
            } else if r == 0 {
                edges.push((digit(0), end));
            }
            table.push((r * power(places - place) % m == 0, edges));
        }
    }
    table.push((true, vec![(digit(0), end)]));
    if places == 0 {
        table.push((false, vec![(digit(0), end)]));
    } else {
        for r in 0..m {
            table.push((false, (0..10).map(|d| (digit(d), after(1, (r * 10 + d) % m))).collect()));
        }
    }
    let mut body = Regex::Table(table);
    if zeros_after > 0 {
        // `step` ends in zeros: a multiple of the rest, then those zeros, or zero itself.
        let mut rest = multiple_of(&coefficient)?;
        if let Regex::Concat(parts) = &mut rest {
            if let Some(Regex::Table(states)) = parts.last_mut() {
                for state in states.iter_mut() {
                    state.1.retain(|e| e.0 != dot);
                }
            }
            let whole_part = parts.pop().unwrap_or_else(Regex::empty);
            let scaled = Regex::Concat(vec![whole_part, Regex::literal(&"0".repeat(zeros_after))]);
            let number = Regex::Alternation(vec![class(0, 0), scaled]);
            body = Regex::Concat(vec![number, optional(point(vec![class(0, 0), zeros()]))]);
        }
    }
    Ok(Regex::Concat(vec![optional(Regex::literal("-")), body]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::automaton::Automaton;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_compare_by_value(bound in -1200i64..1200, scale in 0i64..3, text in "-?((0|[1-9][0-9]{0,2})(\\.[0-9]{1,3})?|[1-9](\\.[0-9]{1,3})?[eE][+-]?0?[0-4])") {
            let bound = Decimal::parse(&format!("{bound}e-{scale}")).expect("a number");
            let number = |t: &str| t.parse::<f64>().expect("a number");
            let b: f64 = {
                let digits: f64 = bound.digits.iter().fold(0.0, |v, &d| v * 10.0 + f64::from(d));
                let value = number(&format!("{digits}e{}", bound.exponent));
                if bound.negative { -value } else { value }
            };
            let v = number(&text);
            for (regex, expected) in [
                (at_least(&bound, false, 50), v >= b),
                (at_least(&bound, true, 50), v > b),
                (at_most(&bound, false, 50), v <= b),
                (at_most(&bound, true, 50), v < b),
            ] {
                let mut automaton = Automaton::new(&[(regex.expect("short"), true), (written_number(), true)]).expect("fits");
                prop_assert_eq!(automaton.matches(&text), expected, "{} against {}", text, b);
            }
        }
    }

    #[test]
    fn multiples_are_followed_digit_by_digit() {
        for (step, yes, no) in [
            ("3", vec!["0", "3", "-12", "111", "6.0", "-0"], vec!["1", "22", "3.5", "-7"]),
            ("0.01", vec!["0.01", "3.1", "4", "2.50", "-1.230"], vec!["0.001", "2.505"]),
            ("0.25", vec!["0.5", "0.75", "1", "1.250"], vec!["0.3", "0.2", "1.26"]),
            ("1.5", vec!["3", "4.5", "0", "-1.50"], vec!["1", "2.5", "1.55"]),
            ("200", vec!["0", "400", "1000", "600.0"], vec!["100", "20", "2", "200.5"]),
            ("1", vec!["7", "7.0", "7.00"], vec!["7.1"]),
        ] {
            let regex = multiple_of(&Decimal::parse(step).expect("a number")).expect("small");
            let mut automaton = Automaton::new(&[(regex, true), (plain_number(), true)]).expect("fits");
            for text in yes {
                assert!(automaton.matches(text), "{text} is a multiple of {step}");
            }
            for text in no {
                assert!(!automaton.matches(text), "{text} is no multiple of {step}");
            }
        }
    }
}

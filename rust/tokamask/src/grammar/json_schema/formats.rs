//! The standard formats as patterns for whole texts.
//!
//! Where a format is not regular, the pattern is narrower than the format, never wider: `regex` nests
//! groups three deep, `time` knows no leap seconds.

use std::sync::{Arc, OnceLock};

use crate::error::Error;
use crate::grammar::automaton::Automaton;
use crate::grammar::json_schema::lower::Conjunction;
use crate::grammar::number;
use crate::grammar::regex::{parse, Dialect};

const HEX: &str = "[0-9a-fA-F]";
const IPV4: &str = "(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const LABEL: &str = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const ATOM: &str = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+";
/// Letters beyond ASCII that international forms allow.
const WIDE: &str = "\\u00a0-\\ud7ff\\uf900-\\ufdcf\\ufdf0-\\uffef\\u{10000}-\\u{1fffd}\\u{20000}-\\u{2fffd}\\u{30000}-\\u{3fffd}";

fn date() -> String {
    let leap = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)";
    let year = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)";
    let month_and_day = "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
    format!("(?:{year}-{month_and_day}|{leap}-02-29)")
}

fn time() -> String {
    let clock = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
    format!("{clock}:[0-5][0-9](?:\\.[0-9]+)?(?:[Zz]|[+-]{clock})")
}

fn duration() -> String {
    let time = "T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)";
    let date = "(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)";
    format!("P(?:[0-9]+W|{date}(?:{time})?|{time})")
}

fn ipv6() -> String {
    let h = format!("{HEX}{{1,4}}");
    let last = format!("(?:{h}:{h}|{IPV4})");
    let mut options = vec![format!("(?:{h}:){{6}}{last}"), format!("::(?:{h}:){{5}}{last}")];
    for before in 0..=4usize {
        let after = 4 - before;
        options.push(format!("(?:(?:{h}:){{0,{before}}}{h})?::(?:{h}:){{{after}}}{last}"));
    }
    options.push(format!("(?:(?:{h}:){{0,5}}{h})?::{h}"));
    options.push(format!("(?:(?:{h}:){{0,6}}{h})?::"));
    format!("(?:{})", options.join("|"))
}

/// RFC 3986, or RFC 3987 with `wide` letters.
fn uri(wide: &str, relative: bool) -> String {
    let escape = format!("%{HEX}{{2}}");
    let plain = format!("[A-Za-z0-9._~!$&'()*+,;={wide}-]");
    let pchar = format!("(?:[A-Za-z0-9._~!$&'()*+,;=:@{wide}-]|{escape})");
    let user = format!("(?:(?:[A-Za-z0-9._~!$&'()*+,;=:{wide}-]|{escape})*@)?");
    let host =
        format!("(?:\\[(?:{}|v{HEX}+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|(?:{plain}|{escape})*)", ipv6());
    let authority = format!("//{user}{host}(?::[0-9]*)?(?:/{pchar}*)*");
    let absolute = format!("/(?:{pchar}+(?:/{pchar}*)*)?");
    let rootless = format!("{pchar}+(?:/{pchar}*)*");
    let tail = format!("(?:\\?(?:{pchar}|[/?])*)?(?:#(?:{pchar}|[/?])*)?");
    let full = format!("[A-Za-z][A-Za-z0-9+.-]*:(?:{authority}|{absolute}|{rootless})?{tail}");
    if !relative {
        return full;
    }
    let first = format!("(?:[A-Za-z0-9._~!$&'()*+,;=@{wide}-]|{escape})+");
    format!("(?:{full}|(?:{authority}|{absolute}|{first}(?:/{pchar}*)*)?{tail})")
}

fn template() -> String {
    let name = format!("(?:[A-Za-z0-9_]|%{HEX}{{2}})(?:\\.?(?:[A-Za-z0-9_]|%{HEX}{{2}}))*");
    let variable = format!("{name}(?::[1-9][0-9]{{0,3}}|\\*)?");
    let expression = format!("\\{{[+#./;?&=,!@|]?{variable}(?:,{variable})*\\}}");
    format!("(?:[!#$&()*+,./0-9:;=?@A-Z\\[\\]_a-z~{WIDE}-]|%{HEX}{{2}}|{expression})*")
}

/// Regular expressions with groups up to a depth.
fn pattern(depth: u32) -> String {
    let escape = "\\\\(?:[dDwWsSnrtfv0^$\\\\.*+?()\\[\\]{}|/bB-]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})";
    let class = "\\[\\^?(?:[A-Za-z0-9 _@#%&!,;:'\"<>=/.*+?$(){}|]|\\\\(?:[dDwWsSnrtfv\\\\\\]\\[^/.-]))+-?\\]";
    let group = if depth == 0 { String::new() } else { format!("|\\((?:\\?:)?{}\\)", pattern(depth - 1)) };
    let atom = format!("(?:[^\\\\^$.*+?()\\[\\]{{}}|]|\\.|{escape}|{class}{group})");
    let piece = format!("(?:[\\^$]|{atom}(?:[*+?]\\??|\\{{(?:[1-9][0-9]?|0)(?:,)?\\}})?)");
    format!("{piece}*(?:\\|{piece}*)*")
}

fn text(name: &str) -> Option<String> {
    let hostname = format!("{LABEL}(?:\\.{LABEL})*");
    Some(match name {
        "date" => date(),
        "time" => time(),
        "date-time" => format!("{}[Tt]{}", date(), time()),
        "duration" => duration(),
        "email" => format!("{ATOM}(?:\\.{ATOM})*@(?:{hostname}|\\[{IPV4}\\])"),
        "idn-email" => {
            let atom = format!("(?:[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{WIDE}-])+");
            let label = format!("[A-Za-z0-9{WIDE}](?:[A-Za-z0-9{WIDE}-]{{0,61}}[A-Za-z0-9{WIDE}])?");
            format!("{atom}(?:\\.{atom})*@{label}(?:\\.{label})*")
        }
        "hostname" => hostname,
        // The rules for single scripts are finer; ASCII names and plain letters are sure.
        "idn-hostname" => format!("(?:[a-z0-9\\u00e0-\\u00f6\\u00f8-\\u00ff\\u4e00-\\u9fa5]{{1,30}}\\.)*(?:{LABEL}|[\\u00e0-\\u00f6\\u4e00-\\u9fa5]{{1,20}})"),
        "ipv4" => IPV4.to_owned(),
        "ipv6" => ipv6(),
        "uri" => uri("", false),
        "uri-reference" => uri("", true),
        "iri" => uri(WIDE, false),
        "iri-reference" => uri(WIDE, true),
        "uuid" => format!("{HEX}{{8}}-(?:{HEX}{{4}}-){{3}}{HEX}{{12}}"),
        "uri-template" => template(),
        "json-pointer" => "(?:/(?:[^/~]|~[01])*)*".to_owned(),
        "relative-json-pointer" => "(?:0|[1-9][0-9]*)(?:#|(?:/(?:[^/~]|~[01])*)*)".to_owned(),
        "regex" => pattern(3),
        _ => return None,
    })
}

/// The standard formats.
const NAMES: [&str; 19] = [
    "date",
    "time",
    "date-time",
    "duration",
    "email",
    "idn-email",
    "hostname",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "iri",
    "iri-reference",
    "uuid",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
    "regex",
];

/// A standard format: its pattern, read once in a process, and its automaton.
pub struct Known {
    /// The pattern for whole texts.
    pub pattern: Arc<Conjunction>,
    automaton: OnceLock<Automaton>,
    number: u32,
}

impl Known {
    /// The automaton with all its states; copies of it are cheap and the same in all grammars.
    pub fn automaton(&self) -> Result<Automaton, Error> {
        if let Some(known) = self.automaton.get() {
            return Ok(known.clone());
        }
        let mut automaton = Automaton::new(&self.pattern)?;
        automaton.explore()?;
        automaton.known = self.number;
        Ok(self.automaton.get_or_init(|| automaton).clone())
    }
}

/// A standard format; None for other names.
pub fn format(name: &str) -> Option<&'static Known> {
    static KNOWN: [OnceLock<Option<Known>>; 19] = [const { OnceLock::new() }; 19];
    let place = NAMES.iter().position(|n| *n == name)?;
    let read = || {
        let regex = parse(&text(name)?, Dialect::Ecma).ok()?;
        let pattern = Arc::new(vec![(regex, true)]);
        Some(Known { pattern, automaton: OnceLock::new(), number: place as u32 + 3 })
    };
    KNOWN[place].get_or_init(read).as_ref()
}

/// Builds the automata of this module, once in a process.
pub fn prepare() {
    // What does not fit fails again, with its error, where it is asked for.
    for name in NAMES {
        let _ = format(name).map(Known::automaton);
    }
    for numbers in [Numbers::All, Numbers::Integers, Numbers::BareIntegers] {
        let _ = number_automaton(numbers);
    }
}

/// Sets of numbers that many schemas ask for.
#[derive(Clone, Copy, Debug)]
pub enum Numbers {
    /// All that JSON can write.
    All,
    /// `1.0` included.
    Integers,
    /// Without a fraction, as the drafts up to 5 have it.
    BareIntegers,
}

/// The automaton of such a set, which is the same in all grammars.
pub fn number_automaton(numbers: Numbers) -> Result<Automaton, Error> {
    static KNOWN: [OnceLock<Automaton>; 3] = [const { OnceLock::new() }; 3];
    let slot = &KNOWN[numbers as usize];
    if let Some(known) = slot.get() {
        return Ok(known.clone());
    }
    let (regex, known) = match numbers {
        Numbers::All => (number::number(), 1),
        Numbers::Integers => (number::integer(), 2),
        Numbers::BareIntegers => (number::bare_integer(), NAMES.len() as u32 + 3),
    };
    let mut automaton = Automaton::new(&[(regex, true)])?;
    automaton.explore()?;
    automaton.known = known;
    Ok(slot.get_or_init(|| automaton).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_right_from_wrong() {
        let cases: [(&str, &[&str], &[&str]); 19] = [
            (
                "date",
                &["2024-02-29", "1999-12-31", "2000-02-29"],
                &["2023-02-29", "1900-02-29", "2024-13-01", "0000-01-01", "24-01-01"],
            ),
            ("time", &["12:34:56Z", "00:00:00.123+05:30"], &["24:00:00Z", "12:34:56", "12:34Z"]),
            (
                "date-time",
                &["2024-02-29T12:34:56Z", "2024-01-01T00:00:00.5-08:00"],
                &["2024-01-01", "2024-01-01 00:00:00Z"],
            ),
            ("duration", &["P3D", "PT5M", "P1Y2M3DT4H5M6S", "P2W"], &["P", "PT", "3D", "P1D2W", "P1Y2D"]),
            ("email", &["a@b.c", "x.y+z@example.com", "a@[127.0.0.1]"], &["a", "@b", "a@", "a..b@c", ".a@b"]),
            ("idn-email", &["ü@müller.de"], &["ü"]),
            ("hostname", &["a", "a-b.c9", "localhost"], &["-a", "a-", "a..b", "a_b", ""]),
            ("idn-hostname", &["example.com", "例"], &["-a", ""]),
            ("ipv4", &["0.0.0.0", "255.255.255.255"], &["256.0.0.0", "1.2.3", "01.2.3.4"]),
            (
                "ipv6",
                &["::", "::1", "1::", "fe80::1:2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2::7:8"],
                &[":", "1:2:3:4:5:6:7", "1::2::3", "12345::", "1:2:3:4:5:6:7:8:9"],
            ),
            (
                "uri",
                &["http://a.b/c?d#e", "urn:x:y", "mailto:a@b", "http://[::1]:80/"],
                &["//a", "a/b", "http://a b", "http://a/{x}"],
            ),
            ("uri-reference", &["/a/b", "a/b", "#x", "", "http://a"], &["\\a", "a b"]),
            ("iri", &["http://ä.b/ü"], &["/ü"]),
            ("iri-reference", &["/ü", "http://ä"], &["ü ü"]),
            ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123e4567e89b12d3a456426614174000"]),
            ("uri-template", &["http://a/{b}/{+c*,d:3}", "x"], &["{", "{}", "a}b"]),
            ("json-pointer", &["", "/a/b~0~1"], &["a", "/~2"]),
            ("relative-json-pointer", &["0", "1/a", "2#"], &["", "01", "-1", "#"]),
            ("regex", &["^a+$", "(a|b)*[^x]\\d{3}", ""], &["(", "a)", "[", "*a", "\\"]),
        ];
        for (name, right, wrong) in cases {
            let mut automaton = format(name).expect(name).automaton().expect(name);
            assert!(automaton.len() < 5_000, "{name} has {} states", automaton.len());
            for text in right {
                assert!(automaton.matches(text), "{text:?} is a {name}");
            }
            for text in wrong {
                assert!(!automaton.matches(text), "{text:?} is no {name}");
            }
        }
    }
}

//! The split-rule compiler: any regular expression to a linear-time splitter.
//!
//! A rule is parsed by the engine that is also its fallback, so both read the same language:
//!
//! 1. [`syntax`]: the expression as a tree over sets of characters. Possessive repeats that cannot
//!    differ from greedy ones become greedy; back references, look-behind and the like stop here,
//!    and the rule runs on the fallback.
//! 2. [`classes`]: characters that no set tells apart are one class.
//! 3. [`dfa`]: one automaton over classes with leftmost-first priorities. A look at the next
//!    character is part of a transition, what stands before a place is part of the state there; longer
//!    look-ahead is one bit per position, computed by an automaton that reads the text backwards.
//!    [`vain`] keeps its time linear.
//! 4. [`letters`], [`windows`], [`groups`] and [`scan`]: where three neighbouring characters already
//!    decide whether a match ends, many are decided at once by vectors; the automaton runs only in
//!    between.

pub mod classes;
pub mod dfa;
pub mod groups;
pub mod letters;
pub mod scan;
pub mod syntax;
pub mod vain;
#[cfg(target_arch = "x86_64")]
mod vectors;
#[cfg(target_arch = "x86_64")]
mod vectors512;
pub mod windows;

use classes::Classes;
use std::sync::OnceLock;

use dfa::{Automaton, Backwards, Joint, Span};
use scan::Pieces;
use syntax::Node;
use vain::Vain;
use windows::Windows;

/// A compiled rule.
pub struct Rule {
    pub(crate) classes: Classes,
    pub(crate) automaton: Automaton,
    aheads: Vec<Backwards>,
    /// Made when first asked for.
    joints: OnceLock<Vec<Joint>>,
    covers: bool,
    /// By class: no match begins with it, whatever stands around. Empty if there are none, or if other places
    /// are not covered either.
    foreign: Vec<bool>,
    begins: Box<[bool; 256]>,
    /// Only for rules that cover every text of characters that are not foreign.
    pub(crate) windows: Option<Windows>,
}

/// Why a rule cannot be compiled and runs on the fallback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRegular(pub &'static str);

impl Rule {
    /// Compiles an expression.
    pub fn new(expression: &fancy_regex::Expr) -> Result<Self, NotRegular> {
        Self::with(expression, None)
    }

    /// The same with windows that were derived before, see [`Windows::to_bytes`].
    pub fn with(expression: &fancy_regex::Expr, known: Option<&[u8]>) -> Result<Self, NotRegular> {
        let mut tree = syntax::read(expression)?;
        let classes = Classes::new(&tree.sets)?;
        let aheads = tree.aheads.iter().map(|ahead| Backwards::new(ahead, &classes));
        let aheads: Vec<Backwards> = aheads.collect::<Result<_, _>>()?;
        let mut automaton = Automaton::new(&tree, &classes)?;
        let mut foreign = automaton.foreign(&classes);
        let covers_rest = automaton.covers(&classes, &foreign);
        let covers = covers_rest && !foreign.contains(&true);
        if covers || !covers_rest {
            foreign.clear();
        } else {
            // Each of them is a match of its own, that nobody is told of: windows want a rule that covers everything.
            tree.root = Node::Alt(vec![tree.root, Node::Set(tree.any)]);
            automaton = Automaton::new(&tree, &classes)?;
        }
        let windows = match known {
            _ if !covers_rest || !aheads.is_empty() => None,
            Some([]) => None,
            Some(bytes) => Windows::from_bytes(bytes, classes.count),
            None => Windows::new(&automaton, &classes),
        };
        let begins = begins(&classes, &automaton, &aheads, &foreign);
        Ok(Self { classes, automaton, aheads, joints: OnceLock::new(), covers, foreign, begins, windows })
    }

    /// By first byte of a character: a match may begin there.
    pub(crate) fn begins(&self) -> &[bool; 256] {
        &self.begins
    }

    /// Calls `found` with each match in `text`, left to right, not overlapping.
    pub fn find(&self, text: &str, found: impl FnMut(usize, usize)) {
        self.find_with(text.as_bytes(), &mut Vain::default(), found);
    }

    fn find_with(&self, text: &[u8], vain: &mut Vain, mut found: impl FnMut(usize, usize)) {
        let aheads = self.look_bits(text);
        let span = Span { text, base: 0, aheads: &aheads };
        let mut at = 0;
        while at < text.len() {
            match self.match_at(&span, at, vain) {
                Some(end) => {
                    found(at, end);
                    at = if end > at { end } else { at + classes::width(text[at]) };
                }
                None => at += classes::width(text[at]),
            }
        }
    }

    /// Calls `found` with the matches from `start` on that text after the end cannot change; returns
    /// where the first match that it could change begins, or might begin. Nothing for a rule that looks behind:
    /// what follows is cut as if it began there.
    pub fn find_settled(&self, text: &[u8], start: usize, mut found: impl FnMut(usize, usize)) -> usize {
        let (mut at, mut vain) = (start, Vain::default());
        while at < text.len() && self.aheads.is_empty() && !self.automaton.looks_behind() {
            if self.is_foreign(text, at) {
                at += classes::width(text[at]);
                continue;
            }
            let Some(end) = self.automaton.run_settled(&self.classes, text, at, &mut vain) else { break };
            if let Some(end) = end {
                found(at, end);
            }
            at = end.filter(|&end| end > at).unwrap_or(at + classes::width(text[at]));
        }
        at
    }

    /// The windows as bytes; empty if there are none.
    pub fn windows(&self) -> Vec<u8> {
        self.windows.as_ref().map(Windows::to_bytes).unwrap_or_default()
    }

    /// True if every character of every text is in some match.
    pub fn covers(&self) -> bool {
        self.covers
    }

    /// The same, and no look-ahead needs a pass over the text: [`Self::pieces`] may cut it.
    pub fn covers_alone(&self) -> bool {
        self.covers && self.aheads.is_empty()
    }

    /// True if every character of this text is in some match, and [`Self::pieces`] may cut it.
    pub fn covers_text(&self, text: &[u8]) -> bool {
        if self.foreign.is_empty() {
            return self.covers_alone();
        }
        let of_ascii = self.classes.ascii.iter().any(|&class| self.foreign[usize::from(class)]);
        let mut at = 0;
        while at < text.len() && self.aheads.is_empty() {
            let next = text[at..].iter().position(|&byte| of_ascii || byte >= 0x80);
            at = next.map_or(text.len(), |more| at + more);
            if at < text.len() {
                let (class, width) = self.classes.at(text, at);
                if self.foreign[usize::from(class)] {
                    return false;
                }
                at += width;
            }
        }
        self.aheads.is_empty()
    }

    /// True if no match may begin at `at`.
    #[inline]
    fn is_foreign(&self, text: &[u8], at: usize) -> bool {
        !self.foreign.is_empty() && self.foreign[usize::from(self.classes.at(text, at).0)]
    }

    /// Cuts a text that the rule covers.
    pub fn pieces<'a>(&'a self, text: &'a [u8]) -> Pieces<'a> {
        Pieces::new(self, text)
    }

    /// How the place `at`, between two characters of the text, parts it.
    pub(crate) fn joint(&self, text: &[u8], at: usize) -> Joint {
        if at == 0 {
            return Joint::None;
        }
        let joints =
            self.joints.get_or_init(|| self.automaton.joints(&self.classes, &self.aheads, &self.foreign));
        let right = usize::from(self.classes.at(text, at).0);
        joints[self.classes.before(text, at) * self.classes.count + right]
    }

    /// True if some look-ahead of the rule needs a pass over the text.
    pub fn looks_far(&self) -> bool {
        !self.aheads.is_empty()
    }

    /// Bit `k` of byte `i`: look-ahead `k` matches there. Empty if the rule has none.
    pub(crate) fn look_bits(&self, text: &[u8]) -> Vec<u8> {
        if self.aheads.is_empty() {
            return Vec::new();
        }
        let mut bits = vec![0; text.len() + 1];
        for (nth, ahead) in self.aheads.iter().enumerate() {
            ahead.mark(text, &self.classes, 1 << nth, &mut bits);
        }
        bits
    }

    /// The end of the match that starts at `start`, if there is one.
    #[inline]
    pub(crate) fn match_at(&self, span: &Span, start: usize, vain: &mut Vain) -> Option<usize> {
        if self.is_foreign(span.text, start) {
            return None;
        }
        self.automaton.run(&self.classes, span, start, vain)
    }
}

/// The first bytes of characters before which a match may begin.
fn begins(
    classes: &Classes,
    automaton: &Automaton,
    aheads: &[Backwards],
    foreign: &[bool],
) -> Box<[bool; 256]> {
    let may: Vec<bool> = (0..classes.count)
        .map(|class| {
            let held = |nth: usize, ahead: &Backwards| usize::from(ahead.may_hold(classes, class)) << nth;
            let all = aheads.iter().enumerate().fold(0, |all, (nth, ahead)| all | held(nth, ahead));
            let foreign = foreign.get(class).copied().unwrap_or(false);
            !foreign && (0..=all).any(|bits| bits & !all == 0 && automaton.begins(class, bits))
        })
        .collect();
    let wide = classes.beyond_ascii().iter().zip(&may).any(|(&beyond, &may)| beyond && may);
    Box::new(std::array::from_fn(|byte| match byte {
        0..0x80 => may[usize::from(classes.ascii[byte])],
        _ => wide && byte >= 0xC0,
    }))
}

#[cfg(test)]
mod tests {
    use super::scan::Vectors;
    use super::*;
    use proptest::prelude::*;

    type Spans = Vec<(usize, usize)>;

    fn both(pattern: &str, text: &str) -> (Spans, Spans) {
        let tree = fancy_regex::Expr::parse_tree(pattern).expect("a pattern");
        let rule = Rule::new(&tree.expr).unwrap_or_else(|e| panic!("{pattern}: {e:?}"));
        let mut ours = Vec::new();
        rule.find(text, |start, end| ours.push((start, end)));
        let oracle = fancy_regex::Regex::new(pattern).expect("a pattern");
        // An empty match right after a match cuts nothing, and engines differ on reporting it.
        let mut theirs = Vec::new();
        for hit in oracle.find_iter(text) {
            let hit = hit.expect("within limits");
            theirs.push((hit.start(), hit.end()));
        }
        let cut = |spans: Vec<(usize, usize)>| {
            let mut last = 0;
            let keep = |&(start, end): &(usize, usize)| {
                let keep = end > start || start != last;
                last = end;
                keep
            };
            spans.into_iter().filter(keep).filter(|s| *s != (text.len(), text.len())).collect::<Vec<_>>()
        };
        (cut(ours), cut(theirs))
    }

    pub(crate) const KNOWN: &[&str] = &[
        crate::text::pretokenizer::GPT2,
        r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r"(?=(\d{3})+(?!\d))| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        r"(?=(\d{3})+(?!\d))",
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]{2,}[\r\n/]*| +(?!\S)",
        // One look-ahead written four times is one.
        r"\p{L}(?=\d\s)|\p{N}(?=\d\s)|\s(?=\d\s)|'(?!\d\s)",
    ];

    fn text() -> impl Strategy<Value = String> {
        let letters: Vec<char> =
            "abAB '’sStTlLreveKαΩ\u{212a}  0123456789\t\n\r\n\r/.,!?_()\u{a0}\u{2028}ñßſKǅʰªא你好क्е́👍\u{200d}²½٣\u{301}\0".chars().collect();
        prop::collection::vec(prop::sample::select(letters), 0..40).prop_map(|v| v.into_iter().collect())
    }

    /// Patterns put together from pieces that rules are made of.
    fn pattern() -> impl Strategy<Value = String> {
        let atom = prop::sample::select(vec![
            r"\p{L}",
            r"\p{N}",
            r"\s",
            r"[^\s\p{L}\p{N}]",
            r"[\r\n]",
            " ",
            "'",
            r"[^\r\n\p{L}\p{N}]",
            "[a-s]",
            r"\d",
            "e",
            ".",
            r"\p{Lu}",
            "(?:ab|a)",
            "(?i:'s|'t|'re)",
            r"[\p{Ll}\p{M}]",
            r"\w",
            r"\h",
            r"\p{Greek}",
            r"[\p{Han}\p{Cyrillic}]",
            "(?i:k|ſ)",
            "(?i:[a-k])",
        ]);
        let head = prop::sample::select(vec![
            "",
            "",
            "",
            "",
            r"\b",
            r"\B",
            "(?m:^)",
            r"\A",
            r"(?<=\s)",
            "(?<!a)",
            r"(?<=[\r\n])",
            r"(?<!\p{Lu})",
        ]);
        let times = prop::sample::select(vec![
            "", "", "?", "+", "*", "{1,3}", "{2}", "+?", "*?", "++", "?+", "{1,2}+",
        ]);
        let tail = prop::sample::select(vec![
            "",
            "",
            "",
            r"(?!\S)",
            r"(?=\s)",
            r"(?=\d\s)",
            r"(?!ab)",
            "$",
            "(?m:$)",
            r"\b",
            r"(?<=\w)",
            r"(?<!')",
        ]);
        let branch =
            (head, prop::collection::vec((atom, times), 1..4), tail).prop_map(|(head, items, tail)| {
                let items: Vec<String> =
                    items.into_iter().map(|(atom, times)| atom.to_owned() + times).collect();
                head.to_owned() + &items.concat() + tail
            });
        prop::collection::vec(branch, 1..5).prop_map(|branches| branches.join("|"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn known_rules_match_as_the_fallback(text in text()) {
            for pattern in KNOWN {
                let (ours, theirs) = both(pattern, &text);
                prop_assert_eq!(ours, theirs, "{}", pattern);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// What is cut where a rule says so has the matches of the whole.
        #[test]
        fn joints_part_texts(pattern in pattern(), text in text()) {
            let tree = fancy_regex::Expr::parse_tree(&pattern).expect("a pattern");
            let Ok(rule) = Rule::new(&tree.expr) else { return Ok(()) };
            let matches = |from: usize, to: usize| {
                let mut found = Vec::new();
                rule.find(&text[from..to], |start, end| found.push((from + start, from + end)));
                found
            };
            let whole = matches(0, text.len());
            for (at, _) in text.char_indices().skip(1) {
                let joint = rule.joint(text.as_bytes(), at);
                if joint != Joint::None {
                    let parts = [matches(0, at), matches(at, text.len())].concat();
                    prop_assert_eq!(&parts, &whole, "{} at {} of {:?}", pattern, at, text);
                }
                let ends = whole.iter().any(|&(start, end)| start < end && end == at);
                prop_assert!(joint != Joint::Ends || ends, "{} at {} of {:?}", pattern, at, text);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_rule_matches_as_the_fallback(pattern in pattern(), texts in prop::collection::vec(text(), 6)) {
            let tree = fancy_regex::Expr::parse_tree(&pattern).expect("a pattern");
            let why = Rule::new(&tree.expr).err().map_or("", |NotRegular(why)| why);
            // These, and no others, run on the fallback.
            prop_assume!(!["too many conditions", "a possessive repeat", "a possessive repeat that matters"].contains(&why));
            for text in texts {
                let (ours, theirs) = both(&pattern, &text);
                prop_assert_eq!(ours, theirs, "{} on {:?}", pattern, text);
            }
        }
    }

    fn pieces(mut pieces: Pieces) -> Vec<u32> {
        let mut all = vec![0];
        loop {
            let mut starts = Vec::new();
            pieces.fill(&mut starts);
            let Some(first) = starts.first() else { return all };
            assert_eq!(Some(first), all.last());
            all.extend_from_slice(&starts[1..]);
        }
    }

    /// A pattern that covers every text, and a text longer than the vectors' chunks.
    fn covered() -> impl Strategy<Value = (String, String)> {
        let known: Vec<String> = KNOWN.iter().map(|&pattern| pattern.to_owned()).collect();
        let rule = prop_oneof![
            prop::sample::select(known),
            pattern().prop_map(|pattern| pattern + r"|\s+(?!\S)|\s|[^\s]"),
            pattern().prop_map(|pattern| pattern + r"|(?s:.)"),
            pattern().prop_map(|pattern| pattern + r"|[^\p{Lm}\p{Lt}\p{No}]"),
        ];
        (rule, prop::collection::vec(text(), 4..400).prop_map(|texts| texts.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn vectors_cut_as_the_automaton((pattern, text) in covered()) {
            let tree = fancy_regex::Expr::parse_tree(&pattern).expect("a pattern");
            let Ok(rule) = Rule::new(&tree.expr) else { return Ok(()) };
            prop_assume!(rule.covers_text(text.as_bytes()));
            let cut = |vectors| pieces(rule.pieces(text.as_bytes()).at_most(vectors));
            let (wide, narrow, none) = (cut(Vectors::Wide), cut(Vectors::Narrow), cut(Vectors::None));
            let mut plain = vec![0];
            rule.find(&text, |_, end| plain.push(end as u32));
            prop_assert_eq!(&wide, &plain, "{}", pattern);
            prop_assert_eq!(&narrow, &plain, "{}", pattern);
            prop_assert_eq!(&none, &plain, "{}", pattern);
        }
    }

    /// A rule that looks far behind its piece before each of them reads every character a bounded number of times.
    #[test]
    fn what_is_read_in_vain_is_not_read_again() {
        for (pattern, part) in [
            (r"\p{L}+(?=\.)|\p{L}", "a"),
            (r"\p{L}+\.|\p{L}", "\u{e9}"),
            (r"(?:ab)+c|a|b", "ab"),
            (r"\p{L}{3,}\d", "ab"),
            (r"(?:a|bb|ccc)+\.|\w", "abbccc"),
            (r"\w+(?=\.\s\d)|\b\w+-|\w", "a_"),
            (r"\w+\s\w+-|(?<=a)b|\w", "ab"),
        ] {
            let tree = fancy_regex::Expr::parse_tree(pattern).expect("a pattern");
            let rule = Rule::new(&tree.expr).expect("regular");
            let (mut before, mut spans) = (0, Vec::new());
            for count in [1000, 4000, 16000] {
                let text = part.repeat(count) + " x";
                let mut vain = Vain::default();
                spans.clear();
                rule.find_with(text.as_bytes(), &mut vain, |start, end| spans.push((start, end)));
                assert!(vain.steps < 200 * text.len(), "{pattern}: {} for {count}", vain.steps);
                assert!(before == 0 || vain.steps < 5 * before, "{pattern}: {} for {count}", vain.steps);
                before = vain.steps;
            }
            let (ours, theirs) = both(pattern, &(part.repeat(300) + " x"));
            assert_eq!(ours, theirs, "{pattern}");
        }
    }

    #[test]
    fn known_rules_have_windows() {
        for pattern in &KNOWN[..5] {
            let tree = fancy_regex::Expr::parse_tree(pattern).expect("a pattern");
            let rule = Rule::new(&tree.expr).expect("regular");
            let windows = rule.windows.as_ref().expect("a compact table");
            assert!(windows.ends.len() <= 3 && windows.open.len() <= 4, "{pattern}");
            let bytes = windows.to_bytes();
            let again = Windows::from_bytes(&bytes, rule.classes.count).expect("its own bytes");
            assert_eq!(again.to_bytes(), bytes);
            assert!(
                (0..bytes.len()).all(|cut| Windows::from_bytes(&bytes[..cut], rule.classes.count).is_none())
            );
        }
    }

    #[test]
    fn what_is_not_regular_is_left_to_the_fallback() {
        for pattern in [r"(a)\1", r"(?<=ab)c", r"a\Kb", r"(?>a|ab)c", r"(?=a\b)a"] {
            let tree = fancy_regex::Expr::parse_tree(pattern).expect("a pattern");
            assert!(Rule::new(&tree.expr).is_err(), "{pattern}");
        }
    }
}

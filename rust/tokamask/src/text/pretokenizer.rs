//! Pre-tokenizers: how text is cut into spans that merges may not cross.

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::rule::dfa::Joint;
use super::rule::Rule;
use crate::error::{Error, UnsupportedComponentError};

/// The rule of the original byte-level tokenizer.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// What becomes of the matches of a split rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Behavior {
    /// Each match is a span of its own, and so is what lies between.
    Isolated,
    /// Matches are dropped.
    Removed,
    /// A match ends the span before it.
    MergedWithPrevious,
    /// A match begins the span after it.
    MergedWithNext,
    /// Runs of matches are one span.
    Contiguous,
}

/// One step of pre-tokenization, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// A regular expression; `invert` takes what lies between matches for the matches.
    Split {
        /// The expression.
        pattern: String,
        /// What becomes of matches.
        behavior: Behavior,
        /// Take the gaps for the matches.
        invert: bool,
    },
    /// Only the matches are text, what lies between is lost (tiktoken).
    Matches {
        /// The expression.
        pattern: String,
    },
    /// Runs of numeric characters, or each of them.
    Digits {
        /// Each on its own.
        individual: bool,
    },
    /// Spaces become a visible mark, and pieces begin with it.
    Metaspace {
        /// The mark.
        replacement: char,
        /// Which stretches of text get one more before them.
        scheme: Scheme,
        /// Cut before each mark.
        split: bool,
    },
    /// Bytes become characters of the byte alphabet.
    ByteLevel {
        /// A space before a stretch that does not begin with one.
        prefix_space: bool,
        /// Cut by [`GPT2`] first.
        use_regex: bool,
    },
    /// Cut where the script changes ([`super::scripts`]).
    UnicodeScripts,
    /// Pieces of so many characters.
    FixedLength {
        /// How many; not 0.
        length: usize,
    },
}

/// Which stretches of text get a mark before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// The one at the start of the text.
    First,
    /// None.
    Never,
    /// Each between added tokens.
    Always,
}

impl Step {
    /// Cut so that every match is a piece.
    pub fn isolated(pattern: &str) -> Self {
        Self::Split { pattern: pattern.to_owned(), behavior: Behavior::Isolated, invert: false }
    }

    /// True if the step only cuts.
    pub fn only_cuts(&self) -> bool {
        matches!(self, Self::Split { .. } | Self::Matches { .. } | Self::Digits { .. })
    }
}

/// The compiled rule of a step that cuts by one.
pub(super) fn pattern_of(step: &Step) -> Result<Option<Pattern>, UnsupportedComponentError> {
    source_of(step).map(Pattern::new).transpose()
}

fn source_of(step: &Step) -> Option<&str> {
    match step {
        Step::Split { pattern, .. } | Step::Matches { pattern } => Some(pattern),
        Step::Digits { individual: true } => Some(r"\p{N}"),
        Step::Digits { individual: false } => Some(r"\p{N}+"),
        Step::Metaspace { .. } | Step::ByteLevel { .. } | Step::UnicodeScripts | Step::FixedLength { .. } => {
            None
        }
    }
}

/// Steps made ready to run.
pub struct PreTokenizer {
    steps: Vec<(Step, Pattern)>,
}

impl PreTokenizer {
    /// Compiles the steps, which only cut; [`super::pieces::Pieces`] runs the others.
    pub fn new(steps: &[Step]) -> Result<Self, UnsupportedComponentError> {
        Self::with(steps, &[])
    }

    /// The same with the windows of the rules, as far as they were derived before.
    pub fn with(steps: &[Step], windows: &[Vec<u8>]) -> Result<Self, UnsupportedComponentError> {
        let rules = steps.iter().filter_map(|step| Some((step, source_of(step)?)));
        let steps = rules.enumerate().map(|(nth, (step, source))| {
            Ok((step.clone(), Pattern::with(source, windows.get(nth).map(Vec::as_slice))?))
        });
        Ok(Self { steps: steps.collect::<Result<_, _>>()? })
    }

    /// The windows of the rules.
    pub fn windows(&self) -> Vec<Vec<u8>> {
        let rules = self.steps.iter().map(|(_, pattern)| pattern.rule());
        rules.map(|rule| rule.map(Rule::windows).unwrap_or_default()).collect()
    }

    /// The rules of all steps, if nothing is dropped or joined: every match is a piece, and so is what lies between.
    pub fn rules(&self) -> Option<Vec<&Rule>> {
        let rules = self.steps.iter().map(|(step, pattern)| match step {
            Step::Split { behavior: Behavior::Isolated, .. } | Step::Digits { .. } => pattern.rule(),
            Step::Split { behavior: Behavior::Removed, invert: true, .. } | Step::Matches { .. } => {
                pattern.rule().filter(|rule| rule.covers())
            }
            _ => None,
        });
        rules.collect()
    }

    /// The rule, if it is the only step, every character of every text is in some match, and matches are kept.
    pub fn single_rule(&self) -> Option<&Rule> {
        self.only_rule().filter(|rule| rule.covers_alone())
    }

    /// The same for one text.
    pub fn single_rule_for(&self, text: &str) -> Option<&Rule> {
        self.only_rule().filter(|rule| rule.covers_text(text.as_bytes()))
    }

    /// The rule, if it is the only step and matches are kept.
    fn only_rule(&self) -> Option<&Rule> {
        let [(step, pattern)] = &self.steps[..] else { return None };
        match step {
            Step::Matches { .. }
            | Step::Split { behavior: Behavior::Isolated, .. }
            | Step::Split { behavior: Behavior::Removed, invert: true, .. } => pattern.rule(),
            _ => None,
        }
    }

    /// A boundary of `text` (a prefix of more) before which the spans stay, whatever follows, and from which on the
    /// text is cut as if it began there. The last that is easily known; 0 if none is.
    pub fn settled(&self, text: &str) -> usize {
        // Each step cuts the open end that the step before left: where it begins, and how far it surely goes.
        let (mut start, mut end) = (0, text.len());
        for (step, pattern) in &self.steps {
            let joins = match step {
                Step::Split { behavior, .. } => !matches!(behavior, Behavior::Isolated | Behavior::Removed),
                _ => false,
            };
            let Some(rule) = pattern.rule().filter(|_| !joins) else { break };
            end = rule.find_settled(&text.as_bytes()[..end], start, |_, to| start = to);
        }
        start
    }

    /// How the place `at`, between two characters of the text, parts it: [`Joint::Ends`] if it is cut there for sure.
    pub fn joint(&self, text: &[u8], at: usize) -> Joint {
        for (step, pattern) in &self.steps {
            let joins = match step {
                Step::Split { behavior, .. } => !matches!(behavior, Behavior::Isolated | Behavior::Removed),
                _ => false,
            };
            let Some(rule) = pattern.rule().filter(|_| !joins) else { return Joint::None };
            match rule.joint(text, at) {
                // Later steps see pieces on both sides.
                Joint::Ends => return Joint::Ends,
                Joint::Apart => {}
                Joint::None => return Joint::None,
            }
        }
        Joint::Apart
    }

    /// Cuts `text`; `spans` receives byte ranges in order.
    pub fn split(&self, text: &str, spans: &mut Vec<(usize, usize)>) -> Result<(), Error> {
        spans.clear();
        if text.is_empty() {
            return Ok(());
        }
        spans.push((0, text.len()));
        let mut before = Vec::new();
        for (step, pattern) in &self.steps {
            std::mem::swap(&mut before, spans);
            spans.clear();
            for &span in &before {
                cut(step, pattern, text, span, spans)?;
            }
        }
        Ok(())
    }
}

/// One step on one span; `spans` receives byte ranges in order.
pub(super) fn cut(
    step: &Step,
    pattern: &Pattern,
    text: &str,
    (start, end): (usize, usize),
    spans: &mut Vec<(usize, usize)>,
) -> Result<(), Error> {
    // Pieces and whether each is a match, gaps included.
    let mut pieces = Vec::new();
    let mut last = start;
    pattern.find(&text[start..end], |from, to| {
        let (from, to) = (start + from, start + to);
        if from > last {
            pieces.push((last, from, false));
        }
        pieces.push((from, to, true));
        last = to;
    })?;
    if last < end {
        pieces.push((last, end, false));
    }
    let (behavior, invert) = match step {
        Step::Split { behavior, invert, .. } => (*behavior, *invert),
        Step::Matches { .. } => (Behavior::Removed, true),
        _ => (Behavior::Isolated, false),
    };
    let first = spans.len();
    let mut matched_before = false;
    for &(from, to, matched) in &pieces {
        let matched = matched != invert;
        let joins = match behavior {
            Behavior::Isolated => false,
            Behavior::Removed => {
                if !matched {
                    spans.push((from, to));
                }
                continue;
            }
            Behavior::MergedWithPrevious => matched && !matched_before,
            Behavior::MergedWithNext => matched_before && !matched,
            Behavior::Contiguous => matched == matched_before,
        };
        matched_before = matched;
        let known = spans.len();
        match spans.last_mut() {
            Some(span) if joins && known > first => span.1 = to,
            _ => spans.push((from, to)),
        }
    }
    spans.retain(|&(from, to)| to > from);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::levels::Levels;
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        let letters: Vec<char> = "abAB '\u{2019}sS  012345678\t\n\r\n.,!你é½٣\u{301}".chars().collect();
        prop::collection::vec(prop::sample::select(letters), 0..400).prop_map(|v| v.into_iter().collect())
    }

    fn rules() -> impl Strategy<Value = Vec<&'static str>> {
        let rule = prop::sample::select(vec![
            GPT2,
            r"\p{N}",
            r"\p{N}{1,3}",
            r"\p{N}+",
            r"(?=(\d{3})+(?!\d))",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r"\s+(?!\S)|\s|[^\s]+",
            r" ?\p{L}+|\s+$",
            r"a*",
            r"(?=b)",
        ]);
        prop::collection::vec(rule, 1..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// One pass cuts as step after step does.
        #[test]
        fn levels_cut_as_the_steps(rules in rules(), texts in prop::collection::vec(text(), 1..4)) {
            let steps: Vec<Step> = rules.iter().map(|rule| Step::isolated(rule)).collect();
            let steps = PreTokenizer::new(&steps).expect("rules that run");
            let text = texts.concat();
            let (mut spans, mut starts) = (Vec::new(), vec![0]);
            steps.split(&text, &mut spans).expect("in memory");
            let rules = steps.rules().expect("regular rules");
            let mut levels = Levels::new(&rules, text.as_bytes()).expect("a rule");
            loop {
                let mut more = Vec::new();
                levels.fill(&mut more);
                let Some(first) = more.first() else { break };
                prop_assert_eq!(starts.last(), Some(first));
                starts.extend_from_slice(&more[1..]);
            }
            let ours: Vec<(usize, usize)> = starts.windows(2).map(|s| (s[0] as usize, s[1] as usize)).collect();
            prop_assert_eq!(ours, spans);
        }
    }
}

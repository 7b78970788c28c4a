//! A rule's expression as a tree over sets of characters.

use fancy_regex::{Assertion, Expr, LookAround};
use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use super::NotRegular;

/// Repeats are written out; beyond this the rule is left to the fallback.
const MAX_NODES: usize = 4000;

/// Every far look-ahead doubles the automaton's table.
const MAX_AHEADS: usize = 4;

/// What stands before may double its states.
const MAX_BEHINDS: usize = 8;

/// A regular expression; sets are indices into [`Tree::sets`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// One character of a set.
    Set(usize),
    /// One after another.
    Concat(Vec<Node>),
    /// The first that leads to a match.
    Alt(Vec<Node>),
    /// `low..=high` times.
    Repeat(Box<Node>, usize, Option<usize>, bool),
    /// The next character is (not, if true) of a set; the end of the text is of no set.
    Next(usize, bool),
    /// The end of the text.
    End,
    /// Look-ahead number n matches (does not, if true).
    Ahead(usize, bool),
    /// Condition number n on what stands before holds (does not, if true).
    Behind(usize, bool),
}

/// A condition on what stands before a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A character of a set; the start of the text is of no set.
    Set(usize),
    /// The start of the text.
    Start,
}

/// A rule and the conditions that it uses by number.
pub struct Tree {
    /// The rule.
    pub root: Node,
    /// Look-aheads that need more than the next character.
    pub aheads: Vec<Node>,
    /// Conditions on what stands before.
    pub behinds: Vec<Behind>,
    /// The set of all characters.
    pub any: usize,
    /// The sets.
    pub sets: Vec<ClassUnicode>,
}

/// Reads an expression.
pub fn read(expression: &Expr) -> Result<Tree, NotRegular> {
    let mut reader = Reader::default();
    let root = reader.node(expression, &[])?;
    let any = reader.intern(ClassUnicode::new([ClassUnicodeRange::new('\0', char::MAX)]));
    Ok(Tree { root, any, aheads: reader.aheads, behinds: reader.behinds, sets: reader.sets })
}

#[derive(Default)]
struct Reader {
    aheads: Vec<Node>,
    behinds: Vec<Behind>,
    sets: Vec<ClassUnicode>,
    nodes: usize,
    /// Within a look-ahead.
    inside: bool,
}

impl Reader {
    /// `after`: what follows the expression up to the end of the rule, nearest first.
    fn node(&mut self, expression: &Expr, after: &[&Expr]) -> Result<Node, NotRegular> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(NotRegular("too large"));
        }
        Ok(match expression {
            Expr::Empty => Node::Concat(Vec::new()),
            Expr::Group(inner) => self.node(inner, after)?,
            Expr::Concat(items) => {
                let mut nodes = Vec::with_capacity(items.len());
                for (nth, item) in items.iter().enumerate() {
                    let rest: Vec<&Expr> = items[nth + 1..].iter().chain(after.iter().copied()).collect();
                    nodes.push(self.node(item, &rest)?);
                }
                Node::Concat(nodes)
            }
            Expr::Alt(items) => {
                Node::Alt(items.iter().map(|item| self.node(item, after)).collect::<Result<_, _>>()?)
            }
            Expr::Repeat { child, lo, hi, greedy } => {
                let high = (*hi != usize::MAX).then_some(*hi);
                let copies = high.unwrap_or(lo + 1);
                let before = self.nodes;
                // What follows the body may be the body again: nothing possessive in there.
                let body = self.node(child, &[&Expr::KeepOut])?;
                self.nodes += (self.nodes - before) * copies;
                if self.nodes > MAX_NODES {
                    return Err(NotRegular("too large"));
                }
                if may_be_empty(&body) {
                    return Err(NotRegular("a repeat of what may be empty"));
                }
                Node::Repeat(Box::new(body), *lo, high, *greedy)
            }
            Expr::AtomicGroup(inner) => {
                let Expr::Repeat { child, greedy: true, .. } = &**inner else {
                    return Err(NotRegular("an atomic group"));
                };
                let set = one_set(child).ok_or(NotRegular("a possessive repeat"))?;
                if !gives_nothing_back(&set, after) {
                    return Err(NotRegular("a possessive repeat that matters"));
                }
                self.node(inner, &[])?
            }
            Expr::LookAround(inner, kind) => self.look(inner, *kind)?,
            Expr::Assertion(assertion) => self.assertion(*assertion)?,
            Expr::Literal { val, casei } => {
                let sets = val.chars().map(|c| literal(c, *casei));
                Node::Concat(sets.map(|set| set.map(|set| self.set(set))).collect::<Result<_, _>>()?)
            }
            Expr::Any { .. } | Expr::Delegate { .. } => {
                let set = one_set(expression).ok_or(NotRegular("a character class"))?;
                self.set(set)
            }
            _ => return Err(NotRegular("a construct that is not regular")),
        })
    }

    fn set(&mut self, set: ClassUnicode) -> Node {
        Node::Set(self.intern(set))
    }

    fn intern(&mut self, set: ClassUnicode) -> usize {
        self.sets.iter().position(|other| *other == set).unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        })
    }

    fn assertion(&mut self, assertion: Assertion) -> Result<Node, NotRegular> {
        let line_end = || ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]);
        Ok(match assertion {
            Assertion::EndText => Node::End,
            Assertion::StartText => self.behind(Behind::Start, false)?,
            Assertion::StartLine { crlf: false } => {
                let set = self.intern(line_end());
                Node::Alt(vec![self.behind(Behind::Start, false)?, self.behind(Behind::Set(set), false)?])
            }
            Assertion::EndLine { crlf: false } => {
                Node::Alt(vec![Node::Next(self.intern(line_end()), false), Node::End])
            }
            Assertion::WordBoundary | Assertion::NotWordBoundary => {
                let edge = matches!(assertion, Assertion::WordBoundary);
                let word = regex_syntax::parse(r"\w").map_err(|_| NotRegular("word characters"))?;
                let HirKind::Class(Class::Unicode(word)) = word.kind() else {
                    return Err(NotRegular("word characters"));
                };
                let set = self.intern(word.clone());
                let mut side = |before: bool| {
                    let behind = self.behind(Behind::Set(set), !before)?;
                    Ok(Node::Concat(vec![behind, Node::Next(set, before == edge)]))
                };
                Node::Alt(vec![side(true)?, side(false)?])
            }
            _ => return Err(NotRegular("an assertion")),
        })
    }

    /// A condition on what stands before, by its number.
    fn behind(&mut self, behind: Behind, negated: bool) -> Result<Node, NotRegular> {
        if self.inside {
            return Err(NotRegular("a condition in a look-ahead"));
        }
        Ok(Node::Behind(number(&mut self.behinds, behind, MAX_BEHINDS)?, negated))
    }

    fn look(&mut self, inner: &Expr, kind: LookAround) -> Result<Node, NotRegular> {
        let negated = match kind {
            LookAround::LookAhead => false,
            LookAround::LookAheadNeg => true,
            LookAround::LookBehind | LookAround::LookBehindNeg => {
                let set = one_set(inner).ok_or(NotRegular("look-behind"))?;
                let set = self.intern(set);
                return self.behind(Behind::Set(set), kind == LookAround::LookBehindNeg);
            }
        };
        if let Some(set) = one_set(inner) {
            return Ok(Node::Next(self.intern(set), negated));
        }
        if std::mem::replace(&mut self.inside, true) {
            return Err(NotRegular("a look-ahead in a look-ahead"));
        }
        let node = self.node(inner, &[])?;
        self.inside = false;
        Ok(Node::Ahead(number(&mut self.aheads, node, MAX_AHEADS)?, negated))
    }
}

/// The number of a condition among the known ones, which are at most `most`.
fn number<T: PartialEq>(known: &mut Vec<T>, condition: T, most: usize) -> Result<usize, NotRegular> {
    let number = known.iter().position(|other| *other == condition).unwrap_or(known.len());
    if number == most {
        return Err(NotRegular("too many conditions"));
    }
    if number == known.len() {
        known.push(condition);
    }
    Ok(number)
}

/// The set, if the expression is one character.
fn one_set(expression: &Expr) -> Option<ClassUnicode> {
    let hir = match expression {
        Expr::Group(inner) => return one_set(inner),
        Expr::Literal { val, casei } => {
            let mut chars = val.chars();
            return match (chars.next(), chars.next()) {
                (Some(c), None) => literal(c, *casei).ok(),
                _ => None,
            };
        }
        Expr::Any { newline, crlf } => {
            let mut set = ClassUnicode::empty();
            if !newline {
                set.push(ClassUnicodeRange::new('\n', '\n'));
                if *crlf {
                    set.push(ClassUnicodeRange::new('\r', '\r'));
                }
            }
            set.negate();
            return Some(set);
        }
        Expr::Delegate { inner, casei } => {
            regex_syntax::ParserBuilder::new().case_insensitive(*casei).build().parse(inner).ok()?
        }
        _ => return None,
    };
    match hir.kind() {
        HirKind::Class(Class::Unicode(set)) => Some(set.clone()),
        HirKind::Class(Class::Bytes(set)) => set.to_unicode_class(),
        HirKind::Literal(literal) => {
            let mut chars = std::str::from_utf8(&literal.0).ok()?.chars();
            let only = chars.next().filter(|_| chars.next().is_none())?;
            Some(ClassUnicode::new([ClassUnicodeRange::new(only, only)]))
        }
        _ => None,
    }
}

fn literal(c: char, any_case: bool) -> Result<ClassUnicode, NotRegular> {
    let mut set = ClassUnicode::new([ClassUnicodeRange::new(c, c)]);
    if any_case {
        set.try_case_fold_simple().map_err(|_| NotRegular("case folding"))?;
    }
    Ok(set)
}

fn may_be_empty(node: &Node) -> bool {
    match node {
        Node::Set(_) => false,
        Node::Concat(items) => items.iter().all(may_be_empty),
        Node::Alt(items) => items.iter().any(may_be_empty),
        Node::Repeat(body, low, ..) => *low == 0 || may_be_empty(body),
        Node::Next(..) | Node::End | Node::Ahead(..) | Node::Behind(..) => true,
    }
}

/// True if a possessive repeat of `set` equals a greedy one: wherever it could give a character
/// back, what follows would stand before a character of `set` and could not match, or what follows
/// always matches, so nothing is ever given back.
fn gives_nothing_back(set: &ClassUnicode, after: &[&Expr]) -> bool {
    for item in after {
        match starts(item) {
            Some((first, empty)) => {
                let mut common = first;
                common.intersect(set);
                if !common.ranges().is_empty() {
                    // It may start inside the repeat; harmless only if it always matches.
                    return after.iter().all(|item| always_matches(item));
                }
                if !empty {
                    return true;
                }
            }
            None => return false,
        }
    }
    after.iter().all(|item| always_matches(item))
}

/// Matches the empty text anywhere, with no condition.
fn always_matches(expression: &Expr) -> bool {
    match expression {
        Expr::Empty | Expr::Repeat { lo: 0, .. } => true,
        Expr::Group(inner) => always_matches(inner),
        Expr::AtomicGroup(inner) => always_matches(inner),
        Expr::Concat(items) => items.iter().all(always_matches),
        Expr::Alt(items) => items.iter().any(always_matches),
        _ => false,
    }
}

/// The characters an expression may start with, and whether it may be passed over; `None`: unknown.
fn starts(expression: &Expr) -> Option<(ClassUnicode, bool)> {
    match expression {
        Expr::Empty => Some((ClassUnicode::empty(), true)),
        Expr::Group(inner) => starts(inner),
        Expr::AtomicGroup(inner) => starts(inner),
        Expr::Repeat { child, lo, .. } => {
            let (first, empty) = starts(child)?;
            Some((first, empty || *lo == 0))
        }
        Expr::Concat(items) => {
            let mut all = ClassUnicode::empty();
            for item in items {
                let (first, empty) = starts(item)?;
                all.union(&first);
                if !empty {
                    return Some((all, false));
                }
            }
            Some((all, true))
        }
        Expr::Alt(items) => {
            let (mut all, mut any) = (ClassUnicode::empty(), false);
            for item in items {
                let (first, empty) = starts(item)?;
                all.union(&first);
                any |= empty;
            }
            Some((all, any))
        }
        // Stands before no character at all.
        Expr::Assertion(Assertion::EndText) => Some((ClassUnicode::empty(), false)),
        Expr::Literal { val, casei } => Some((literal(val.chars().next()?, *casei).ok()?, false)),
        _ => Some((one_set(expression)?, false)),
    }
}

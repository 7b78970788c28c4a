//! From definitions to rules.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{is_terminal, Definition, Document, Item, Kind, Pattern};
use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::automaton::{Automaton, DEAD};
use crate::grammar::chars::CharSet;
use crate::grammar::json_schema::{self, Format, Options};
use crate::grammar::regex::Regex;
use crate::grammar::rules::{matches_empty, Expr, Rules};
use crate::grammar::{Grammar, Guard, Node};

/// Rules that templates may make.
const MAX_INSTANCES: usize = 10_000;
/// Length of a rule's name with its arguments.
const MAX_KEY: usize = 2_000;
/// Longest run of white space inside `%json`.
const SPACE: u32 = 16;

/// The grammar of a document.
pub fn lower(text: &str, document: &Document, start: &str) -> Result<Grammar, Error> {
    let mut places = FxHashMap::default();
    for (i, definition) in document.definitions.iter().enumerate() {
        if let Some(&first) = places.get(&definition.name) {
            let both_common = same(&document.definitions[first as usize], definition);
            if !both_common {
                let message = format!("{} is defined twice", definition.name);
                return Err(GrammarError::at_offset(message, text, definition.offset).into());
            }
        }
        places.insert(definition.name.clone(), i as u32);
    }
    let lowering = Lowering {
        text,
        document,
        places,
        terminals: FxHashMap::default(),
        open: Vec::new(),
        rules: Rules::default(),
        made: FxHashMap::default(),
        todo: Vec::new(),
        words: Vec::new(),
        ignored: None,
    };
    lowering.finish(start)
}

/// The same terminal imported twice.
fn same(a: &Definition, b: &Definition) -> bool {
    match (&a.body.kind, &b.body.kind) {
        (Kind::Pattern(a), Kind::Pattern(b)) => a.regex == b.regex && a.lazy == b.lazy,
        _ => false,
    }
}

/// A terminal: its texts, and whether it is spelled out.
#[derive(Clone)]
struct Terminal {
    regex: Regex,
    /// Texts of a literal, with and without regard to case.
    literal: Option<(String, bool)>,
    lazy: bool,
}

struct Lowering<'a> {
    text: &'a str,
    document: &'a Document,
    places: FxHashMap<String, u32>,
    terminals: FxHashMap<String, Terminal>,
    /// Terminals being read, to notice circles.
    open: Vec<String>,
    rules: Rules,
    /// Rules by name and arguments.
    made: FxHashMap<String, usize>,
    /// Rules whose bodies are still to be read: number, definition, arguments.
    todo: Vec<(usize, u32, Vec<Item>)>,
    /// Terminals that a word may be the beginning of.
    words: Vec<Automaton>,
    ignored: Option<Expr>,
}

impl Lowering<'_> {
    fn error(&self, message: impl Into<String>, offset: usize) -> Error {
        GrammarError::at_offset(message, self.text, offset).into()
    }

    fn finish(mut self, start: &str) -> Result<Grammar, Error> {
        let Some(&place) = self.places.get(start) else {
            return Err(self.error(format!("there is no rule {start:?} to begin with"), 0));
        };
        let offset = self.document.definitions[place as usize].offset;
        if !self.document.ignored.is_empty() {
            let mut parts = Vec::new();
            for item in &self.document.ignored {
                parts.push(self.terminal(item)?.regex);
            }
            let any = Regex::Repeat(Box::new(Regex::Alternation(parts)), 1, None);
            self.ignored = Some(Expr::Choice(vec![Expr::empty(), Expr::Terminal(any, None)]));
            self.find_words()?;
        }
        let item = Item { offset, kind: Kind::Name(start.to_owned()) };
        let body = self.item(&item, &FxHashMap::default())?;
        let root = self.rules.add(Expr::empty());
        let before = self.ignored.clone().unwrap_or_else(Expr::empty);
        self.rules.set(root, Expr::Sequence(vec![before, body]));
        while let Some((rule, definition, arguments)) = self.todo.pop() {
            let definition = &self.document.definitions[definition as usize];
            if definition.parameters.len() != arguments.len() {
                let message = format!("{} takes {} arguments", definition.name, definition.parameters.len());
                return Err(self.error(message, definition.offset));
            }
            let names = definition.parameters.iter().cloned().zip(arguments).collect();
            let body = self.item(&definition.body, &names)?;
            self.rules.set(rule, body);
        }
        self.rules.finish(root)
    }

    /// Collects the terminals that keep words apart: those of the rules that have a pattern.
    fn find_words(&mut self) -> Result<(), Error> {
        let mut seen = FxHashSet::default();
        let mut todo: Vec<&Item> = Vec::new();
        for definition in self.document.definitions.iter().filter(|d| !is_terminal(&d.name)) {
            todo.push(&definition.body);
            while let Some(item) = todo.pop() {
                let mut kind = &item.kind;
                if let Kind::Name(name) = kind {
                    let place = self.places.get(name).filter(|_| is_terminal(name));
                    kind = place.map_or(kind, |&p| &self.document.definitions[p as usize].body.kind);
                    if !matches!(kind, Kind::Pattern(_)) {
                        continue;
                    }
                }
                match kind {
                    Kind::Pattern(pattern) if seen.insert(&pattern.regex) => {
                        self.words.push(Automaton::new(&[(pattern.regex.clone(), true)])?);
                    }
                    Kind::Sequence(parts) | Kind::Choice(parts) | Kind::Usage(_, parts) => {
                        todo.extend(parts);
                    }
                    Kind::Repeat(part, ..) => todo.push(part),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What may not follow a literal that is a word: the characters that make it a longer one.
    fn follow(&mut self, literal: &str, any_case: bool) -> CharSet {
        let mut bits = 0u128;
        let mut spellings = vec![literal.to_owned()];
        if any_case {
            spellings = vec![literal.to_lowercase(), literal.to_uppercase()];
        }
        for spelling in &spellings {
            if !spelling.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                continue;
            }
            for word in &mut self.words {
                let end = spelling.chars().fold(word.start(), |q, c| word.step(q, c.into()));
                if end != DEAD && word.accepts(end) {
                    bits |= word.live_ascii(end);
                }
            }
        }
        CharSet::from_ranges((0..128u32).filter(|c| bits >> c & 1 == 1).map(|c| (c, c)))
    }

    /// A terminal in a rule.
    fn in_rule(&mut self, terminal: &Terminal) -> Expr {
        let Some(ignored) = self.ignored.clone() else {
            return Expr::Regular(terminal.regex.clone());
        };
        if matches!(&terminal.literal, Some((text, _)) if text.is_empty()) {
            return Expr::empty();
        }
        let follow = match &terminal.literal {
            Some((text, any_case)) => self.follow(&text.clone(), *any_case),
            None => CharSet::default(),
        };
        let guard = Guard { greedy: !terminal.lazy, follow };
        Expr::Sequence(vec![Expr::Terminal(terminal.regex.clone(), Some(guard)), ignored])
    }

    fn item(&mut self, item: &Item, names: &FxHashMap<String, Item>) -> Result<Expr, Error> {
        Ok(match &item.kind {
            Kind::Name(name) => match names.get(name) {
                Some(argument) => self.item(argument, &FxHashMap::default())?,
                None if is_terminal(name) => {
                    let terminal = self.terminal(item)?;
                    self.in_rule(&terminal)
                }
                None => Expr::Rule(self.rule(item, name, Vec::new())?),
            },
            Kind::Usage(name, arguments) => {
                let arguments = arguments.iter().map(|a| replaced(a, names)).collect();
                Expr::Rule(self.rule(item, name, arguments)?)
            }
            Kind::Literal(..) | Kind::Pattern(_) => {
                let terminal = self.terminal(item)?;
                self.in_rule(&terminal)
            }
            Kind::Special(tokens) => {
                let node = self.rules.add_node(Node::Special(tokens.clone()));
                self.with_ignored(Expr::Node(node))
            }
            Kind::Json(schema) => {
                let resources = Vec::new();
                let options =
                    Options { space: SPACE, schema_order: false, format: Format::Assert, resources };
                let inner = json_schema::read(schema, &options)?;
                let part = self.rules.import(inner);
                self.with_ignored(part)
            }
            Kind::Sequence(parts) => {
                Expr::Sequence(parts.iter().map(|p| self.item(p, names)).collect::<Result<_, _>>()?)
            }
            Kind::Choice(parts) => {
                Expr::Choice(parts.iter().map(|p| self.item(p, names)).collect::<Result<_, _>>()?)
            }
            Kind::Repeat(part, min, max) => Expr::Repeat(Box::new(self.item(part, names)?), *min, *max),
        })
    }

    fn with_ignored(&self, part: Expr) -> Expr {
        match &self.ignored {
            Some(ignored) => Expr::Sequence(vec![part, ignored.clone()]),
            None => part,
        }
    }

    fn rule(&mut self, item: &Item, name: &str, arguments: Vec<Item>) -> Result<usize, Error> {
        let Some(&place) = self.places.get(name) else {
            return Err(self.error(format!("{name} is not defined"), item.offset));
        };
        if self.document.definitions[place as usize].parameters.len() != arguments.len() {
            return Err(self.error(format!("{name} has another number of arguments"), item.offset));
        }
        let mut key = name.to_owned();
        for argument in &arguments {
            write_key(argument, &mut key);
        }
        if let Some(&rule) = self.made.get(&key) {
            return Ok(rule);
        }
        if self.made.len() >= MAX_INSTANCES && !arguments.is_empty() || key.len() > MAX_KEY {
            return Err(
                LimitError { limit: "template instances".into(), value: self.made.len() as u64 }.into()
            );
        }
        let rule = self.rules.add(Expr::empty());
        self.made.insert(key, rule);
        self.todo.push((rule, place, arguments));
        Ok(rule)
    }

    /// The texts of a terminal, without regard to those that take texts from it.
    fn plain_terminal(&mut self, item: &Item) -> Result<Terminal, Error> {
        let regular = |regex| Terminal { regex, literal: None, lazy: false };
        Ok(match &item.kind {
            Kind::Literal(text, any_case) => {
                let regex = if *any_case { in_any_case(text) } else { Regex::literal(text) };
                Terminal { regex, literal: Some((text.clone(), *any_case)), lazy: false }
            }
            Kind::Pattern(pattern) => {
                Terminal { regex: shortest(pattern), literal: None, lazy: pattern.lazy }
            }
            Kind::Name(name) => self.named_terminal(item, name)?,
            Kind::Sequence(parts) => {
                let parts: Result<Vec<_>, _> = parts.iter().map(|p| self.plain_terminal(p)).collect();
                let parts = parts?;
                let lazy = parts.iter().any(|p| p.lazy);
                Terminal { lazy, ..regular(Regex::Concat(parts.into_iter().map(|p| p.regex).collect())) }
            }
            Kind::Choice(parts) => {
                let parts: Result<Vec<_>, _> = parts.iter().map(|p| self.plain_terminal(p)).collect();
                regular(Regex::Alternation(parts?.into_iter().map(|p| p.regex).collect()))
            }
            Kind::Repeat(part, min, max) => {
                let most = (*max != crate::grammar::UNBOUNDED).then_some(*max);
                regular(Regex::Repeat(Box::new(self.plain_terminal(part)?.regex), *min, most))
            }
            Kind::Usage(..) | Kind::Special(_) | Kind::Json(_) => {
                return Err(self.error("this cannot stand in a terminal", item.offset));
            }
        })
    }

    fn named_terminal(&mut self, item: &Item, name: &str) -> Result<Terminal, Error> {
        if !is_terminal(name) {
            return Err(self.error(format!("the rule {name} cannot stand in a terminal"), item.offset));
        }
        if let Some(known) = self.terminals.get(name) {
            return Ok(known.clone());
        }
        let Some(&place) = self.places.get(name) else {
            let declared = self.document.declared.iter().any(|other| other == name);
            let why = if declared { "is declared but has no pattern" } else { "is not defined" };
            return Err(self.error(format!("the terminal {name} {why}"), item.offset));
        };
        if self.open.iter().any(|other| other == name) || self.open.len() > 500 {
            return Err(self.error(format!("the terminal {name} contains itself"), item.offset));
        }
        self.open.push(name.to_owned());
        let found = self.plain_terminal(&self.document.definitions[place as usize].body)?;
        self.open.pop();
        let weight = size(&found.regex);
        if weight > 100_000 {
            return Err(LimitError { limit: "terminal size".into(), value: weight as u64 }.into());
        }
        self.terminals.insert(name.to_owned(), found.clone());
        Ok(found)
    }

    /// The texts of a terminal as a lexer would find it.
    fn terminal(&mut self, item: &Item) -> Result<Terminal, Error> {
        let mut found = self.plain_terminal(item)?;
        let Kind::Name(name) = &item.kind else { return Ok(found) };
        if self.document.ignored.is_empty() {
            return Ok(found);
        }
        let priority =
            |name: &str| self.places.get(name).map(|&p| self.document.definitions[p as usize].priority);
        let own = priority(name).unwrap_or(0);
        let above: Vec<&Definition> =
            self.document.definitions.iter().filter(|d| is_terminal(&d.name) && d.priority > own).collect();
        for other in above {
            let item = Item { offset: other.offset, kind: Kind::Name(other.name.clone()) };
            let taken = self.plain_terminal(&item)?.regex;
            let both = Automaton::new(&[(found.regex.clone(), true), (taken.clone(), true)])?;
            if !both.is_empty() {
                found.regex = Regex::All(vec![found.regex, Regex::Not(Box::new(taken))]);
            }
        }
        if matches_empty(&found.regex) && !matches!(&found.literal, Some((text, _)) if text.is_empty()) {
            return Err(self.error(format!("the terminal {name} may be empty"), item.offset));
        }
        Ok(found)
    }
}

/// Characters of a pattern written out.
fn size(regex: &Regex) -> usize {
    match regex {
        Regex::Concat(parts) | Regex::Alternation(parts) | Regex::All(parts) => {
            1 + parts.iter().map(size).sum::<usize>()
        }
        Regex::Repeat(part, ..) | Regex::Not(part) => 1 + size(part),
        _ => 1,
    }
}

/// With lazy repetitions: only texts that no shorter match begins.
fn shortest(pattern: &Pattern) -> Regex {
    if !pattern.lazy {
        return pattern.regex.clone();
    }
    let more = Regex::Repeat(Box::new(Regex::Class(CharSet::all())), 1, None);
    let longer = Regex::Concat(vec![pattern.regex.clone(), more]);
    Regex::All(vec![pattern.regex.clone(), Regex::Not(Box::new(longer))])
}

fn in_any_case(text: &str) -> Regex {
    let both = |c: char| {
        let spellings = c.to_lowercase().chain(c.to_uppercase()).chain([c]);
        Regex::Class(CharSet::from_ranges(spellings.map(|c| (c.into(), c.into()))))
    };
    Regex::Concat(text.chars().map(both).collect())
}

/// An argument with the names of the place where it stands replaced.
fn replaced(item: &Item, names: &FxHashMap<String, Item>) -> Item {
    let all = |parts: &[Item]| parts.iter().map(|part| replaced(part, names)).collect();
    let kind = match &item.kind {
        Kind::Name(name) => match names.get(name) {
            Some(argument) => return argument.clone(),
            None => Kind::Name(name.clone()),
        },
        Kind::Usage(name, parts) => Kind::Usage(name.clone(), all(parts)),
        Kind::Sequence(parts) => Kind::Sequence(all(parts)),
        Kind::Choice(parts) => Kind::Choice(all(parts)),
        Kind::Repeat(part, min, max) => Kind::Repeat(Box::new(replaced(part, names)), *min, *max),
        other => other.clone(),
    };
    Item { offset: item.offset, kind }
}

fn write_keys(items: &[Item], key: &mut String) {
    for item in items {
        write_key(item, key);
    }
}

/// Arguments that read the same make the same rule.
fn write_key(item: &Item, key: &mut String) {
    key.push('{');
    match &item.kind {
        Kind::Name(name) => key.push_str(name),
        Kind::Usage(name, parts) => {
            key.push_str(name);
            write_keys(parts, key);
        }
        Kind::Sequence(parts) => {
            key.push(',');
            write_keys(parts, key);
        }
        Kind::Choice(parts) => {
            key.push('|');
            write_keys(parts, key);
        }
        Kind::Repeat(part, min, max) => {
            key.extend(["~", &min.to_string(), "~", &max.to_string()]);
            write_key(part, key);
        }
        other => {
            let text = format!("{other:?}");
            key.push_str(&text);
        }
    }
    key.push('}');
}

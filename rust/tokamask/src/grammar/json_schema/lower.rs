//! Clauses to nodes.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::automaton::Automaton;
use crate::grammar::budget;
use crate::grammar::chars::{CharSet, Spelling};
use crate::grammar::json::{Decimal, Json};
use crate::grammar::json_schema::clause::{clauses, Clause};
use crate::grammar::json_schema::document::Documents;
use crate::grammar::json_schema::formats::{self, Numbers};
use crate::grammar::json_schema::formula::{Literal, LiteralKey, Type};
use crate::grammar::json_schema::members::NameClass;
use crate::grammar::json_schema::{Format, Options};
use crate::grammar::regex::{self, Dialect, Regex};
use crate::grammar::words::WordTrie;
use crate::grammar::{number, Grammar, Node, NodeId, Run, Text, NO_NODE, UNBOUNDED};

/// The schema that allows everything.
pub static TRUE: Json = Json::Bool(true);

/// Digits that a number in a schema may have, written out.
const MAX_DIGITS: usize = 400;
/// Work units one schema may cost: clauses, members and nodes.
const MAX_WORK: usize = 2_000_000;

/// Signed patterns that hold together.
pub type Conjunction = Vec<(Regex, bool)>;

/// A pattern of the schema as a conjunction.
pub type Pattern = Arc<Conjunction>;

/// What a string clause with patterns demands.
#[derive(PartialEq, Eq, Hash)]
struct StringKind<'a> {
    patterns: Vec<(u32, bool)>,
    not_texts: Vec<&'a str>,
    lengths: (u32, Option<u32>),
}

/// The state of reading one schema.
pub struct Lowering<'a, 'o> {
    /// Where references lead.
    pub documents: &'o Documents<'a>,
    pub(super) options: &'o Options,
    nodes: Vec<Option<Node>>,
    goals: FxHashMap<Vec<LiteralKey>, NodeId>,
    todo: VecDeque<(NodeId, Vec<Literal<'a>>)>,
    pub(super) automata: Vec<Automaton>,
    automaton_ids: FxHashMap<Vec<(Regex, bool)>, u32>,
    pub(super) patterns: Vec<Pattern>,
    pattern_ids: FxHashMap<String, u32>,
    format_ids: FxHashMap<String, u32>,
    /// Patterns that are standard formats.
    known: FxHashMap<u32, &'static formats::Known>,
    /// Automata of single patterns.
    pattern_automata: FxHashMap<u32, u32>,
    /// Schemas of scalars, by what they say: many properties say the same.
    plain: FxHashMap<String, NodeId>,
    /// How lists of patterns split the property names.
    pub(super) name_classes: FxHashMap<Vec<u32>, Vec<Arc<NameClass>>>,
    text_ids: FxHashMap<(u32, Spelling), NodeId>,
    string_ids: FxHashMap<StringKind<'a>, Option<NodeId>>,
    scopes: Vec<Vec<u32>>,
    owners: u32,
    numbers: [Option<NodeId>; 2],
    free_string: Option<NodeId>,
    full: Arc<CharSet>,
    warnings: Vec<String>,
    work: usize,
}

impl<'a, 'o> Lowering<'a, 'o> {
    /// A fresh state.
    pub fn new(documents: &'o Documents<'a>, options: &'o Options) -> Self {
        Self {
            documents,
            options,
            nodes: Vec::new(),
            goals: FxHashMap::default(),
            todo: VecDeque::new(),
            automata: Vec::new(),
            automaton_ids: FxHashMap::default(),
            patterns: Vec::new(),
            pattern_ids: FxHashMap::default(),
            format_ids: FxHashMap::default(),
            known: FxHashMap::default(),
            pattern_automata: FxHashMap::default(),
            plain: FxHashMap::default(),
            name_classes: FxHashMap::default(),
            text_ids: FxHashMap::default(),
            string_ids: FxHashMap::default(),
            scopes: vec![vec![0]],
            owners: 0,
            numbers: [None; 2],
            free_string: None,
            full: Arc::new(CharSet::all()),
            warnings: Vec::new(),
            work: 0,
        }
    }

    /// Reads the whole schema.
    pub fn grammar(mut self, root: &'a Json) -> Result<Grammar, Error> {
        let literal = Literal { json: root, constant: false, positive: true, base: 0, scope: 0 };
        let value = self.node(vec![literal])?;
        while let Some((id, goal)) = self.todo.pop_front() {
            let node = self.alternatives(&goal)?;
            self.nodes[id as usize] = Some(node);
        }
        let space = self.push(Node::Runs(vec![self.space_run()], Spelling::Plain));
        let root = self.push(Node::Sequence(vec![space, value]));
        let nodes = self.nodes.into_iter().map(|n| n.unwrap_or(Node::AnyOf(Vec::new()))).collect();
        Grammar::new(nodes, self.automata, root, self.options.space, self.warnings)
    }

    fn space_run(&self) -> Run {
        let class = CharSet::from_ranges([(9, 10), (13, 13), (32, 32)]);
        Run { class: Arc::new(class), min: 0, max: self.options.space }
    }

    /// Accounts for work, so that no schema takes for ever.
    pub fn spend(&mut self, units: usize) -> Result<(), Error> {
        budget::check()?;
        self.work += units;
        if self.work > MAX_WORK {
            return Err(LimitError { limit: "schema size".into(), value: self.work as u64 }.into());
        }
        Ok(())
    }

    /// A mark for one `unevaluated*`.
    pub fn new_owner(&mut self) -> u32 {
        self.owners += 1;
        self.owners
    }

    /// Resources of a dynamic scope, outermost first.
    pub fn scope(&self, scope: u32) -> &[u32] {
        &self.scopes[scope as usize]
    }

    /// The scope after a resource is entered.
    pub fn enter_scope(&mut self, scope: u32, resource: u32) -> u32 {
        if !self.documents.dynamic || self.scopes[scope as usize].contains(&resource) {
            return scope;
        }
        let mut longer = self.scopes[scope as usize].clone();
        longer.push(resource);
        let known = self.scopes.iter().position(|s| *s == longer);
        known.unwrap_or_else(|| {
            self.scopes.push(longer);
            self.scopes.len() - 1
        }) as u32
    }

    /// The number of a pattern.
    pub fn pattern(&mut self, text: &str, schema: &Json, keyword: &str) -> Result<u32, Error> {
        if let Some(&id) = self.pattern_ids.get(text) {
            return Ok(id);
        }
        let parts =
            regex::parse(text, Dialect::Ecma).and_then(regex::search_parts).map_err(|error| match error {
                Error::Grammar(error) => GrammarError {
                    json_pointer: Some(format!("{}/{keyword}", self.documents.pointer(schema))),
                    ..error
                }
                .into(),
                other => other,
            })?;
        let id = self.patterns.len() as u32;
        self.patterns.push(Arc::new(parts));
        self.pattern_ids.insert(text.to_owned(), id);
        Ok(id)
    }

    /// The pattern of a format; None for annotations.
    pub fn format(&mut self, name: &str) -> Option<u32> {
        if self.options.format == Format::Annotate {
            return None;
        }
        if let Some(&id) = self.format_ids.get(name) {
            return Some(id);
        }
        let Some(known) = formats::format(name) else {
            let warning = format!("format {name:?} is not known and was read as an annotation");
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
            return None;
        };
        let id = self.patterns.len() as u32;
        self.patterns.push(Arc::clone(&known.pattern));
        self.known.insert(id, known);
        self.format_ids.insert(name.to_owned(), id);
        Some(id)
    }

    pub(super) fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(Some(node));
        self.nodes.len() as NodeId - 1
    }

    pub(super) fn automaton(&mut self, parts: Vec<(Regex, bool)>) -> Result<u32, Error> {
        if let Some(&id) = self.automaton_ids.get(&parts) {
            return Ok(id);
        }
        let id = self.automata.len() as u32;
        self.automata.push(Automaton::new(&parts)?);
        self.automaton_ids.insert(parts, id);
        Ok(id)
    }

    /// The automaton of one pattern.
    pub(super) fn pattern_automaton(&mut self, pattern: u32) -> Result<u32, Error> {
        if let Some(&id) = self.pattern_automata.get(&pattern) {
            return Ok(id);
        }
        let automaton = match self.known.get(&pattern) {
            Some(known) => known.automaton()?,
            None => Automaton::new(&self.patterns[pattern as usize])?,
        };
        self.automata.push(automaton);
        let id = self.automata.len() as u32 - 1;
        self.pattern_automata.insert(pattern, id);
        Ok(id)
    }

    /// The node of a conjunction of schemas; `NO_NODE` if it plainly cannot be satisfied.
    pub(super) fn node(&mut self, mut goal: Vec<Literal<'a>>) -> Result<NodeId, Error> {
        if goal.iter().any(Literal::is_false) {
            return Ok(NO_NODE);
        }
        goal.retain(|literal| !literal.is_true());
        goal.sort_unstable_by_key(Literal::key);
        goal.dedup_by_key(|literal| literal.key());
        let key: Vec<LiteralKey> = goal.iter().map(Literal::key).collect();
        if let Some(&id) = self.goals.get(&key) {
            return Ok(id);
        }
        let plain = if let [only] = goal[..] { only.plain() } else { None };
        if let Some(&id) = plain.as_ref().and_then(|plain| self.plain.get(plain)) {
            self.goals.insert(key, id);
            return Ok(id);
        }
        self.spend(1)?;
        let id = self.nodes.len() as NodeId;
        self.nodes.push(None);
        self.goals.insert(key, id);
        self.plain.extend(plain.map(|plain| (plain, id)));
        self.todo.push_back((id, goal));
        Ok(id)
    }

    /// Every way to satisfy a goal.
    fn alternatives(&mut self, goal: &[Literal<'a>]) -> Result<Node, Error> {
        let mut options = Vec::new();
        for kind in Type::ALL {
            for clause in clauses(self, goal, kind)? {
                match kind {
                    Type::Null => options.push(self.words(&["null"])),
                    Type::Boolean => {
                        let words: Vec<&str> = ["false", "true"]
                            .into_iter()
                            .enumerate()
                            .filter(|(i, _)| !clause.not_boolean[*i])
                            .map(|w| w.1)
                            .collect();
                        options.push(self.words(&words));
                    }
                    Type::Number => options.extend(self.number(&clause)?),
                    Type::String => options.extend(self.string(&clause)?),
                    Type::Object => options.push(self.object(&clause)?),
                    Type::Array => options.push(self.array(&clause)?),
                }
            }
        }
        Ok(Node::AnyOf(options))
    }

    fn words(&mut self, words: &[&str]) -> NodeId {
        self.push(Node::Words(WordTrie::new(words.iter().map(|&w| w.to_owned()).collect()), Spelling::Plain))
    }

    fn number(&mut self, clause: &Clause<'a>) -> Result<Option<NodeId>, Error> {
        let integer = clause.integer == Some(true);
        let bare = self.documents.bare_integers;
        let plain = clause.bounds.is_empty() && clause.multiples.is_empty() && clause.not_numbers.is_empty();
        if plain && clause.numbers.is_none() && clause.integer != Some(false) {
            if let Some(id) = self.numbers[usize::from(integer)] {
                return Ok(Some(id));
            }
            let automaton = self.automata.len() as u32;
            self.automata.push(formats::number_automaton(match (integer, bare) {
                (false, _) => Numbers::All,
                (true, false) => Numbers::Integers,
                (true, true) => Numbers::BareIntegers,
            })?);
            let id = self.text(automaton, Spelling::Plain);
            self.numbers[usize::from(integer)] = Some(id);
            return Ok(Some(id));
        }
        let too_long = || LimitError { limit: "digits of a number".into(), value: MAX_DIGITS as u64 };
        let mut parts = Vec::new();
        if let Some(numbers) = &clause.numbers {
            let spelled = numbers.iter().map(|n| number::equal_to(n, MAX_DIGITS)).collect::<Option<Vec<_>>>();
            parts.push((Regex::Alternation(spelled.ok_or_else(too_long)?), true));
        } else {
            // Only bounds know what an exponent means.
            let bounds_only = clause.multiples.is_empty() && clause.not_numbers.is_empty();
            parts.push(match (integer, bounds_only && clause.integer.is_none()) {
                (true, _) if bare => (number::bare_integer(), true),
                (true, _) => (number::integer(), true),
                (false, true) => (number::written_number(), true),
                (false, false) => (number::plain_number(), true),
            });
        }
        if clause.integer == Some(false) || integer && clause.numbers.is_some() {
            let whole = if bare { number::bare_integer() } else { number::whole_values() };
            parts.push((whole, integer));
        }
        for &(value, upper, strict) in &clause.bounds {
            let bound: fn(&Decimal, bool, usize) -> Option<Regex> =
                if upper { number::at_most } else { number::at_least };
            parts.push((bound(value, strict, MAX_DIGITS).ok_or_else(too_long)?, true));
        }
        for &(value, positive) in &clause.multiples {
            parts.push((number::multiple_of(value)?, positive));
        }
        for value in &clause.not_numbers {
            parts.push((number::spelled(value, MAX_DIGITS).ok_or_else(too_long)?, false));
        }
        Ok(Some(self.text_node(parts, Spelling::Plain)?))
    }

    fn text_node(&mut self, parts: Vec<(Regex, bool)>, spelling: Spelling) -> Result<NodeId, Error> {
        let automaton = self.automaton(parts)?;
        Ok(self.text(automaton, spelling))
    }

    /// The node of an automaton without bounds on the length; equal ones are shared.
    fn text(&mut self, automaton: u32, spelling: Spelling) -> NodeId {
        if let Some(&id) = self.text_ids.get(&(automaton, spelling)) {
            return id;
        }
        let id = self.push(Node::Text(Text { automaton, spelling, lengths: None }));
        self.text_ids.insert((automaton, spelling), id);
        id
    }

    /// The conjunction that a string clause demands of the text, beside its length.
    pub(super) fn string_parts(&self, clause: &Clause<'a>) -> Vec<(Regex, bool)> {
        let mut parts = Vec::new();
        for &(id, positive) in &clause.patterns {
            let pattern = Arc::clone(&self.patterns[id as usize]);
            if positive {
                parts.extend(pattern.iter().cloned());
            } else if pattern.len() == 1 {
                parts.push((pattern[0].0.clone(), !pattern[0].1));
            } else {
                parts.push((Regex::Not(Box::new(regex::conjunction(&pattern))), true));
            }
        }
        parts.extend(clause.not_texts.iter().map(|text| (Regex::literal(text), false)));
        parts
    }

    fn string(&mut self, clause: &Clause<'a>) -> Result<Option<NodeId>, Error> {
        if clause.texts.is_some() || clause.patterns.is_empty() {
            return self.new_string(clause);
        }
        // Strings of one kind are one node, which shares its rows.
        let kind = StringKind {
            patterns: clause.patterns.clone(),
            not_texts: clause.not_texts.clone(),
            lengths: (clause.min_length, clause.max_length),
        };
        if let Some(&id) = self.string_ids.get(&kind) {
            return Ok(id);
        }
        let id = self.new_string(clause)?;
        self.string_ids.insert(kind, id);
        Ok(id)
    }

    fn new_string(&mut self, clause: &Clause<'a>) -> Result<Option<NodeId>, Error> {
        if clause.texts.is_some() {
            let words = self.allowed_texts(clause)?;
            return Ok(
                (!words.is_empty()).then(|| self.push(Node::Words(WordTrie::new(words), Spelling::Json)))
            );
        }
        let max = clause.max_length.unwrap_or(UNBOUNDED);
        if clause.patterns.is_empty() && clause.not_texts.is_empty() {
            if clause.min_length == 0 && clause.max_length.is_none() {
                if let Some(id) = self.free_string {
                    return Ok(Some(id));
                }
            }
            let runs = vec![Run { class: Arc::clone(&self.full), min: clause.min_length, max }];
            let id = self.push(Node::Runs(runs, Spelling::Json));
            if clause.min_length == 0 && clause.max_length.is_none() {
                self.free_string = Some(id);
            }
            return Ok(Some(id));
        }
        if let ([(pattern, true)], true, 0, None) =
            (clause.patterns.as_slice(), clause.not_texts.is_empty(), clause.min_length, clause.max_length)
        {
            if self.known.contains_key(pattern) {
                let automaton = self.pattern_automaton(*pattern)?;
                return Ok(Some(self.text(automaton, Spelling::Json)));
            }
        }
        let parts = self.string_parts(clause);
        if let [(regex, true)] = parts.as_slice() {
            if let Some(runs) = linear(regex, clause.min_length, max) {
                return Ok(Some(self.push(Node::Runs(runs, Spelling::Json))));
            }
        }
        let automaton = match clause.patterns.as_slice() {
            [(pattern, true)] if clause.not_texts.is_empty() => self.pattern_automaton(*pattern)?,
            _ => self.automaton(parts)?,
        };
        let known = &self.automata[automaton as usize];
        let least = u32::from(!known.accepts(known.start()));
        if clause.min_length <= least && clause.max_length.is_none() {
            return Ok(Some(self.text(automaton, Spelling::Json)));
        }
        let lengths = self.automata[automaton as usize].lengths(clause.min_length, clause.max_length)?;
        if !lengths.bind(self.automata[automaton as usize].start(), clause.min_length, clause.max_length) {
            return Ok(Some(self.text(automaton, Spelling::Json)));
        }
        let lengths = Some((clause.min_length, clause.max_length, lengths));
        Ok(Some(self.push(Node::Text(Text { automaton, spelling: Spelling::Json, lengths }))))
    }

    /// The texts of an enumeration that the rest of the clause allows.
    pub(super) fn allowed_texts(&mut self, clause: &Clause<'a>) -> Result<Vec<String>, Error> {
        let texts = clause.texts.as_deref().unwrap_or_default();
        self.spend(texts.len())?;
        let parts = self.string_parts(clause);
        let automaton = if parts.is_empty() { None } else { Some(self.automaton(parts)?) };
        let mut out = Vec::with_capacity(texts.len());
        for text in texts {
            let length = text.chars().count();
            let fits = length >= clause.min_length as usize
                && clause.max_length.is_none_or(|max| length <= max as usize);
            if fits && automaton.is_none_or(|a| self.automata[a as usize].matches(text)) {
                out.push((*text).to_owned());
            }
        }
        Ok(out)
    }
}

/// Counted classes one after another, if the pattern is no more than that and following the counts
/// beats an automaton.
pub fn linear(regex: &Regex, min: u32, max: u32) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    collect_runs(regex, &mut runs)?;
    if min > 0 || max != UNBOUNDED {
        // Bounds on the whole length join the count only where there is a single run.
        let [run] = runs.as_mut_slice() else { return None };
        run.min = run.min.max(min);
        run.max = run.max.min(max);
    }
    let overlap =
        |a: &Run, b: &Run| !a.class.intersection(&b.class).is_empty() && (a.min != a.max || b.min != b.max);
    let large = |run: &Run| run.min > 40 || run.max != UNBOUNDED && run.max > 40;
    let tangled = runs.windows(2).any(|w| overlap(&w[0], &w[1]));
    (!tangled || runs.iter().any(large)).then_some(runs)
}

fn collect_runs(regex: &Regex, runs: &mut Vec<Run>) -> Option<()> {
    match regex {
        Regex::Class(class) => runs.push(Run { class: Arc::new(class.clone()), min: 1, max: 1 }),
        Regex::Concat(parts) => parts.iter().try_for_each(|part| collect_runs(part, runs))?,
        Regex::Repeat(inner, min, max) => {
            let class = match &**inner {
                Regex::Class(class) => class,
                Regex::Concat(parts) => match parts.as_slice() {
                    [Regex::Class(class)] => class,
                    _ => return None,
                },
                _ => return None,
            };
            runs.push(Run { class: Arc::new(class.clone()), min: *min, max: max.unwrap_or(UNBOUNDED) });
        }
        _ => return None,
    }
    Some(())
}

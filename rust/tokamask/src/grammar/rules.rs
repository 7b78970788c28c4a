//! Context-free rules to nodes: what is regular becomes one text, nullable parts and left recursion
//! are taken out, and each rule becomes a small deterministic automaton over texts and other rules.
//!
//! Afterwards a rule that is called always reads a byte before it calls itself again, so the
//! recognizer may follow calls without looking for cycles.

mod left;
mod network;

use rustc_hash::FxHashMap;

use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::automaton::Automaton;
use crate::grammar::chars::{CharSet, Spelling};
use crate::grammar::json_schema::counted_runs;
use crate::grammar::regex::Regex;
use crate::grammar::{Grammar, Guard, Node, NodeId, Rule, Text, UNBOUNDED};

/// Parts that the rules of one grammar may have together.
const MAX_PARTS: usize = 400_000;
/// Characters that a regular part may have, written out; larger ones stay rules.
const MAX_REGULAR: usize = 600;
/// Characters that all regular parts may have together, as often as they are joined to others.
const MAX_JOINED: usize = 1_000_000;
/// Repetitions of rules beyond this are counted, not written out.
const MAX_COPIES: u32 = 8;
/// Repetitions of regular parts beyond this are counted, not written out.
const MAX_REGULAR_COPIES: u32 = 40;

/// The right side of a rule.
#[derive(Clone, Debug)]
pub enum Expr {
    /// Another rule.
    Rule(usize),
    /// A regular text. It may be joined with its neighbours.
    Regular(Regex),
    /// A text of its own: a terminal of a lexer.
    Terminal(Regex, Option<Guard>),
    /// A node that is there already and never matches the empty text.
    Node(NodeId),
    /// One after another.
    Sequence(Vec<Expr>),
    /// One of several.
    Choice(Vec<Expr>),
    /// Between so many and so many times.
    Repeat(Box<Expr>, u32, u32),
}

impl Expr {
    /// The empty text.
    pub fn empty() -> Self {
        Self::Sequence(Vec::new())
    }
}

/// Rules and the nodes they stand on.
#[derive(Default)]
pub struct Rules {
    bodies: Vec<Expr>,
    nodes: Vec<Node>,
    automata: Vec<Automaton>,
    guards: FxHashMap<NodeId, Guard>,
    texts: FxHashMap<(Regex, Option<Guard>), Option<NodeId>>,
    /// Node of each rule.
    places: Vec<NodeId>,
    nullable: Vec<bool>,
    space: u32,
    warnings: Vec<String>,
}

impl Rules {
    /// Adds a rule.
    pub fn add(&mut self, body: Expr) -> usize {
        self.bodies.push(body);
        self.bodies.len() - 1
    }

    /// Replaces a rule that was added before its body was known.
    pub fn set(&mut self, rule: usize, body: Expr) {
        self.bodies[rule] = body;
    }

    /// Adds a node that is ready.
    pub fn add_node(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() as NodeId - 1
    }

    /// Takes over the nodes of a finished grammar; its root becomes a part.
    pub fn import(&mut self, grammar: Grammar) -> Expr {
        let (nodes, automata) = (self.nodes.len() as NodeId, self.automata.len() as u32);
        let root = grammar.root + nodes;
        let nullable = grammar.nullable[grammar.root as usize];
        self.space = self.space.max(grammar.space);
        self.warnings.extend(grammar.warnings);
        self.automata.extend(grammar.automata);
        for (i, guard) in grammar.guards.into_iter().enumerate() {
            if let Some(guard) = guard {
                self.guards.insert(nodes + i as NodeId, guard);
            }
        }
        self.nodes.extend(grammar.nodes.into_iter().map(|node| node.moved(nodes, automata)));
        if nullable {
            Expr::Choice(vec![Expr::empty(), Expr::Node(root)])
        } else {
            Expr::Node(root)
        }
    }

    /// Finishes: a grammar that begins with `root`.
    pub fn finish(mut self, root: usize) -> Result<Grammar, Error> {
        let parts: usize = self.bodies.iter().map(count).sum();
        if parts > MAX_PARTS {
            return Err(LimitError { limit: "grammar size".into(), value: parts as u64 }.into());
        }
        self.fold(root);
        self.count_repeats();
        self.find_nullable();
        for _ in 0..self.bodies.len() {
            let rule = Rule { states: Vec::new(), nullable: false, order: 0 };
            let place = self.add_node(Node::Rule(rule));
            self.places.push(place);
        }
        let nets = self.networks()?;
        let rules = left::remove(&nets, &self.places)?;
        for (i, mut rule) in rules.into_iter().enumerate() {
            rule.nullable = self.nullable[i];
            self.nodes[self.places[i] as usize] = Node::Rule(rule);
        }
        network::trim(&mut self.nodes, &self.places)?;
        let mut guards = vec![None; self.nodes.len()];
        for (node, guard) in self.guards {
            guards[node as usize] = Some(guard);
        }
        let root = self.places[root];
        let mut grammar = Grammar::new(self.nodes, self.automata, root, self.space, self.warnings)?;
        grammar.guards = guards;
        grammar.merges = true;
        Ok(grammar)
    }

    /// Joins regular parts, also across rules that are not recursive; large ones stay apart.
    fn fold(&mut self, root: usize) {
        let order = self.callees_first(root);
        let mut folding = Folding { regular: vec![None; self.bodies.len()], budget: MAX_JOINED };
        for rule in order {
            let body = std::mem::replace(&mut self.bodies[rule], Expr::empty());
            let folded = folding.fold(body);
            if let Expr::Regular(regex) = &folded {
                folding.regular[rule] = Some((regex.clone(), weight(regex)));
            }
            self.bodies[rule] = folded;
        }
        // What is no longer called needs no automaton.
        let mut called = vec![false; self.bodies.len()];
        self.callees_first(root).into_iter().for_each(|rule| called[rule] = true);
        for (body, _) in self.bodies.iter_mut().zip(&called).filter(|(_, called)| !**called) {
            *body = Expr::Choice(Vec::new());
        }
    }

    /// Rules reachable from the root, each after those it calls unless they call each other.
    fn callees_first(&self, root: usize) -> Vec<usize> {
        let mut seen = vec![false; self.bodies.len()];
        let mut out = Vec::new();
        let mut todo = vec![(root, false)];
        while let Some((rule, left)) = todo.pop() {
            if left {
                out.push(rule);
            } else if !std::mem::replace(&mut seen[rule], true) {
                todo.push((rule, true));
                calls(&self.bodies[rule], &mut |r| todo.push((r, false)));
            }
        }
        out
    }

    /// Makes rules of what is repeated often, so that it can be counted.
    fn count_repeats(&mut self) {
        let mut rule = 0;
        while rule < self.bodies.len() {
            let mut body = std::mem::replace(&mut self.bodies[rule], Expr::empty());
            let mut todo = vec![&mut body];
            while let Some(expr) = todo.pop() {
                match expr {
                    Expr::Repeat(inner, min, max) => {
                        let many = if *max == UNBOUNDED { *min } else { *max } > MAX_COPIES;
                        if many && !matches!(**inner, Expr::Rule(_)) {
                            let part = std::mem::replace(&mut **inner, Expr::Rule(self.bodies.len()));
                            self.bodies.push(part);
                        } else {
                            todo.push(inner);
                        }
                    }
                    Expr::Sequence(parts) | Expr::Choice(parts) => todo.extend(parts),
                    _ => {}
                }
            }
            self.bodies[rule] = body;
            rule += 1;
        }
    }

    fn find_nullable(&mut self) {
        let n = self.bodies.len();
        let mut callers: Vec<Vec<usize>> = vec![Vec::new(); n];
        for (i, body) in self.bodies.iter().enumerate() {
            calls(body, &mut |r| callers[r].push(i));
        }
        self.nullable = vec![false; n];
        let mut todo: Vec<usize> = (0..n).collect();
        while let Some(i) = todo.pop() {
            if !self.nullable[i] && nullable(&self.bodies[i], &self.nullable) {
                self.nullable[i] = true;
                todo.extend(&callers[i]);
            }
        }
    }

    fn networks(&mut self) -> Result<Vec<network::Network>, Error> {
        let bodies = std::mem::take(&mut self.bodies);
        let mut out = Vec::with_capacity(bodies.len());
        for body in &bodies {
            let mut net = network::Network::new();
            self.build(body, network::START, network::END, &mut net)?;
            out.push(net);
        }
        Ok(out)
    }

    /// Adds the paths of an expression between two states.
    fn build(&mut self, expr: &Expr, from: u32, to: u32, net: &mut network::Network) -> Result<(), Error> {
        match expr {
            Expr::Rule(rule) => {
                net.edge(from, self.places[*rule], to);
                if self.nullable[*rule] {
                    net.skip(from, to);
                }
            }
            Expr::Regular(regex) => self.build_text(regex, None, from, to, net)?,
            Expr::Terminal(regex, guard) => self.build_text(regex, guard.clone(), from, to, net)?,
            Expr::Node(node) => net.edge(from, *node, to),
            Expr::Choice(parts) => {
                for part in parts {
                    self.build(part, from, to, net)?;
                }
            }
            Expr::Sequence(parts) => {
                let mut at = from;
                for (i, part) in parts.iter().enumerate() {
                    let next = if i + 1 == parts.len() { to } else { net.state()? };
                    self.build(part, at, next, net)?;
                    at = next;
                }
                if parts.is_empty() {
                    net.skip(from, to);
                }
            }
            Expr::Repeat(part, min, max) => self.build_repeat(part, (*min, *max), from, to, net)?,
        }
        Ok(())
    }

    fn build_repeat(
        &mut self,
        part: &Expr,
        (min, max): (u32, u32),
        from: u32,
        to: u32,
        net: &mut network::Network,
    ) -> Result<(), Error> {
        if max < min {
            return Ok(());
        }
        if let (Expr::Rule(rule), true) = (part, if max == UNBOUNDED { min } else { max } > MAX_COPIES) {
            let nullable = self.nullable[*rule];
            let least = if nullable { 0 } else { min };
            if least == 0 {
                net.skip(from, to);
            }
            let node = self.add_node(Node::Repeat(self.places[*rule], least.max(1), max));
            net.edge(from, node, to);
            return Ok(());
        }
        let mut at = from;
        for _ in 0..min {
            let next = net.state()?;
            self.build(part, at, next, net)?;
            at = next;
        }
        if max == UNBOUNDED {
            let hub = net.state()?;
            net.skip(at, hub);
            self.build(part, hub, hub, net)?;
            net.skip(hub, to);
            return Ok(());
        }
        for _ in min..max {
            net.skip(at, to);
            let next = net.state()?;
            self.build(part, at, next, net)?;
            at = next;
        }
        net.skip(at, to);
        Ok(())
    }

    fn build_text(
        &mut self,
        regex: &Regex,
        guard: Option<Guard>,
        from: u32,
        to: u32,
        net: &mut network::Network,
    ) -> Result<(), Error> {
        if matches_empty(regex) {
            net.skip(from, to);
        }
        if let Some(node) = self.text(regex, guard)? {
            net.edge(from, node, to);
        }
        Ok(())
    }

    /// The node of a text without the empty one; None if nothing is left.
    fn text(&mut self, regex: &Regex, guard: Option<Guard>) -> Result<Option<NodeId>, Error> {
        let key = (regex.clone(), guard);
        if let Some(&known) = self.texts.get(&key) {
            return Ok(known);
        }
        let Some(filled) = without_empty(regex) else {
            self.texts.insert(key, None);
            return Ok(None);
        };
        let node = match counted_runs(&filled) {
            Some(runs) if runs.iter().any(|run| run.min > 0) => Node::Runs(runs, Spelling::Plain),
            _ => {
                let automaton = Automaton::new(&[(filled, true)])?;
                if automaton.is_empty() {
                    self.texts.insert(key, None);
                    return Ok(None);
                }
                self.automata.push(automaton);
                let automaton = self.automata.len() as u32 - 1;
                Node::Text(Text { automaton, spelling: Spelling::Plain, lengths: None })
            }
        };
        let node = self.add_node(node);
        if let Some(guard) = &key.1 {
            self.guards.insert(node, guard.clone());
        }
        self.texts.insert(key, Some(node));
        Ok(Some(node))
    }
}

/// Number of parts, counting no further than is of interest.
fn count(expr: &Expr) -> usize {
    match expr {
        Expr::Sequence(parts) | Expr::Choice(parts) => 1 + parts.iter().map(count).sum::<usize>(),
        Expr::Repeat(part, min, max) => {
            let copies = if *max == UNBOUNDED { *min } else { *max };
            let copies = if copies > MAX_COPIES { 1 } else { copies.max(1) };
            1 + count(part).saturating_mul(copies as usize)
        }
        _ => 1,
    }
}

fn calls(expr: &Expr, found: &mut dyn FnMut(usize)) {
    match expr {
        Expr::Rule(rule) => found(*rule),
        Expr::Sequence(parts) | Expr::Choice(parts) => parts.iter().for_each(|part| calls(part, found)),
        Expr::Repeat(part, ..) => calls(part, found),
        _ => {}
    }
}

fn nullable(expr: &Expr, rules: &[bool]) -> bool {
    match expr {
        Expr::Rule(rule) => rules[*rule],
        Expr::Regular(regex) | Expr::Terminal(regex, _) => matches_empty(regex),
        Expr::Node(_) => false,
        Expr::Sequence(parts) => parts.iter().all(|part| nullable(part, rules)),
        Expr::Choice(parts) => parts.iter().any(|part| nullable(part, rules)),
        Expr::Repeat(part, min, max) => min <= max && (*min == 0 || nullable(part, rules)),
    }
}

struct Folding {
    /// Rules that are regular, and how large they are.
    regular: Vec<Option<(Regex, usize)>>,
    /// Characters that may still be copied.
    budget: usize,
}

impl Folding {
    fn spend(&mut self, weight: usize) -> bool {
        let fits = weight <= MAX_REGULAR && weight <= self.budget;
        self.budget -= if fits { weight } else { 0 };
        fits
    }

    fn fold(&mut self, expr: Expr) -> Expr {
        match expr {
            Expr::Rule(rule) => {
                let weight = self.regular[rule].as_ref().map(|known| known.1);
                match weight.is_some_and(|weight| self.spend(weight)).then(|| self.regular[rule].clone()) {
                    Some(Some((regex, _))) => Expr::Regular(regex),
                    _ => Expr::Rule(rule),
                }
            }
            Expr::Sequence(parts) => self.fold_sequence(parts),
            Expr::Choice(parts) => self.fold_choice(parts),
            Expr::Repeat(part, min, max) => match self.fold(*part) {
                Expr::Regular(regex) => {
                    let most = (max != UNBOUNDED).then_some(max);
                    let copies = if max == UNBOUNDED { min } else { max };
                    let few = copies <= MAX_REGULAR_COPIES && weight(&regex) * copies as usize <= MAX_REGULAR;
                    if min <= max && (few || matches!(regex, Regex::Class(_))) {
                        Expr::Regular(Regex::Repeat(Box::new(regex), min, most))
                    } else {
                        Expr::Repeat(Box::new(Expr::Regular(regex)), min, max)
                    }
                }
                other => Expr::Repeat(Box::new(other), min, max),
            },
            other => other,
        }
    }

    fn fold_sequence(&mut self, parts: Vec<Expr>) -> Expr {
        let mut out: Vec<Expr> = Vec::with_capacity(parts.len());
        let mut size = 0;
        for part in parts {
            let right = match self.fold(part) {
                Expr::Regular(right) => right,
                other => {
                    out.push(other);
                    continue;
                }
            };
            let more = weight(&right);
            match out.last_mut() {
                Some(Expr::Regular(left)) if size + more <= MAX_REGULAR => {
                    let mut joined = match std::mem::replace(left, Regex::empty()) {
                        Regex::Concat(parts) => parts,
                        other => vec![other],
                    };
                    joined.push(right);
                    *left = Regex::Concat(joined);
                    size += more;
                }
                _ => {
                    out.push(Expr::Regular(right));
                    size = more;
                }
            }
        }
        match out.len() {
            0 => Expr::Regular(Regex::empty()),
            1 => out.remove(0),
            _ => Expr::Sequence(out),
        }
    }

    fn fold_choice(&mut self, parts: Vec<Expr>) -> Expr {
        // Texts are joined up to a size, then the next group begins.
        let (mut groups, mut others, mut size) = (vec![Vec::new()], Vec::new(), 0);
        for part in parts {
            match self.fold(part) {
                Expr::Regular(regex) => {
                    let more = weight(&regex);
                    size += more;
                    if size > MAX_REGULAR {
                        groups.push(Vec::new());
                        size = more;
                    }
                    if let Some(group) = groups.last_mut() {
                        group.push(regex);
                    }
                }
                other => others.push(other),
            }
        }
        groups.retain(|group| !group.is_empty());
        if groups.is_empty() && others.is_empty() {
            groups.push(Vec::new());
        }
        for mut group in groups {
            let only = if group.len() == 1 { group.pop() } else { None };
            others.push(Expr::Regular(only.unwrap_or(Regex::Alternation(group))));
        }
        if others.len() == 1 {
            others.remove(0)
        } else {
            Expr::Choice(others)
        }
    }
}

/// Characters of a pattern written out. Counted classes are written out only inside larger texts,
/// where that is dear: they keep to themselves.
fn weight(regex: &Regex) -> usize {
    match regex {
        Regex::Concat(parts) | Regex::Alternation(parts) | Regex::All(parts) => {
            1 + parts.iter().map(weight).sum::<usize>()
        }
        Regex::Repeat(part, min, max) => {
            let copies = max.unwrap_or(*min).max(1) as usize;
            let part = weight(part);
            if copies > MAX_REGULAR_COPIES as usize {
                MAX_REGULAR
            } else {
                1 + part.saturating_mul(copies)
            }
        }
        Regex::Not(part) => 1 + weight(part),
        Regex::Table(states) => states.len(),
        _ => 1,
    }
}

/// True if a pattern without assertions matches the empty text.
pub fn matches_empty(regex: &Regex) -> bool {
    match regex {
        Regex::Class(_) => false,
        Regex::Concat(parts) | Regex::All(parts) => parts.iter().all(matches_empty),
        Regex::Alternation(parts) => parts.iter().any(matches_empty),
        Regex::Repeat(part, min, _) => *min == 0 || matches_empty(part),
        Regex::Start | Regex::End | Regex::Ahead(..) => true,
        Regex::Not(part) => !matches_empty(part),
        Regex::Table(states) => states.first().is_some_and(|state| state.0),
    }
}

/// The pattern without the empty text; None if nothing is left.
fn without_empty(regex: &Regex) -> Option<Regex> {
    if !matches_empty(regex) {
        return Some(regex.clone());
    }
    match regex {
        Regex::Alternation(parts) => {
            let left: Vec<Regex> = parts.iter().filter_map(without_empty).collect();
            (!left.is_empty()).then_some(Regex::Alternation(left))
        }
        Regex::Concat(parts) => {
            // The first part that is not empty, and what follows it.
            let mut left = Vec::new();
            for (i, part) in parts.iter().enumerate() {
                if let Some(part) = without_empty(part) {
                    left.push(Regex::Concat(
                        std::iter::once(part).chain(parts[i + 1..].iter().cloned()).collect(),
                    ));
                }
            }
            (!left.is_empty())
                .then(|| if left.len() == 1 { left.remove(0) } else { Regex::Alternation(left) })
        }
        Regex::Repeat(part, min, max) => {
            let filled = without_empty(part).filter(|_| *max != Some(0))?;
            if !matches_empty(part) {
                return Some(Regex::Repeat(part.clone(), (*min).max(1), *max));
            }
            let rest = Regex::Repeat(part.clone(), 0, max.map(|max| max - 1));
            Some(Regex::Concat(vec![filled, rest]))
        }
        Regex::Start | Regex::End | Regex::Ahead(..) | Regex::Class(_) => None,
        Regex::Not(_) | Regex::All(_) | Regex::Table(_) => {
            let any = Regex::Repeat(Box::new(Regex::Class(CharSet::all())), 1, None);
            Some(Regex::All(vec![regex.clone(), any]))
        }
    }
}

/// An error with a message only.
pub(super) fn plain_error(message: impl Into<String>) -> Error {
    GrammarError { message: message.into(), source_text: None, line: None, column: None, json_pointer: None }
        .into()
}

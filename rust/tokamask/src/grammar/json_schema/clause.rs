//! Goals multiplied out: for one type, a disjunction of conjunctive clauses.

use std::rc::Rc;

use rustc_hash::FxHashSet;

use crate::error::{Error, LimitError};
use crate::grammar::budget;
use crate::grammar::json::{Decimal, Json};
use crate::grammar::json_schema::formula::{
    Atom, Contains, Formula, Items, Literal, LiteralKey, Members, Type, Witness,
};
use crate::grammar::json_schema::lower::Lowering;
use crate::grammar::json_schema::reader::formula;

/// Clauses that one goal may have for one type.
const MAX_CLAUSES: usize = 1024;
/// Required names that are searched one by one; of more there is a set.
const MANY: usize = 32;
/// Formulas looked at while one goal is multiplied out.
const MAX_STEPS: usize = 200_000;

/// What members or items satisfy that nothing under `owner` has evaluated.
#[derive(Clone)]
pub struct Unevaluated<'a> {
    /// Its mark.
    pub owner: u32,
    /// What they satisfy.
    pub value: Literal<'a>,
    /// The owners that see what this one evaluates.
    pub around: Vec<u32>,
}

/// A conjunction of atoms of one type.
#[derive(Clone, Default)]
#[allow(missing_docs)]
pub struct Clause<'a> {
    pub not_boolean: [bool; 2],
    pub integer: Option<bool>,
    pub bounds: Vec<(&'a Decimal, bool, bool)>,
    pub multiples: Vec<(&'a Decimal, bool)>,
    pub numbers: Option<Vec<&'a Decimal>>,
    pub not_numbers: Vec<&'a Decimal>,
    pub min_length: u32,
    pub max_length: Option<u32>,
    pub patterns: Vec<(u32, bool)>,
    pub texts: Option<Vec<&'a str>>,
    pub not_texts: Vec<&'a str>,
    pub members: Vec<Members<'a>>,
    pub required: Vec<&'a str>,
    pub known_required: FxHashSet<&'a str>,
    pub member: Vec<(&'a str, Literal<'a>)>,
    pub min_members: u32,
    pub max_members: Option<u32>,
    pub names: Vec<Literal<'a>>,
    pub witnesses: Vec<Witness<'a>>,
    pub items: Vec<Items<'a>>,
    pub item: Vec<(u32, Literal<'a>)>,
    pub min_items: u32,
    pub max_items: Option<u32>,
    pub unique: Option<&'a Json>,
    pub contains: Vec<Contains<'a>>,
    pub unevaluated_members: Vec<Unevaluated<'a>>,
    pub unevaluated_items: Vec<Unevaluated<'a>>,
}

fn tighten(bound: &mut Option<u32>, value: u32) {
    *bound = Some(bound.map_or(value, |b| b.min(value)));
}

impl<'a> Clause<'a> {
    fn requires(&self, name: &str) -> bool {
        if self.required.len() > MANY {
            self.known_required.contains(name)
        } else {
            self.required.contains(&name)
        }
    }

    /// Adds an atom; false if the clause has become contradictory in an obvious way.
    fn add(&mut self, atom: Atom<'a>, owners: &[u32]) -> bool {
        match atom {
            Atom::Boolean(value) => {
                self.not_boolean[usize::from(!value)] = true;
                return self.not_boolean != [true, true];
            }
            Atom::Integer(value) => return *self.integer.get_or_insert(value) == value,
            Atom::Bound { value, upper, strict } => self.bounds.push((value, upper, strict)),
            Atom::Multiple(value, positive) => self.multiples.push((value, positive)),
            Atom::Numbers(values) => {
                match &mut self.numbers {
                    Some(known) => known.retain(|n| values.contains(n)),
                    None => self.numbers = Some(values),
                }
                return self.numbers.as_ref().is_none_or(|n| !n.is_empty());
            }
            Atom::NotNumber(value) => self.not_numbers.push(value),
            Atom::MinLength(n) => self.min_length = self.min_length.max(n),
            Atom::MaxLength(n) => tighten(&mut self.max_length, n),
            Atom::Pattern(id, positive) => {
                if self.patterns.contains(&(id, !positive)) {
                    return false;
                }
                if !self.patterns.contains(&(id, positive)) {
                    self.patterns.push((id, positive));
                }
            }
            Atom::Texts(values) => {
                match &mut self.texts {
                    Some(known) => known.retain(|t| values.contains(t)),
                    None => self.texts = Some(values),
                }
                return self.texts.as_ref().is_none_or(|t| !t.is_empty());
            }
            Atom::NotText(text) => self.not_texts.push(text),
            Atom::Members(mut members) => {
                members.owners = owners.to_vec();
                self.members.push(members);
            }
            Atom::Required(name) => {
                if !self.requires(name) {
                    self.required.push(name);
                    if self.required.len() > MANY {
                        self.known_required.extend(&self.required[self.known_required.len()..]);
                    }
                }
                return !self.member.iter().any(|m| m.0 == name && m.1.is_false());
            }
            Atom::Member(name, value) => {
                self.member.push((name, value));
                return !(value.is_false() && self.requires(name));
            }
            Atom::MinMembers(n) => self.min_members = self.min_members.max(n),
            Atom::MaxMembers(n) => tighten(&mut self.max_members, n),
            Atom::Names(value) => self.names.push(value),
            Atom::Witness(witness) => self.witnesses.push(witness),
            Atom::Items(mut items) => {
                items.owners = owners.to_vec();
                self.items.push(items);
            }
            Atom::Item(index, value) => self.item.push((index, value)),
            Atom::Unique(schema) => self.unique = Some(schema),
            Atom::MinItems(n) => self.min_items = self.min_items.max(n),
            Atom::MaxItems(n) => tighten(&mut self.max_items, n),
            Atom::Contains(mut contains) => {
                contains.owners = owners.to_vec();
                self.contains.push(contains);
            }
            Atom::UnevaluatedMembers(owner, value) => {
                self.unevaluated_members.push(Unevaluated { owner, value, around: owners.to_vec() });
            }
            Atom::UnevaluatedItems(owner, value) => {
                self.unevaluated_items.push(Unevaluated { owner, value, around: owners.to_vec() });
            }
        }
        self.max_length.is_none_or(|max| self.min_length <= max)
            && self.max_items.is_none_or(|max| self.min_items <= max)
            && self
                .max_members
                .is_none_or(|max| self.min_members <= max && self.required.len() <= max as usize)
    }
}

/// The literals on the way to a formula, innermost first.
struct Chain {
    key: LiteralKey,
    up: Option<Rc<Chain>>,
}

type Link = Option<Rc<Chain>>;

/// A formula still to be taken into account.
#[derive(Clone)]
struct Pending<'a> {
    formula: Formula<'a>,
    chain: Link,
    owners: Rc<Vec<u32>>,
}

#[derive(Clone, Default)]
struct Branch<'a> {
    clause: Clause<'a>,
    now: Vec<Pending<'a>>,
    later: Vec<Pending<'a>>,
    done: Vec<(LiteralKey, Rc<Vec<u32>>)>,
}

/// The clauses of a goal for values of one type.
pub fn clauses<'a>(
    lowering: &mut Lowering<'a, '_>,
    goal: &[Literal<'a>],
    kind: Type,
) -> Result<Vec<Clause<'a>>, Error> {
    let owners = Rc::new(Vec::new());
    let start = goal.iter().map(|&literal| Pending {
        formula: Formula::Schema(literal),
        chain: None,
        owners: Rc::clone(&owners),
    });
    let mut branches = vec![Branch { now: start.collect(), ..Branch::default() }];
    let mut out = Vec::new();
    let mut steps = 0;
    while let Some(branch) = branches.pop() {
        advance(lowering, branch, kind, &mut branches, &mut out, &mut steps)?;
        if out.len() + branches.len() > MAX_CLAUSES || steps > MAX_STEPS {
            let limit = if steps > MAX_STEPS { "schema expansion" } else { "alternatives of a schema" };
            return Err(LimitError {
                limit: limit.into(),
                value: (out.len() + branches.len()).max(steps) as u64,
            }
            .into());
        }
        lowering.spend(1)?;
    }
    Ok(out)
}

/// Follows one branch to its first choice, or to its end.
fn advance<'a>(
    lowering: &mut Lowering<'a, '_>,
    mut branch: Branch<'a>,
    kind: Type,
    branches: &mut Vec<Branch<'a>>,
    out: &mut Vec<Clause<'a>>,
    steps: &mut usize,
) -> Result<(), Error> {
    loop {
        *steps += 1;
        budget::check()?;
        if *steps > MAX_STEPS {
            return Ok(());
        }
        let Some(Pending { formula: next, chain, owners }) = branch.now.pop().or_else(|| branch.later.pop())
        else {
            out.push(branch.clause);
            return Ok(());
        };
        let pend =
            |formula, chain: &Link| Pending { formula, chain: chain.clone(), owners: Rc::clone(&owners) };
        match next {
            Formula::Atom(atom) => {
                if !branch.clause.add(atom, &owners) {
                    return Ok(());
                }
            }
            Formula::All(parts) => {
                for part in parts {
                    let choice =
                        matches!(&part, Formula::Any(p) if p.len() > 1) || matches!(part, Formula::Some(_));
                    let pending = pend(part, &chain);
                    if choice {
                        branch.later.push(pending);
                    } else {
                        branch.now.push(pending);
                    }
                }
            }
            Formula::Owned(owner, inner) => {
                let mut more = (*owners).clone();
                more.push(owner);
                branch.now.push(Pending { formula: *inner, chain, owners: Rc::new(more) });
            }
            Formula::Schema(literal) => {
                if literal.is_true() {
                    continue;
                }
                if literal.is_false() {
                    return Ok(());
                }
                let key = literal.key();
                let mut up = chain.as_ref();
                while let Some(link) = up {
                    if link.key == key {
                        return Err(lowering.documents.error("the reference is circular", literal.json, ""));
                    }
                    up = link.up.as_ref();
                }
                if branch.done.iter().any(|d| d.0 == key && *d.1 == *owners) {
                    continue;
                }
                branch.done.push((key, Rc::clone(&owners)));
                let formula = formula(lowering, literal, kind)?;
                let chain = Some(Rc::new(Chain { key, up: chain }));
                branch.now.push(Pending { formula, chain, owners });
            }
            Formula::Some(literals) if owners.is_empty() => {
                if !literals.iter().any(Literal::is_true) {
                    let options = literals.into_iter().map(Formula::Schema).collect();
                    branch.now.push(pend(Formula::Any(options), &chain));
                }
            }
            Formula::Some(literals) => {
                if literals.len() > 8 {
                    return Err(LimitError {
                        limit: "anyOf beside unevaluated keywords".into(),
                        value: literals.len() as u64,
                    }
                    .into());
                }
                // Every set of branches that may hold together: more of them evaluate more.
                let sets = (1u32..1 << literals.len()).map(|set| {
                    let chosen = literals.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1);
                    Formula::All(chosen.map(|(_, &l)| Formula::Schema(l)).collect())
                });
                branch.now.push(pend(Formula::Any(sets.collect()), &chain));
            }
            Formula::Any(mut options) => {
                if options.len() == 1 {
                    if let Some(only) = options.pop() {
                        branch.now.push(pend(only, &chain));
                    }
                    continue;
                }
                for option in options.into_iter().rev() {
                    let mut other = branch.clone();
                    other.now.push(pend(option, &chain));
                    branches.push(other);
                    if branches.len() > 2 * MAX_CLAUSES {
                        return Ok(());
                    }
                }
                return Ok(());
            }
        }
    }
}

//! Clauses of objects and arrays to nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, LimitError, UnsupportedKeywordError};
use crate::grammar::array::Known;
use crate::grammar::chars::{CharSet, Spelling};
use crate::grammar::json::Json;
use crate::grammar::json_schema::clause::{clauses, Clause, Unevaluated};
use crate::grammar::json_schema::formula::{Literal, Type, Witness};
use crate::grammar::json_schema::lower::{Conjunction, Lowering};
use crate::grammar::regex::{self, Regex};
use crate::grammar::words::WordTrie;
use crate::grammar::{
    Array, Choice, Counter, FreeKeys, KeyMode, Node, NodeId, Object, Unique, NO_NODE, UNBOUNDED,
};

/// Kinds of names that patterns split the undeclared names of one object into.
const MAX_NAME_KINDS: usize = 64;
/// Names of a kind that are listed in any case, if they are not more.
const LISTED: usize = 64;
/// Names of a kind that are listed where an object could run out of them.
const MAX_LISTED: usize = 4_096;

/// Sets of witnesses that properties of one object may be.
const MAX_KEY_MODES: usize = 256;

/// Which obligations a name is a witness of, as bits.
#[derive(Default)]
struct Role {
    /// Whatever its value.
    must: u32,
    /// If its value fits.
    may: u32,
}

impl Role {
    fn add(&mut self, witness: usize, whatever_its_value: bool) {
        *(if whatever_its_value { &mut self.must } else { &mut self.may }) |= 1 << witness;
    }

    fn allows(&self, set: u32) -> bool {
        set & !self.may == self.must
    }
}

/// Declared names, sorted, each with its place (0 for single members, then each `properties`) and what its
/// value satisfies.
type Declared<'a> = Vec<(&'a str, usize, Literal<'a>)>;

fn declared<'a>(clause: &Clause<'a>) -> Declared<'a> {
    let single = clause.member.iter().map(|m| (m.0, 0, m.1));
    let lists = clause.members.iter().enumerate();
    let listed = lists.flat_map(|(i, m)| m.declared.iter().map(move |d| (d.0, i + 1, d.1)));
    let mut all: Declared<'a> = single.chain(listed).collect();
    all.sort_by_key(|d| (d.0, d.1));
    all
}

/// Names of other properties of one kind: the kind, and what the values satisfy.
type NameKind<'a> = (Arc<NameClass>, Vec<Literal<'a>>);

/// Names that match the same patterns of a list.
pub struct NameClass {
    /// What they match; nothing if they may be any.
    parts: Conjunction,
    /// The patterns that they match.
    matched: Vec<u32>,
    /// The names themselves, if they are few.
    texts: Option<Vec<String>>,
    /// Their automaton in [`Lowering::automata`]; None if they may be any.
    automaton: Option<u32>,
}

impl<'a> Lowering<'a, '_> {
    /// True if a property name satisfies a goal.
    fn name_allowed(&mut self, name: &str, names: &[Literal<'a>]) -> Result<bool, Error> {
        if names.is_empty() {
            return Ok(true);
        }
        for clause in clauses(self, names, Type::String)? {
            let length = name.chars().count();
            let fits = length >= clause.min_length as usize
                && clause.max_length.is_none_or(|max| length <= max as usize);
            let listed = clause.texts.as_ref().is_none_or(|texts| texts.contains(&name));
            if fits && listed {
                let parts = self.string_parts(&clause);
                if parts.is_empty() {
                    return Ok(true);
                }
                let automaton = self.automaton(parts)?;
                if self.automata[automaton as usize].matches(name) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) fn matches_pattern(&mut self, pattern: u32, name: &str) -> Result<bool, Error> {
        let automaton = self.pattern_automaton(pattern)?;
        Ok(self.automata[automaton as usize].matches(name))
    }

    /// What the value of a declared name must satisfy; None if the name is forbidden.
    fn member_goal(
        &mut self,
        clause: &Clause<'a>,
        declared: &Declared<'a>,
        name: &str,
    ) -> Result<Option<Vec<Literal<'a>>>, Error> {
        if !self.name_allowed(name, &clause.names)? {
            return Ok(None);
        }
        let mut here = declared[declared.partition_point(|d| d.0 < name)..]
            .iter()
            .take_while(|d| d.0 == name)
            .peekable();
        let mut goal: Vec<Literal<'a>> = Vec::new();
        while let Some(found) = here.next_if(|d| d.1 == 0) {
            goal.push(found.2);
        }
        let mut seen_by = Vec::new();
        for (part, members) in clause.members.iter().enumerate() {
            let before = goal.len();
            while let Some(found) = here.next_if(|d| d.1 == part + 1) {
                goal.push(found.2);
            }
            for &(pattern, value) in &members.patterns {
                if self.matches_pattern(pattern, name)? {
                    goal.push(value);
                }
            }
            if goal.len() == before {
                goal.extend(members.other);
            }
            if goal.len() > before {
                seen_by.extend(&members.owners);
            }
        }
        add_unevaluated(&clause.unevaluated_members, &mut goal, &mut seen_by);
        Ok(Some(goal))
    }

    pub(super) fn object(&mut self, clause: &Clause<'a>) -> Result<NodeId, Error> {
        let mut names: Vec<&str> = Vec::new();
        let mut known = rustc_hash::FxHashSet::default();
        let mentioned = clause.members.iter().flat_map(|m| m.declared.iter().map(|d| d.0));
        let mentioned =
            mentioned.chain(clause.required.iter().copied()).chain(clause.member.iter().map(|m| m.0));
        let mentioned = mentioned.chain(clause.witnesses.iter().flat_map(|w| w.except.iter().copied()));
        names.extend(mentioned.filter(|name| known.insert(*name)));
        self.spend(names.len())?;
        let mut kinds = self.name_kinds(clause)?;
        let mut declared: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        // Kinds of few names are declared names in disguise: then they can run out, and are counted.
        kinds.retain(|(class, goal)| {
            if let Some(texts) = class.texts.as_ref().filter(|_| !goal.iter().any(Literal::is_false)) {
                declared.extend(texts.iter().cloned());
            }
            class.texts.is_none() && !goal.iter().any(Literal::is_false)
        });
        let keys = WordTrie::new(declared);
        let count = keys.words().len();
        let modes = self.key_modes(clause, &keys, &kinds)?;
        let bits = count + clause.witnesses.len();
        let mut required = vec![0u64; bits.div_ceil(64).max(1)];
        let must = clause.required.iter().filter_map(|name| keys.find(name)).map(|i| i as usize);
        for bit in must.chain(count..bits) {
            required[bit / 64] |= 1 << (bit % 64);
        }
        let required_count = clause.required.len() as u32;
        let order = self.options.schema_order.then(|| {
            let places: rustc_hash::FxHashMap<&str, usize> =
                names.iter().enumerate().map(|(i, &n)| (n, i)).collect();
            let rank = |word: &String| places.get(word.as_str()).map_or(names.len(), |&i| i) as u32;
            keys.words().iter().map(rank).collect()
        });
        let max = clause.max_members.unwrap_or(UNBOUNDED);
        let object = Object {
            keys,
            modes,
            required,
            required_count,
            min: clause.min_members,
            max,
            order,
            unique_free: true,
        };
        Ok(self.push(Node::Object(Box::new(object))))
    }

    /// The sets of witnesses that one property may be, each with what is written then.
    fn key_modes(
        &mut self,
        clause: &Clause<'a>,
        keys: &WordTrie,
        kinds: &[NameKind<'a>],
    ) -> Result<Vec<KeyMode>, Error> {
        let too_many =
            |value: usize| LimitError { limit: "obligations of one object".into(), value: value as u64 };
        if clause.witnesses.len() > 32 {
            return Err(too_many(clause.witnesses.len()).into());
        }
        let mut roles = Vec::with_capacity(keys.words().len());
        for name in keys.words() {
            let mut role = Role::default();
            for (i, witness) in clause.witnesses.iter().enumerate() {
                if self.may_witness(witness, name)? {
                    role.add(i, witness.value.is_none());
                }
            }
            roles.push(role);
        }
        // Names that are not declared are none of those that a witness must not be.
        let mut other = Role::default();
        for (i, witness) in clause.witnesses.iter().enumerate() {
            let any =
                witness.name.is_none() && witness.pattern.is_none() && witness.except_patterns.is_empty();
            other.add(i, any && witness.value.is_none());
        }
        let mut sets = BTreeSet::from([0]);
        for role in roles.iter().chain((!kinds.is_empty()).then_some(&other)) {
            let mut chosen = role.may;
            loop {
                sets.insert(role.must | chosen);
                if sets.len() > MAX_KEY_MODES {
                    return Err(too_many(clause.witnesses.len()).into());
                }
                if chosen == 0 {
                    break;
                }
                chosen = (chosen - 1) & role.may;
            }
        }
        self.spend(sets.len() * roles.len())?;
        let always = |set: u32| roles.iter().chain([&other]).any(|role| role.must == set);
        sets.iter()
            .map(|&set| {
                let mut mode = KeyMode { witnesses: set, always: always(set), ..KeyMode::default() };
                self.fill_key_mode(clause, keys, kinds, (&roles, &other), &mut mode)?;
                Ok(mode)
            })
            .collect()
    }

    /// A name fits a witness.
    fn may_witness(&mut self, witness: &Witness<'a>, name: &str) -> Result<bool, Error> {
        let mut fits = !witness.except.contains(&name) && self.name_allowed(name, witness.name.as_slice())?;
        for &pattern in &witness.except_patterns {
            fits = fits && !self.matches_pattern(pattern, name)?;
        }
        if let Some(pattern) = witness.pattern {
            fits = fits && self.matches_pattern(pattern, name)?;
        }
        Ok(fits)
    }

    /// What is written in a mode: names and values that fit all its witnesses.
    fn fill_key_mode(
        &mut self,
        clause: &Clause<'a>,
        keys: &WordTrie,
        kinds: &[NameKind<'a>],
        (roles, other): (&[Role], &Role),
        mode: &mut KeyMode,
    ) -> Result<(), Error> {
        let set = mode.witnesses;
        let declared = declared(clause);
        let witnesses =
            || clause.witnesses.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|w| w.1);
        for (name, role) in keys.words().iter().zip(roles) {
            let goal = if role.allows(set) { self.member_goal(clause, &declared, name)? } else { None };
            let value = match goal {
                Some(mut goal) => {
                    goal.extend(witnesses().filter_map(|w| w.value));
                    self.node(goal)?
                }
                None => NO_NODE,
            };
            mode.values.push(value);
        }
        if !other.allows(set) {
            return Ok(());
        }
        let mut constraints = Vec::new();
        for witness in witnesses() {
            for &pattern in &witness.except_patterns {
                let not = Regex::Not(Box::new(regex::conjunction(&self.patterns[pattern as usize])));
                constraints.push((not, true));
            }
            if let Some(pattern) = witness.pattern {
                constraints.extend(self.patterns[pattern as usize].iter().cloned());
            }
        }
        let names: Vec<Literal<'a>> = witnesses().filter_map(|w| w.name).collect();
        let variants = self.name_variants(&names)?;
        for (class, goal) in kinds {
            let mut goal = goal.clone();
            goal.extend(witnesses().filter_map(|w| w.value));
            let value = self.node(goal)?;
            if value == NO_NODE {
                continue;
            }
            if constraints.is_empty() && names.is_empty() {
                mode.free.push(FreeKeys { automaton: class.automaton, value });
                continue;
            }
            for variant in &variants {
                let parts = [&class.parts, &constraints, variant].into_iter().flatten().cloned().collect();
                let automaton = self.automaton(parts)?;
                if !self.automata[automaton as usize].is_empty() {
                    mode.free.push(FreeKeys { automaton: Some(automaton), value });
                }
            }
        }
        Ok(())
    }

    /// Ways to satisfy a goal on names, as conjunctions.
    fn name_variants(&mut self, names: &[Literal<'a>]) -> Result<Vec<Vec<(Regex, bool)>>, Error> {
        if names.is_empty() {
            return Ok(vec![Vec::new()]);
        }
        let mut out = Vec::new();
        for clause in clauses(self, names, Type::String)? {
            let mut parts = self.string_parts(&clause);
            if let Some(texts) = &clause.texts {
                parts.push((Regex::Alternation(texts.iter().map(|t| Regex::literal(t)).collect()), true));
            }
            if clause.min_length > 0 || clause.max_length.is_some() {
                let any = Box::new(Regex::Class(CharSet::all()));
                parts.push((Regex::Repeat(any, clause.min_length, clause.max_length), true));
            }
            out.push(parts);
        }
        Ok(out)
    }

    /// The names that are not declared, by which patterns they match, and what their values satisfy.
    fn name_kinds(&mut self, clause: &Clause<'a>) -> Result<Vec<NameKind<'a>>, Error> {
        let mut patterns: Vec<u32> =
            clause.members.iter().flat_map(|m| m.patterns.iter().map(|p| p.0)).collect();
        patterns.sort_unstable();
        patterns.dedup();
        // Where many names are asked for, a kind of fewer could run out before there are enough.
        let declared: usize = clause.members.iter().map(|m| m.declared.len()).sum();
        let wanted = clause.min_members as usize;
        let wanted = if wanted > LISTED { wanted + declared + clause.required.len() } else { LISTED };
        let kinds = if clause.names.is_empty() && wanted == LISTED {
            if let Some(known) = self.name_classes.get(&patterns) {
                known.clone()
            } else {
                let made = self.split_names(vec![Vec::new()], &patterns, wanted)?;
                self.name_classes.insert(patterns, made.clone());
                made
            }
        } else {
            let variants = self.name_variants(&clause.names)?;
            self.split_names(variants, &patterns, wanted)?
        };
        let mut out = Vec::with_capacity(kinds.len());
        for class in kinds {
            let matched = &class.matched;
            let mut goal = Vec::new();
            let mut seen_by = Vec::new();
            for members in &clause.members {
                let before = goal.len();
                goal.extend(members.patterns.iter().filter(|p| matched.contains(&p.0)).map(|p| p.1));
                if goal.len() == before {
                    goal.extend(members.other);
                }
                if goal.len() > before {
                    seen_by.extend(&members.owners);
                }
            }
            add_unevaluated(&clause.unevaluated_members, &mut goal, &mut seen_by);
            out.push((class, goal));
        }
        Ok(out)
    }

    /// The names of a kind, if an object that wants so many could run out of them.
    fn few_names(&mut self, automaton: u32, wanted: usize) -> Result<Option<Vec<String>>, Error> {
        let automaton = &mut self.automata[automaton as usize];
        if wanted <= LISTED {
            return Ok(automaton.finite_texts(LISTED));
        }
        let Some(count) = automaton.count_texts() else { return Ok(None) };
        let listed = if count <= MAX_LISTED as u64 { automaton.finite_texts(MAX_LISTED) } else { None };
        if listed.is_none() && count < wanted as u64 {
            let limit = "names of a finite pattern beside minProperties".into();
            return Err(LimitError { limit, value: count }.into());
        }
        Ok(listed)
    }

    /// Splits kinds of names by the patterns that they match.
    fn split_names(
        &mut self,
        variants: Vec<Conjunction>,
        patterns: &[u32],
        wanted: usize,
    ) -> Result<Vec<Arc<NameClass>>, Error> {
        let mut kinds: Vec<(Conjunction, Vec<u32>)> =
            variants.into_iter().map(|parts| (parts, Vec::new())).collect();
        for &pattern in patterns {
            let regex = Arc::clone(&self.patterns[pattern as usize]);
            let mut next = Vec::new();
            for (parts, matched) in kinds {
                let mut with = parts.clone();
                with.extend(regex.iter().cloned());
                let mut without = parts;
                match regex.as_slice() {
                    [(only, sign)] => without.push((only.clone(), !sign)),
                    many => without.push((Regex::Not(Box::new(regex::conjunction(many))), true)),
                }
                let mut matched_with = matched.clone();
                matched_with.push(pattern);
                for (parts, matched) in [(with, matched_with), (without, matched)] {
                    let automaton = self.automaton(parts.clone())?;
                    if !self.automata[automaton as usize].is_empty() {
                        next.push((parts, matched));
                    }
                }
            }
            if next.len() > MAX_NAME_KINDS {
                return Err(LimitError {
                    limit: "patternProperties that overlap".into(),
                    value: next.len() as u64,
                }
                .into());
            }
            kinds = next;
        }
        let mut out = Vec::with_capacity(kinds.len());
        for (parts, matched) in kinds {
            let (mut automaton, mut texts) = (None, None);
            if !parts.is_empty() {
                let id = self.automaton(parts.clone())?;
                texts = self.few_names(id, wanted)?;
                automaton = Some(id);
            }
            out.push(Arc::new(NameClass { parts, matched, texts, automaton }));
        }
        Ok(out)
    }

    pub(super) fn array(&mut self, clause: &Clause<'a>) -> Result<NodeId, Error> {
        if clause.contains.len() > 4 {
            return Err(LimitError {
                limit: "contains beside each other".into(),
                value: clause.contains.len() as u64,
            }
            .into());
        }
        let places = clause.items.iter().map(|i| i.prefix.len() as u32);
        let places =
            places.chain(clause.item.iter().map(|i| i.0 + 1)).chain(clause.contains.iter().map(|c| c.from));
        let places = places.max().unwrap_or(0);
        self.spend(places as usize)?;
        let mut prefix = Vec::with_capacity(places as usize);
        for place in 0..places {
            prefix.push(self.choices(clause, Some(place))?);
        }
        let rest = self.choices(clause, None)?;
        let counters =
            clause.contains.iter().map(|c| Counter { min: c.min, max: c.max.unwrap_or(UNBOUNDED) }).collect();
        let max = clause.max_items.unwrap_or(UNBOUNDED);
        let mut array = Array {
            prefix,
            rest,
            min: clause.min_items,
            max,
            counters,
            unique: Unique::No,
            known: Known::default(),
        };
        if let Some(schema) = clause.unique.filter(|_| max > 1) {
            self.make_unique(clause, &mut array, schema)?;
        }
        Ok(self.push(Node::Array(Box::new(array))))
    }

    /// Enforces `uniqueItems` where items are finitely many values or free strings; anything else is
    /// refused, because equality of values that are still being written cannot be decided as they go.
    fn make_unique(&mut self, clause: &Clause<'a>, array: &mut Array, schema: &Json) -> Result<(), Error> {
        let refused = |lowering: &Self, reason: &str| {
            Err(UnsupportedKeywordError {
                json_pointer: lowering.documents.pointer(schema),
                keyword: "uniqueItems".to_owned(),
                reason: Some(reason.to_owned()),
            }
            .into())
        };
        if !array.prefix.is_empty() || !array.counters.is_empty() {
            return refused(self, "beside prefixItems or contains");
        }
        let goal: Vec<Literal<'a>> = clause.items.iter().filter_map(|items| items.rest).collect();
        let mut words: Vec<(String, Spelling)> = Vec::new();
        let mut strings = 0;
        for kind in Type::ALL {
            for item in clauses(self, &goal, kind)? {
                match kind {
                    Type::Null => words.push(("null".to_owned(), Spelling::Plain)),
                    Type::Boolean => words.extend(
                        ["false", "true"]
                            .into_iter()
                            .zip(item.not_boolean)
                            .filter(|w| !w.1)
                            .map(|w| (w.0.to_owned(), Spelling::Plain)),
                    ),
                    Type::String if item.texts.is_some() => {
                        let texts = self.allowed_texts(&item)?;
                        words.extend(texts.into_iter().map(|text| (text, Spelling::Json)));
                    }
                    Type::String
                        if item.max_length.is_none()
                            && item.patterns.is_empty()
                            && item.not_texts.is_empty() =>
                    {
                        strings += 1;
                    }
                    _ => return refused(self, "items are neither listed values nor strings of any kind"),
                }
            }
        }
        if strings > 0 && words.is_empty() {
            array.unique = Unique::Strings;
            return Ok(());
        }
        words.sort_unstable();
        words.dedup();
        if strings > 0 || words.len() > 64 {
            return refused(self, "more than 64 listed values, or listed values beside free strings");
        }
        array.rest.clear();
        for (i, (word, spelling)) in words.iter().enumerate() {
            let node = self.push(Node::Words(WordTrie::new(vec![word.clone()]), *spelling));
            array.rest.push(Choice { node, counts: i as u32 });
        }
        if array.min as usize > words.len() {
            // Not enough values: no such array.
            array.max = 0;
        }
        array.unique = Unique::Values;
        Ok(())
    }

    /// Ways to fill a place: which `contains` the item counts for is part of the choice.
    fn choices(&mut self, clause: &Clause<'a>, place: Option<u32>) -> Result<Vec<Choice>, Error> {
        let mut goal: Vec<Literal<'a>> =
            clause.item.iter().filter(|i| Some(i.0) == place).map(|i| i.1).collect();
        let mut seen_by: Vec<u32> = Vec::new();
        for items in &clause.items {
            let rule = place.and_then(|p| items.prefix.get(p as usize).copied()).or(items.rest);
            if let Some(rule) = rule {
                goal.push(rule);
                seen_by.extend(&items.owners);
            }
        }
        let relevant: Vec<usize> = (0..clause.contains.len())
            .filter(|&i| place.is_none_or(|p| p >= clause.contains[i].from))
            .collect();
        let mut out: Vec<Choice> = Vec::new();
        for set in 0u32..1 << relevant.len() {
            let (mut goal, mut seen_by, mut counts) = (goal.clone(), seen_by.clone(), 0u32);
            for (bit, &i) in relevant.iter().enumerate() {
                let contains = &clause.contains[i];
                let literal = contains.literal;
                if set >> bit & 1 == 1 {
                    goal.push(literal);
                    seen_by.extend(&contains.owners);
                    counts |= 1 << i;
                } else if contains.max.is_some() {
                    goal.push(Literal { positive: !literal.positive, ..literal });
                }
            }
            add_unevaluated(&clause.unevaluated_items, &mut goal, &mut seen_by);
            let node = self.node(goal)?;
            if node != NO_NODE {
                out.push(Choice { node, counts });
            }
        }
        Ok(out)
    }
}

/// `unevaluated*`, inner ones first: what one of them speaks of, those around it see.
fn add_unevaluated<'a>(rules: &[Unevaluated<'a>], goal: &mut Vec<Literal<'a>>, seen_by: &mut Vec<u32>) {
    let mut rules: Vec<_> = rules.iter().collect();
    rules.sort_unstable_by_key(|rule| std::cmp::Reverse(rule.owner));
    for rule in rules {
        if !seen_by.contains(&rule.owner) {
            goal.push(rule.value);
            seen_by.extend(&rule.around);
        }
    }
}

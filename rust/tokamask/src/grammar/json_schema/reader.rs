//! Keyword by keyword, what a signed schema demands.

use crate::error::{Error, UnsupportedKeywordError};
use crate::grammar::json::Json;
use crate::grammar::json_schema::document::address;
use crate::grammar::json_schema::formula::{
    Atom, Contains, Formula, Items, Literal, Members, Type, Witness, FALSE,
};
use crate::grammar::json_schema::lower::Lowering;

/// Keywords that assert nothing or are read together with another.
const SILENT: &[&str] = &[
    "if",
    "then",
    "else",
    "additionalProperties",
    "patternProperties",
    "additionalItems",
    "minContains",
    "maxContains",
    "unevaluatedProperties",
    "unevaluatedItems",
    "type",
];

/// An atom about a size.
type Sized<'a> = fn(u32) -> Atom<'a>;

fn yes<'a>() -> Formula<'a> {
    Formula::All(Vec::new())
}

fn no<'a>() -> Formula<'a> {
    Formula::Any(Vec::new())
}

pub(super) fn truth<'a>(value: bool) -> Formula<'a> {
    if value {
        yes()
    } else {
        no()
    }
}

/// A schema being read for one type, with a sign.
pub(super) struct Reader<'l, 'a, 'o> {
    lowering: &'l mut Lowering<'a, 'o>,
    schema: &'a Json,
    pub(super) literal: Literal<'a>,
    pub(super) kind: Type,
}

/// The property is there, with such a value.
pub(super) fn with_member<'a>(name: &'a str, value: Literal<'a>) -> Formula<'a> {
    Formula::All(vec![Formula::Atom(Atom::Required(name)), Formula::Atom(Atom::Member(name, value))])
}

/// What a literal demands of values of one type.
pub fn formula<'a>(
    lowering: &mut Lowering<'a, '_>,
    literal: Literal<'a>,
    kind: Type,
) -> Result<Formula<'a>, Error> {
    let base = lowering.documents.resource_of(literal.json, literal.base);
    let scope = if base == literal.base { literal.scope } else { lowering.enter_scope(literal.scope, base) };
    let literal = Literal { base, scope, ..literal };
    let mut reader = Reader { lowering, schema: literal.json, literal, kind };
    if literal.constant {
        return Ok(reader.constant(literal.json));
    }
    match literal.json {
        Json::Bool(value) => Ok(truth(*value == literal.positive)),
        Json::Object(_) => reader.schema(),
        _ => Err(reader.lowering.documents.error("a schema is an object or a boolean", literal.json, "")),
    }
}

impl<'a> Reader<'_, 'a, '_> {
    pub(super) fn positive(&self) -> bool {
        self.literal.positive
    }

    pub(super) fn part(&self, json: &'a Json, positive: bool) -> Literal<'a> {
        Literal { json, constant: false, positive, ..self.literal }
    }

    fn sub(&self, json: &'a Json, positive: bool) -> Formula<'a> {
        Formula::Schema(self.part(json, positive))
    }

    fn error(&self, message: &str, keyword: &str) -> Error {
        self.lowering.documents.error(message, self.schema, keyword)
    }

    fn unsupported(&self, keyword: &str, reason: &str) -> Error {
        UnsupportedKeywordError {
            json_pointer: self.lowering.documents.pointer(self.schema),
            keyword: keyword.to_owned(),
            reason: Some(reason.to_owned()),
        }
        .into()
    }

    /// All of them, or with a negative sign: one of them fails (they come negated already).
    fn all(&self, parts: Vec<Formula<'a>>) -> Formula<'a> {
        if self.positive() {
            Formula::All(parts)
        } else {
            Formula::Any(parts)
        }
    }

    fn schema(&mut self) -> Result<Formula<'a>, Error> {
        let schema = self.schema;
        if let Some(types) = schema.get("type") {
            if !self.type_allows(types)? {
                return Ok(truth(!self.positive()));
            }
        }
        let lone_ref = self.lowering.documents.lone_ref && schema.get("$ref").is_some();
        let mut parts = Vec::new();
        if !lone_ref {
            self.integer_type(&mut parts);
        }
        for (keyword, value) in schema.members() {
            if lone_ref && keyword != "$ref" || SILENT.contains(&keyword.as_str()) {
                continue;
            }
            if let Some(part) = self.keyword(keyword, value)? {
                parts.push(part);
            }
        }
        if !lone_ref {
            if self.kind == Type::Object
                && ["properties", "patternProperties", "additionalProperties"]
                    .iter()
                    .any(|k| schema.get(k).is_some())
            {
                parts.push(self.members()?);
            }
            if self.kind == Type::Array {
                self.items(&mut parts)?;
            }
            if let Some(condition) = schema.get("if") {
                parts.push(self.conditional(condition));
            }
            return self.unevaluated(parts);
        }
        Ok(self.all(parts))
    }

    fn type_allows(&self, types: &'a Json) -> Result<bool, Error> {
        let names: Vec<&str> = match types {
            Json::String(name) => vec![name.as_str()],
            Json::Array(names) => names.iter().filter_map(Json::text).collect(),
            _ => return Err(self.error("a type is a name or a list of names", "type")),
        };
        for name in &names {
            if *name != "integer" && !Type::ALL.iter().any(|t| t.name() == *name) {
                return Err(self.error(&format!("unknown type {name:?}"), "type"));
            }
        }
        Ok(names.iter().any(|n| *n == self.kind.name() || *n == "integer" && self.kind == Type::Number))
    }

    fn integer_type(&mut self, parts: &mut Vec<Formula<'a>>) {
        if self.kind != Type::Number {
            return;
        }
        let only_integer = match self.schema.get("type") {
            Some(Json::String(name)) => name == "integer",
            Some(Json::Array(names)) => !names.iter().any(|n| n.text() == Some("number")),
            _ => false,
        };
        if only_integer {
            parts.push(Formula::Atom(Atom::Integer(self.positive())));
        }
    }

    fn keyword(&mut self, keyword: &'a str, value: &'a Json) -> Result<Option<Formula<'a>>, Error> {
        let positive = self.positive();
        let kind = self.kind;
        let on = |wanted: Type| kind == wanted;
        let irrelevant = Ok(None);
        Ok(Some(match keyword {
            "$ref" => {
                let reference = value.text().ok_or_else(|| self.error("a reference is a string", keyword))?;
                self.reference(reference, positive)?
            }
            "$dynamicRef" => {
                let reference = value.text().ok_or_else(|| self.error("a reference is a string", keyword))?;
                self.dynamic_reference(reference, positive)?
            }
            "$recursiveRef" => {
                return Err(self.unsupported(keyword, "only $dynamicRef of draft 2020-12 is known"))
            }
            "allOf" | "anyOf" | "oneOf" => {
                let list = value.items().ok_or_else(|| self.error("expected a list of schemas", keyword))?;
                if list.is_empty() {
                    return Err(self.error("expected at least one schema", keyword));
                }
                self.combine(keyword, list)
            }
            "not" => self.sub(value, !positive),
            "const" => Formula::Schema(Literal { json: value, constant: true, ..self.literal }),
            "enum" => {
                let list = value.items().ok_or_else(|| self.error("expected a list of values", keyword))?;
                self.enumeration(list)
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => {
                let count =
                    value.count().ok_or_else(|| self.error("expected a number of zero or more", keyword))?;
                return Ok(self.size(keyword, count));
            }
            "pattern" if on(Type::String) => {
                let text = value.text().ok_or_else(|| self.error("a pattern is a string", keyword))?;
                let id = self.lowering.pattern(text, self.schema, keyword)?;
                Formula::Atom(Atom::Pattern(id, positive))
            }
            "format" if on(Type::String) => {
                let name = value.text().ok_or_else(|| self.error("a format is a string", keyword))?;
                // An annotation says nothing, and so cannot fail either.
                let Some(id) = self.lowering.format(name) else { return Ok(None) };
                Formula::Atom(Atom::Pattern(id, positive))
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if on(Type::Number) => {
                return self.bound(keyword, value)
            }
            "multipleOf" | "divisibleBy" if on(Type::Number) => match value {
                Json::Number(number) if !number.negative && !number.is_zero() => {
                    Formula::Atom(Atom::Multiple(number, positive))
                }
                _ => return Err(self.error("expected a number above zero", keyword)),
            },
            "required" if on(Type::Object) => {
                let names =
                    value.items().and_then(|items| items.iter().map(Json::text).collect::<Option<Vec<_>>>());
                let names = names.ok_or_else(|| self.error("expected a list of names", keyword))?;
                let parts = names.into_iter().map(|name| {
                    if positive {
                        Formula::Atom(Atom::Required(name))
                    } else {
                        self.absent(name)
                    }
                });
                let parts = parts.collect();
                self.all(parts)
            }
            "propertyNames" if on(Type::Object) => {
                if positive {
                    Formula::Atom(Atom::Names(self.part(value, true)))
                } else {
                    Formula::Atom(Atom::Witness(Witness {
                        name: Some(self.part(value, false)),
                        ..Witness::default()
                    }))
                }
            }
            "dependentRequired" | "dependentSchemas" | "dependencies" if on(Type::Object) => {
                self.dependent(value)
            }
            "uniqueItems" if on(Type::Array) => match value {
                Json::Bool(true) if positive => Formula::Atom(Atom::Unique(self.schema)),
                Json::Bool(true) => return Err(self.unsupported(keyword, "under a negation")),
                Json::Bool(false) => return irrelevant,
                _ => return Err(self.error("expected true or false", keyword)),
            },
            "contains" if on(Type::Array) => self.contains(value)?,
            _ => return irrelevant,
        }))
    }

    fn reference(&mut self, reference: &str, positive: bool) -> Result<Formula<'a>, Error> {
        let Some((json, base)) = self.lowering.documents.follow(reference, self.literal.base) else {
            let message =
                format!("the reference {reference:?} leads nowhere (documents are given as resources=)");
            return Err(self.error(&message, "$ref"));
        };
        let scope = if base == self.literal.base {
            self.literal.scope
        } else {
            self.lowering.enter_scope(self.literal.scope, base)
        };
        Ok(Formula::Schema(Literal { json, constant: false, positive, base, scope }))
    }

    fn dynamic_reference(&mut self, reference: &str, positive: bool) -> Result<Formula<'a>, Error> {
        let Some((json, base)) = self.lowering.documents.follow(reference, self.literal.base) else {
            return Err(self.error(&format!("the reference {reference:?} leads nowhere"), "$dynamicRef"));
        };
        let anchor = reference.split_once('#').map_or("", |r| r.1);
        let is_dynamic =
            self.lowering.documents.dynamic_anchor(base, anchor).is_some_and(|j| address(j) == address(json));
        if is_dynamic {
            // The outermost resource of the dynamic scope that has the anchor wins.
            let scopes = self.lowering.scope(self.literal.scope).to_vec();
            for resource in scopes {
                if let Some(json) = self.lowering.documents.dynamic_anchor(resource, anchor) {
                    let scope = self.lowering.enter_scope(self.literal.scope, resource);
                    return Ok(Formula::Schema(Literal {
                        json,
                        constant: false,
                        positive,
                        base: resource,
                        scope,
                    }));
                }
            }
        }
        let scope = if base == self.literal.base {
            self.literal.scope
        } else {
            self.lowering.enter_scope(self.literal.scope, base)
        };
        Ok(Formula::Schema(Literal { json, constant: false, positive, base, scope }))
    }

    fn combine(&mut self, keyword: &str, list: &'a [Json]) -> Formula<'a> {
        let positive = self.positive();
        let each = |sign: bool| list.iter().map(|json| self.sub(json, sign)).collect::<Vec<_>>();
        match (keyword, positive) {
            ("allOf", true) => Formula::All(each(true)),
            ("allOf", false) => Formula::Any(each(false)),
            ("anyOf", true) => Formula::Some(list.iter().map(|json| self.part(json, true)).collect()),
            ("anyOf", false) => Formula::All(each(false)),
            (_, true) => self.exactly_one(list),
            (_, false) => {
                // None, or two of them.
                let mut options = vec![Formula::All(each(false))];
                for i in 0..list.len() {
                    for j in i + 1..list.len() {
                        let both = vec![self.sub(&list[i], true), self.sub(&list[j], true)];
                        options.push(Formula::All(both));
                    }
                }
                Formula::Any(options)
            }
        }
    }

    fn exactly_one(&mut self, list: &'a [Json]) -> Formula<'a> {
        let base = self.literal.base;
        let mut options = Vec::with_capacity(list.len());
        for (i, one) in list.iter().enumerate() {
            let mut parts = vec![self.sub(one, true)];
            for (j, other) in list.iter().enumerate() {
                if j != i && !self.lowering.disjoint(one, other, base, 0) {
                    parts.push(self.sub(other, false));
                }
            }
            options.push(Formula::All(parts));
        }
        Formula::Any(options)
    }

    fn size(&mut self, keyword: &str, count: u32) -> Option<Formula<'a>> {
        let (kind, atoms): (Type, [Sized<'a>; 2]) = match keyword {
            "minLength" | "maxLength" => (Type::String, [Atom::MinLength, Atom::MaxLength]),
            "minItems" | "maxItems" => (Type::Array, [Atom::MinItems, Atom::MaxItems]),
            _ => (Type::Object, [Atom::MinMembers, Atom::MaxMembers]),
        };
        if kind != self.kind {
            return None;
        }
        Some(match (keyword.starts_with("min"), self.positive()) {
            (true, true) => Formula::Atom(atoms[0](count)),
            (false, true) => Formula::Atom(atoms[1](count)),
            (true, false) if count == 0 => no(),
            (true, false) => Formula::Atom(atoms[1](count - 1)),
            (false, false) => Formula::Atom(atoms[0](count.saturating_add(1))),
        })
    }

    fn bound(&mut self, keyword: &str, value: &'a Json) -> Result<Option<Formula<'a>>, Error> {
        let upper = keyword.ends_with("aximum");
        let number = match value {
            Json::Number(number) => number,
            // Draft 4: a flag that makes the other keyword strict.
            Json::Bool(_) if keyword.starts_with("exclusive") => return Ok(None),
            _ => return Err(self.error("expected a number", keyword)),
        };
        let flag = if upper { "exclusiveMaximum" } else { "exclusiveMinimum" };
        let strict = keyword.starts_with("exclusive") || self.schema.get(flag) == Some(&Json::Bool(true));
        Ok(Some(Formula::Atom(if self.positive() {
            Atom::Bound { value: number, upper, strict }
        } else {
            Atom::Bound { value: number, upper: !upper, strict: !strict }
        })))
    }

    pub(super) fn absent(&self, name: &'a str) -> Formula<'a> {
        Formula::Atom(Atom::Member(name, self.part(&FALSE, true)))
    }

    fn members(&mut self) -> Result<Formula<'a>, Error> {
        let positive = self.positive();
        let schema = self.schema;
        let object = |keyword: &str| match schema.get(keyword) {
            Some(Json::Object(members)) => Ok(members.as_slice()),
            Some(_) => Err(self.error("expected an object of schemas", keyword)),
            None => Ok(&[][..]),
        };
        let (properties, by_pattern) = (object("properties")?, object("patternProperties")?);
        let mut patterns = Vec::with_capacity(by_pattern.len());
        for (pattern, value) in by_pattern {
            let id = self.lowering.pattern(pattern, schema, "patternProperties")?;
            patterns.push((id, self.part(value, positive)));
        }
        let declared: Vec<_> =
            properties.iter().map(|(name, value)| (name.as_str(), self.part(value, positive))).collect();
        let other = schema.get("additionalProperties").map(|value| self.part(value, positive));
        if positive {
            return Ok(Formula::Atom(Atom::Members(Members {
                declared,
                patterns,
                other,
                owners: Vec::new(),
            })));
        }
        let mut options: Vec<Formula> = declared
            .iter()
            .filter(|d| !d.1.is_false())
            .map(|&(name, value)| with_member(name, value))
            .collect();
        for &(pattern, value) in patterns.iter().filter(|p| !p.1.is_false()) {
            let witness = Witness { pattern: Some(pattern), value: Some(value), ..Witness::default() };
            options.push(Formula::Atom(Atom::Witness(witness)));
        }
        if let Some(value) = other.filter(|other| !other.is_false()) {
            let except = declared.iter().map(|d| d.0).collect();
            let except_patterns = patterns.iter().map(|p| p.0).collect();
            let witness = Witness { except, except_patterns, value: Some(value), ..Witness::default() };
            options.push(Formula::Atom(Atom::Witness(witness)));
        }
        Ok(Formula::Any(options))
    }

    fn dependent(&mut self, value: &'a Json) -> Formula<'a> {
        let positive = self.positive();
        let mut parts = Vec::new();
        for (name, condition) in value.members() {
            let present = Formula::Atom(Atom::Required(name));
            let then: Formula = match condition {
                Json::Array(names) => {
                    let names = names.iter().filter_map(Json::text);
                    let each = names.map(|name| {
                        if positive {
                            Formula::Atom(Atom::Required(name))
                        } else {
                            self.absent(name)
                        }
                    });
                    let each = each.collect();
                    self.all(each)
                }
                Json::String(other) if positive => Formula::Atom(Atom::Required(other)),
                Json::String(other) => self.absent(other),
                schema => self.sub(schema, positive),
            };
            let both = Formula::All(vec![present, then]);
            parts.push(if positive { Formula::Any(vec![self.absent(name), both]) } else { both });
        }
        self.all(parts)
    }

    fn items(&mut self, parts: &mut Vec<Formula<'a>>) -> Result<(), Error> {
        let (positive, schema) = (self.positive(), self.schema);
        let (prefix, rest): (&[Json], _) = match (schema.get("prefixItems"), schema.get("items")) {
            (Some(prefix), rest) => {
                (prefix.items().ok_or_else(|| self.error("expected a list of schemas", "prefixItems"))?, rest)
            }
            (None, Some(Json::Array(prefix))) => (prefix, schema.get("additionalItems")),
            (None, rest) => (&[], rest),
        };
        if prefix.is_empty() && rest.is_none() {
            return Ok(());
        }
        let prefix: Vec<_> = prefix.iter().map(|item| self.part(item, positive)).collect();
        let rest = rest.map(|rest| self.part(rest, positive));
        if positive {
            parts.push(Formula::Atom(Atom::Items(Items { prefix, rest, owners: Vec::new() })));
            return Ok(());
        }
        let mut options = Vec::new();
        for (i, &item) in prefix.iter().enumerate().filter(|(_, item)| !item.is_false()) {
            let i = i as u32;
            options.push(Formula::All(vec![
                Formula::Atom(Atom::MinItems(i + 1)),
                Formula::Atom(Atom::Item(i, item)),
            ]));
        }
        if let Some(literal) = rest.filter(|rest| !rest.is_false()) {
            let from = prefix.len() as u32;
            let contains = Contains { from, literal, min: 1, max: None, owners: Vec::new() };
            options.push(Formula::Atom(Atom::Contains(contains)));
        }
        parts.push(Formula::Any(options));
        Ok(())
    }

    fn contains(&mut self, value: &'a Json) -> Result<Formula<'a>, Error> {
        let count = |keyword: &str| match self.schema.get(keyword) {
            Some(value) => value
                .count()
                .map(Some)
                .ok_or_else(|| self.error("expected a number of zero or more", keyword)),
            None => Ok(None),
        };
        let (min, max) = (count("minContains")?.unwrap_or(1), count("maxContains")?);
        let literal = self.part(value, true);
        let contains = |min, max| {
            Formula::Atom(Atom::Contains(Contains { from: 0, literal, min, max, owners: Vec::new() }))
        };
        if self.positive() {
            return Ok(contains(min, max));
        }
        let mut options = Vec::new();
        if min > 0 {
            options.push(contains(0, Some(min - 1)));
        }
        if let Some(max) = max {
            options.push(contains(max.saturating_add(1), None));
        }
        Ok(Formula::Any(options))
    }

    fn conditional(&mut self, condition: &'a Json) -> Formula<'a> {
        let positive = self.positive();
        let (then, otherwise) = (self.schema.get("then"), self.schema.get("else"));
        let branch = |part: Option<&'a Json>| match part {
            Some(part) => self.sub(part, positive),
            None => truth(positive),
        };
        if positive && then.is_none() && otherwise.is_none() {
            // Matters only for what it has evaluated.
            return Formula::Some(vec![
                self.part(condition, true),
                self.part(&crate::grammar::json_schema::lower::TRUE, true),
            ]);
        }
        Formula::Any(vec![
            Formula::All(vec![self.sub(condition, true), branch(then)]),
            Formula::All(vec![self.sub(condition, false), branch(otherwise)]),
        ])
    }

    fn unevaluated(&mut self, parts: Vec<Formula<'a>>) -> Result<Formula<'a>, Error> {
        let keyword = match self.kind {
            Type::Object => "unevaluatedProperties",
            Type::Array => "unevaluatedItems",
            _ => return Ok(self.all(parts)),
        };
        let Some(value) = self.schema.get(keyword) else { return Ok(self.all(parts)) };
        if !self.positive() {
            return Err(self.unsupported(keyword, "under a negation"));
        }
        let owner = self.lowering.new_owner();
        let value = self.part(value, true);
        let atom = if self.kind == Type::Object {
            Atom::UnevaluatedMembers(owner, value)
        } else {
            Atom::UnevaluatedItems(owner, value)
        };
        Ok(Formula::All(vec![Formula::Owned(owner, Box::new(Formula::All(parts))), Formula::Atom(atom)]))
    }
}

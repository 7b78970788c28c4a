//! What one signed schema demands of a value of one JSON type, as a formula over atoms.

use crate::grammar::json::{Decimal, Json};
use crate::grammar::json_schema::document::address;

/// The JSON types; integers are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Type {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl Type {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::String, Self::Number, Self::Object, Self::Array, Self::Boolean, Self::Null];

    /// The type of a value.
    pub fn of(json: &Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(_) => Self::Boolean,
            Json::Number(_) => Self::Number,
            Json::String(_) => Self::String,
            Json::Array(_) => Self::Array,
            Json::Object(_) => Self::Object,
        }
    }

    /// Its name in schemas.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Number => "number",
            Self::String => "string",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// A schema, or a value that must be equalled, with a sign.
#[derive(Clone, Copy)]
pub struct Literal<'a> {
    /// The schema or value.
    pub json: &'a Json,
    /// True if `json` is a value to equal.
    pub constant: bool,
    /// False for a negation.
    pub positive: bool,
    /// The resource that references are resolved in.
    pub base: u32,
    /// The dynamic scope: resources entered on the way, interned.
    pub scope: u32,
}

/// Identity of a literal.
pub type LiteralKey = (usize, bool, bool, u32, u32);

/// Keywords that say nothing about a value.
const ANNOTATIONS: [&str; 8] =
    ["title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"];
/// Keywords of scalars whose meaning does not depend on where they stand.
const PLAIN: [&str; 11] = [
    "type",
    "enum",
    "const",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
];
/// Values that a plain schema may list.
const MOST_LISTED: usize = 32;

impl Literal<'_> {
    /// What the schema says, if that is a few scalars: equal texts, equal meaning.
    pub fn plain(&self) -> Option<String> {
        use std::fmt::Write;
        let Json::Object(members) = self.json else { return None };
        if self.constant {
            return None;
        }
        let scalar = |value: &Json| !matches!(value, Json::Array(_) | Json::Object(_));
        let mut out = format!("{} {}", self.positive, self.base);
        for (name, value) in members.iter().filter(|member| !ANNOTATIONS.contains(&member.0.as_str())) {
            let listed = match value {
                Json::Array(list) => list.len() <= MOST_LISTED && list.iter().all(scalar),
                value => scalar(value),
            };
            if !listed || !PLAIN.contains(&name.as_str()) {
                return None;
            }
            write!(out, " {name} {value:?}").ok()?;
        }
        Some(out)
    }

    /// What makes two literals the same.
    pub fn key(&self) -> LiteralKey {
        (address(self.json), self.constant, self.positive, self.base, self.scope)
    }

    /// True if every value satisfies it, seen at a glance.
    pub fn is_true(&self) -> bool {
        !self.constant
            && match self.json {
                Json::Bool(value) => *value == self.positive,
                Json::Object(members) => self.positive && members.is_empty(),
                _ => false,
            }
    }

    /// True if no value satisfies it, seen at a glance.
    pub fn is_false(&self) -> bool {
        !self.constant
            && match self.json {
                Json::Bool(value) => *value != self.positive,
                Json::Object(members) => !self.positive && members.is_empty(),
                _ => false,
            }
    }
}

/// What `properties`, `patternProperties` and `additionalProperties` of one schema say together.
#[derive(Clone, Default)]
pub struct Members<'a> {
    /// Names and what their values satisfy.
    pub declared: Vec<(&'a str, Literal<'a>)>,
    /// Patterns of names and what the values satisfy.
    pub patterns: Vec<(u32, Literal<'a>)>,
    /// What values of other names satisfy.
    pub other: Option<Literal<'a>>,
    /// `unevaluatedProperties` that see these.
    pub owners: Vec<u32>,
}

/// What `prefixItems` and `items` of one schema say together.
#[derive(Clone, Default)]
pub struct Items<'a> {
    /// The first places.
    pub prefix: Vec<Literal<'a>>,
    /// The other places.
    pub rest: Option<Literal<'a>>,
    /// `unevaluatedItems` that see these.
    pub owners: Vec<u32>,
}

/// Some property must exist.
#[derive(Clone, Default)]
pub struct Witness<'a> {
    /// Not of these names.
    pub except: Vec<&'a str>,
    /// Not matching these patterns.
    pub except_patterns: Vec<u32>,
    /// Matching this pattern.
    pub pattern: Option<u32>,
    /// With a name that satisfies this.
    pub name: Option<Literal<'a>>,
    /// With a value that satisfies this.
    pub value: Option<Literal<'a>>,
}

/// Items from a place on that satisfy something, counted.
#[derive(Clone)]
pub struct Contains<'a> {
    /// First place that counts.
    pub from: u32,
    /// What is counted.
    pub literal: Literal<'a>,
    /// At least so many.
    pub min: u32,
    /// At most so many.
    pub max: Option<u32>,
    /// `unevaluatedItems` that see the items counted.
    pub owners: Vec<u32>,
}

/// A demand that concerns one type.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Atom<'a> {
    Boolean(bool),
    Integer(bool),
    Bound {
        value: &'a Decimal,
        upper: bool,
        strict: bool,
    },
    Multiple(&'a Decimal, bool),
    Numbers(Vec<&'a Decimal>),
    NotNumber(&'a Decimal),
    MinLength(u32),
    MaxLength(u32),
    Pattern(u32, bool),
    Texts(Vec<&'a str>),
    NotText(&'a str),
    Members(Members<'a>),
    Required(&'a str),
    /// If the property is there, its value satisfies this.
    Member(&'a str, Literal<'a>),
    MinMembers(u32),
    MaxMembers(u32),
    Names(Literal<'a>),
    Witness(Witness<'a>),
    Items(Items<'a>),
    Item(u32, Literal<'a>),
    /// Items differ; the schema that says so.
    Unique(&'a Json),
    MinItems(u32),
    MaxItems(u32),
    Contains(Contains<'a>),
    /// Members that no rule of the owner speaks of.
    UnevaluatedMembers(u32, Literal<'a>),
    /// Items that no rule of the owner speaks of.
    UnevaluatedItems(u32, Literal<'a>),
}

/// A formula over atoms and schemas.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Formula<'a> {
    All(Vec<Formula<'a>>),
    Any(Vec<Formula<'a>>),
    Schema(Literal<'a>),
    Atom(Atom<'a>),
    /// As `Any` of schemas, but each that holds contributes what it has evaluated.
    Some(Vec<Literal<'a>>),
    /// What is inside is seen by this `unevaluated*`.
    Owned(u32, Box<Formula<'a>>),
}

pub static FALSE: Json = Json::Bool(false);

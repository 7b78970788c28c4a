//! Schemas that plainly have no value in common, so that `oneOf` of them is `anyOf` of them.
//!
//! Without this every branch of a `oneOf` carries the negations of all others, which multiply out.

use crate::grammar::json::Json;
use crate::grammar::json_schema::formula::Type;
use crate::grammar::json_schema::lower::Lowering;

/// How deep properties are compared.
const MAX_DEPTH: u32 = 3;

impl<'a> Lowering<'a, '_> {
    /// True if no value satisfies both; false if that is not seen at once.
    pub fn disjoint(&mut self, a: &'a Json, b: &'a Json, base: u32, depth: u32) -> bool {
        let (Some((a, base_a)), Some((b, base_b))) = (self.behind(a, base), self.behind(b, base)) else {
            return false;
        };
        if *a == Json::Bool(false) || *b == Json::Bool(false) {
            return true;
        }
        let shared = types(a) & types(b);
        if shared == 0 {
            return true;
        }
        if let (Some(left), Some(right)) = (values(a), values(b)) {
            return !left.iter().any(|l| right.iter().any(|r| l.same(r)));
        }
        if shared != bit("object") || base_a != base_b || depth == MAX_DEPTH {
            return false;
        }
        [(a, b), (b, a)].into_iter().any(|(one, other)| {
            let names = one.get("required").and_then(Json::items).unwrap_or_default();
            names.iter().filter_map(Json::text).any(|name| {
                let wanted = self.members_named(one, name);
                let found = self.members_named(other, name);
                wanted.iter().any(|w| found.iter().any(|f| self.disjoint(w, f, base_a, depth + 1)))
            })
        })
    }

    /// The schema that a chain of references leads to; None if references have neighbours.
    fn behind(&self, mut schema: &'a Json, mut base: u32) -> Option<(&'a Json, u32)> {
        for _ in 0..8 {
            let Some(reference) = schema.get("$ref") else { return Some((schema, base)) };
            (schema, base) = self.documents.follow(reference.text()?, base)?;
        }
        None
    }

    /// What an object schema says of a property.
    fn members_named(&mut self, schema: &'a Json, name: &str) -> Vec<&'a Json> {
        let mut out: Vec<&Json> = schema.get("properties").and_then(|p| p.get(name)).into_iter().collect();
        for (pattern, value) in schema.get("patternProperties").map(Json::members).unwrap_or_default() {
            let id = self.pattern(pattern, schema, "patternProperties");
            if id.and_then(|id| self.matches_pattern(id, name)).unwrap_or(false) {
                out.push(value);
            }
        }
        if out.is_empty() {
            out.extend(schema.get("additionalProperties"));
        }
        if out.is_empty() {
            out.push(&super::lower::TRUE);
        }
        out
    }
}

fn bit(name: &str) -> u32 {
    let order = ["string", "number", "object", "array", "boolean", "null"];
    let name = if name == "integer" { "number" } else { name };
    order.iter().position(|t| *t == name).map_or(0, |i| 1 << i)
}

/// The types a schema allows, as bits.
fn types(schema: &Json) -> u32 {
    let by_type = match schema.get("type") {
        Some(Json::String(name)) => bit(name),
        Some(Json::Array(names)) => names.iter().filter_map(Json::text).map(bit).fold(0, |a, b| a | b),
        _ => u32::MAX,
    };
    let by_value =
        values(schema).map_or(u32::MAX, |v| v.iter().map(|v| bit(Type::of(v).name())).fold(0, |a, b| a | b));
    by_type & by_value
}

/// The values a schema enumerates.
fn values(schema: &Json) -> Option<&[Json]> {
    schema.get("const").map(std::slice::from_ref).or_else(|| schema.get("enum").and_then(Json::items))
}

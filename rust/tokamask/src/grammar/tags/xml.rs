//! Arguments of calls as some models write them: each property between tags of its own, strings as they are, all
//! other values as JSON.
//!
//! Required properties and optional ones stand in the order of the schema, each once; others are not written, unless
//! the schema declares none. `format` is an annotation here. What else a schema of an object may say is refused.

use serde_json::{Map, Value};

use super::{any_text, free_text, Ends, Reader};
use crate::error::{Error, UnsupportedKeywordError};
use crate::grammar::regex::{self, Dialect, Regex};
use crate::grammar::rules::Expr;
use crate::grammar::UNBOUNDED;

/// Longest run of white space between two properties.
const GAP: u32 = 16;
/// References that lead to references.
const MAX_JUMPS: usize = 16;
/// Says nothing about the properties of an object.
const SILENT: [&str; 12] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "$defs",
    "definitions",
    "title",
    "description",
    "$schema",
    "$id",
    "examples",
    "default",
];

/// How a property is written: KEY stands for its name, TYPE for its JSON type, RAW for whether it is a string.
pub struct Style {
    open: &'static str,
    close: &'static str,
}

/// A style by its name.
pub fn style(name: &str) -> Option<Style> {
    let (open, close) = match name {
        "qwen_xml" => ("<parameter=KEY>", "</parameter>"),
        "minimax_xml" => ("<parameter name=\"KEY\">", "</parameter>"),
        "glm_xml" => ("<arg_key>KEY</arg_key><arg_value>", "</arg_value>"),
        "deepseek_xml" => (
            "<\u{ff5c}DSML\u{ff5c}parameter name=\"KEY\" string=\"RAW\">",
            "</\u{ff5c}DSML\u{ff5c}parameter>",
        ),
        "deepseek_v4_1_xml" => (
            "<\u{ff5c}DSML\u{ff5c} parameter name=\"KEY\" string=\"RAW\">",
            "</\u{ff5c}DSML\u{ff5c} parameter>",
        ),
        "kimi_k3_xml" => ("<|open|>argument key=\"KEY\" type=\"TYPE\"<|sep|>", "<|close|>argument<|sep|>"),
        _ => return None,
    };
    Some(Style { open, close })
}

/// The word of a type in tags that name it.
fn type_of(schema: &Value) -> &'static str {
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => "number",
        Some("boolean") => "boolean",
        Some("array") => "array",
        Some("object") => "object",
        Some("null") => "null",
        _ => "string",
    }
}

/// True if a string is among the values.
fn may_be_text(schema: &Value) -> bool {
    let Value::Object(map) = schema else { return schema != &Value::Bool(false) };
    let listed = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(Value::is_string));
    let any = |list: &Value| list.as_array().is_some_and(|list| list.iter().any(may_be_text));
    if let Some(value) = map.get("const") {
        return value.is_string();
    }
    if let Some(list) = map.get("enum") {
        return listed(list);
    }
    match map.get("type") {
        Some(Value::String(kind)) => return kind == "string",
        Some(Value::Array(kinds)) => return kinds.iter().any(|kind| kind == "string"),
        _ => {}
    }
    ["anyOf", "oneOf"].iter().find_map(|key| map.get(*key)).is_none_or(any)
}

impl Reader {
    fn refused(&self, keyword: &str, reason: &str) -> Error {
        let (json_pointer, keyword) = (self.place(), keyword.to_owned());
        UnsupportedKeywordError { json_pointer, keyword, reason: Some(reason.to_owned()) }.into()
    }

    /// The arguments that a schema of an object allows.
    pub(super) fn xml(&mut self, schema: &Value, style: &Style, ends: &Ends) -> Result<Expr, Error> {
        let empty = Map::new();
        let map = match schema {
            Value::Object(map) => map,
            Value::Bool(true) | Value::Null => &empty,
            _ => return Err(self.error("arguments must be an object")),
        };
        if let Some(keyword) = map.keys().find(|key| !SILENT.contains(&key.as_str())) {
            return Err(self.refused(keyword, "arguments written as XML know properties and required only"));
        }
        let required: Vec<&str> = map
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let none = Map::new();
        let properties = match map.get("properties") {
            None => &none,
            Some(Value::Object(properties)) => properties,
            Some(_) => return Err(self.error("properties must be an object")),
        };
        if let Some(name) = required.iter().find(|name| !properties.contains_key(**name)) {
            return Err(self.refused("required", &format!("{name:?} is not among the properties")));
        }
        let space = [0x20, 0x0a, 0x0d, 0x09].map(|c| (c, c));
        let space = Regex::Class(crate::grammar::chars::CharSet::from_ranges(space));
        let gap = || Expr::Regular(Regex::Repeat(Box::new(space.clone()), 0, Some(GAP)));
        let mut parts = vec![gap()];
        for (name, value) in properties {
            let value = self.resolved(value, map)?;
            let one = self
                .at(&format!("properties/{}", name.replace('~', "~0").replace('/', "~1")), |r| {
                    r.property(name, &value, map, style, ends)
                })?;
            let one = Expr::Sequence(vec![one, gap()]);
            parts.push(if required.contains(&name.as_str()) { one } else { self.repeat(one, 0, 1) });
        }
        if properties.is_empty() && map.get("additionalProperties") != Some(&Value::Bool(false)) {
            // Nothing is declared: any names.
            let key = regex::parse("[A-Za-z_][A-Za-z0-9_.-]{0,63}", Dialect::Ecma)?;
            let (before, after) = style.open.split_once("KEY").unwrap_or((style.open, ""));
            let after = after.replace("TYPE", "string").replace("RAW", "true");
            let raw = Expr::Regular(self.raw(&Value::Bool(true), style, ends)?);
            let one = vec![
                self.literal(before),
                Expr::Regular(key),
                self.literal(&after),
                raw,
                self.literal(style.close),
                gap(),
            ];
            parts.push(self.repeat(Expr::Sequence(one), 0, UNBOUNDED));
        }
        let rule = self.rules.add(Expr::Sequence(parts));
        Ok(Expr::Rule(rule))
    }

    /// A schema with its own reference followed.
    fn resolved(&self, schema: &Value, root: &Map<String, Value>) -> Result<Value, Error> {
        let mut now = schema.clone();
        for _ in 0..MAX_JUMPS {
            let Some(reference) = now.get("$ref") else { return Ok(now) };
            let place = reference.as_str().and_then(|text| text.strip_prefix("#/"));
            let found = place.and_then(|place| {
                let (first, rest) = place.split_once('/').unwrap_or((place, ""));
                let start = root.get(first)?;
                if rest.is_empty() {
                    Some(start)
                } else {
                    start.pointer(&format!("/{rest}"))
                }
            });
            now = found.cloned().ok_or_else(|| self.refused("$ref", "it leads nowhere in this schema"))?;
        }
        Err(self.refused("$ref", "it leads in a circle"))
    }

    fn property(
        &mut self,
        name: &str,
        schema: &Value,
        root: &Map<String, Value>,
        style: &Style,
        ends: &Ends,
    ) -> Result<Expr, Error> {
        let raw = may_be_text(schema);
        let open = style.open.replace("TYPE", if raw { "string" } else { type_of(schema) });
        let open = open.replace("RAW", if raw { "true" } else { "false" }).replace("KEY", name);
        let value = if raw {
            Expr::Regular(self.raw(schema, style, ends)?)
        } else {
            let mut whole = schema.clone();
            if let Value::Object(map) = &mut whole {
                for key in ["$defs", "definitions"] {
                    if let Some(defs) = root.get(key) {
                        map.entry(key).or_insert_with(|| defs.clone());
                    }
                }
            }
            let json = self.schema(&whole, self.space, false)?;
            let breaks = regex::parse("[ \\n]{0,4}", Dialect::Ecma)?;
            Expr::Sequence(vec![json, Expr::Regular(breaks)])
        };
        Ok(Expr::Sequence(vec![self.literal(&open), value, self.literal(style.close)]))
    }

    /// A string as it is: what a schema says of strings, clear of the closing tag. Models write a line feed around it.
    fn raw(&mut self, schema: &Value, style: &Style, ends: &Ends) -> Result<Regex, Error> {
        let mut without = vec![style.close.to_owned()];
        without.extend(ends.texts.iter().cloned());
        let framed = |inner: Regex| {
            let line = || Regex::Repeat(Box::new(Regex::literal("\n")), 0, Some(1));
            Regex::All(vec![Regex::Concat(vec![line(), inner, line()]), free_text(&without)])
        };
        let listed = match (schema.get("const"), schema.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => Some(vec![value.clone()]),
            (None, Some(list)) => Some(list.clone()),
            _ => None,
        };
        if let Some(list) = listed {
            let spell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return Ok(framed(Regex::Alternation(list.iter().map(|v| Regex::literal(&spell(v))).collect())));
        }
        let mut parts = vec![free_text(&without)];
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            let found = regex::conjunction(&regex::search_parts(regex::parse(pattern, Dialect::Ecma)?)?);
            if found.has_assertion() {
                return Err(self.refused("pattern", "it looks at what stands around the text"));
            }
            parts.push(found);
        }
        let (least, most) = (self.count(schema, "minLength")?.unwrap_or(0), self.count(schema, "maxLength")?);
        if least > 0 || most.is_some() {
            let any = Box::new(Regex::Class(crate::grammar::chars::CharSet::all()));
            parts.push(Regex::Repeat(any, least, most));
        }
        if parts.len() == 1 {
            return Ok(parts.swap_remove(0));
        }
        parts.push(any_text(None));
        Ok(framed(Regex::All(parts)))
    }
}

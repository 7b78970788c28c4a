//! The front ends read anything: what they cannot read is an error, and what they can read has no dead end within
//! the first steps. Texts are made of the pieces that each notation knows, in any order.

use std::sync::Arc;

use proptest::prelude::*;
use tokamask::error::Error;
use tokamask::grammar::json_schema::Options;
use tokamask::grammar::{budget, ebnf, json_schema, lark, read_regex, Grammar};
use tokamask::ids::TokenId;
use tokamask::mask::{CompiledGrammar, Limits};
use tokamask::vocabulary::Vocabulary;

/// Tokens of several bytes, which cross the borders of what a grammar names.
const LONGER: &[&str] = &[
    "ab", "aa", "abc", "bx", "xy", "xx", "ax", "zq", "zqx", " a", "a b", "\"a", "a\"", "\"a\"", "\": ",
    "\", \"", "{\"", "{}", "[]", "[1", "1,", "12", "0.5", "e1", "\"}", "]]", "}}", "xaxa", "yxy", "éa", "aé",
    "\\u00", "null", "true,",
];
const END: u32 = 256 + LONGER.len() as u32;

fn vocabulary() -> Vocabulary {
    let bytes = (0..=255u8).map(|b| vec![b]);
    let tokens = bytes.chain(LONGER.iter().map(|text| text.as_bytes().to_vec())).chain([b"<end>".to_vec()]);
    Vocabulary::new(tokens.map(Some), [("<end>".to_owned(), END.into())], [END.into()]).expect("a vocabulary")
}

/// Reads, then walks by the given choices; every mask names a token, and every token named is taken.
fn walk(read: impl FnOnce() -> Result<Grammar, Error>, choices: &[u16]) {
    let Ok(grammar) = budget::within(1.0, || false, read) else { return };
    // It may name a token that there is not.
    let compiled = CompiledGrammar::new(Arc::new(grammar), &vocabulary(), Limits::default());
    let Ok(compiled) = compiled else { return };
    let mut matcher = compiled.matcher();
    let (mut row, mut plain) = (vec![0u32; compiled.words()], vec![0u32; compiled.words()]);
    for &choice in choices {
        matcher.fill(&mut row);
        matcher.fill_plainly(&mut plain);
        assert_eq!(row, plain, "tables and the plain walk differ");
        let allowed: Vec<u32> = (0..=END).filter(|id| row[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        assert!(!allowed.is_empty(), "a dead end");
        let id = allowed[choice as usize % allowed.len()];
        matcher.accept(TokenId::new(id)).expect("the mask allows it");
        if id == END {
            return;
        }
    }
}

/// Texts of up to so many pieces.
fn text(pieces: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..most).prop_map(|list| list.concat())
}

fn choices() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 12)
}

const REGEX: &[&str] = &[
    "a", "b", "é", "(", ")", "[", "]", "^", "-", "|", "*", "+", "?", "{2}", "{1,3}", "{,", "\\d", "\\w",
    "\\S", "\\b", "\\u0041", "\\p{L}", "(?:", "(?=", "(?!", "(?i)", "&", "~", ".", "$", "\\", "x{0,40}",
    "[^a-c]", "\\1", " ",
];
const EBNF: &[&str] = &[
    "root",
    "::=",
    "a",
    "b",
    "\"x\"",
    "'y'",
    "[a-c]",
    "[^x]",
    "|",
    "(",
    ")",
    "*",
    "+",
    "?",
    "{2,3}",
    "\n",
    "# note\n",
    " ",
    "\"",
    "[",
    ".",
    "root ::= ",
    "\na ::= ",
    "\nb ::= ",
    "\\x41",
    "<|end|>",
    "<end>",
];
const LARK: &[&str] = &[
    "start: ",
    "\na: ",
    "\nB: ",
    "\nB.2: ",
    "%ignore ",
    "%import common.INT",
    "/[a-z]+/",
    "/a|b/i",
    "\"x\"",
    "\"y\"i",
    "|",
    "(",
    ")",
    "*",
    "+",
    "?",
    "~2..3",
    "->",
    " name",
    "{e}",
    "a",
    "B",
    "\n",
    "// note\n",
    "%json {\"type\": \"null\"}",
    "[",
    "]",
    "\"a\"..\"f\"",
    "%declare X",
    "/",
    "_x",
    "<end>",
];

/// A body of rules that call each other.
fn body() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "\"a\"",
        "\"ab\"",
        "\"x\"",
        "\"xx\"",
        "\"\\\"\"",
        "[a-c]",
        "[a-z]+",
        "[a-z0-9]{2,5}",
        "[^\"]*",
        "\" \"*",
        "a",
        "b",
    ]);
    let part = part.prop_map(str::to_owned);
    part.prop_recursive(3, 10, 3, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(|list| list.join(" ")),
            2 => prop::collection::vec(inner.clone(), 1..4).prop_map(|list| format!("({})", list.join(" | "))),
            1 => (inner, prop::sample::select(vec!["*", "+", "?", "{2,3}", "{0,12}"])).prop_map(|(e, n)| format!("({e}){n}")),
        ]
    })
}

/// Schemas of a few levels, and values that are none.
fn schema() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::{json, Value};
    let odd = prop::sample::select(vec![
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(3),
        json!(-1.5),
        json!("a"),
        json!("^a+$"),
        json!("string"),
        json!("integer"),
        json!("object"),
        json!("array"),
        json!("date"),
        json!("#"),
        json!("#/$defs/a"),
        json!([]),
        json!({}),
        json!(["a", "b"]),
        json!([1, "a", null]),
    ]);
    let keywords = vec![
        "type",
        "enum",
        "const",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
        "dependentRequired",
        "items",
        "prefixItems",
        "contains",
        "minContains",
        "minItems",
        "maxItems",
        "uniqueItems",
        "pattern",
        "minLength",
        "maxLength",
        "format",
        "minimum",
        "maximum",
        "multipleOf",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "$ref",
        "$defs",
        "unevaluatedProperties",
        "unevaluatedItems",
        "a",
        "b",
    ];
    odd.prop_recursive(3, 12, 4, move |inner| {
        let object = prop::collection::btree_map(prop::sample::select(keywords.clone()), inner.clone(), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()));
        prop_oneof![3 => object, 1 => prop::collection::vec(inner, 0..3).prop_map(Value::Array)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn regular_expressions(pattern in text(REGEX, 10), choices in choices()) {
        walk(|| read_regex(&pattern), &choices);
    }

    #[test]
    fn rules_in_ebnf(rules in text(EBNF, 14), choices in choices()) {
        walk(|| ebnf::read(&rules, "root"), &choices);
        walk(|| ebnf::read(&format!("root ::= {rules}"), "root"), &choices);
    }

    #[test]
    fn rules_in_lark(rules in text(LARK, 14), choices in choices()) {
        walk(|| lark::read(&rules, "start"), &choices);
        walk(|| lark::read(&format!("start: a B?\na: \"z\"\nB: \"q\"\n{rules}"), "start"), &choices);
    }

    #[test]
    fn rules_that_fit(root in body(), a in body(), b in body(), choices in choices()) {
        walk(|| ebnf::read(&format!("root ::= {root}\na ::= {a}\nb ::= {b}"), "root"), &choices);
    }

    #[test]
    fn schemas(schema in schema(), choices in choices()) {
        walk(|| json_schema::read(&schema.to_string(), &Options::default()), &choices);
    }

    #[test]
    fn text_that_is_no_schema(text in "\\PC{0,24}", choices in choices()) {
        walk(|| json_schema::read(&text, &Options::default()), &choices);
        walk(|| read_regex(&text), &choices);
        walk(|| ebnf::read(&text, "root"), &choices);
        walk(|| lark::read(&text, "start"), &choices);
    }
}

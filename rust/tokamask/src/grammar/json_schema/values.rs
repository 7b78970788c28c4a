//! `const` and `enum`: what equality with a value demands.

use crate::grammar::json::Json;
use crate::grammar::json_schema::formula::{Atom, Formula, Items, Literal, Members, Type, Witness, FALSE};
use crate::grammar::json_schema::reader::{truth, with_member, Reader};

impl<'a> Reader<'_, 'a, '_> {
    pub(super) fn constant(&mut self, value: &'a Json) -> Formula<'a> {
        let positive = self.positive();
        if Type::of(value) != self.kind {
            return truth(!positive);
        }
        match value {
            Json::Null => truth(positive),
            Json::Bool(value) => Formula::Atom(Atom::Boolean(*value == positive)),
            Json::Number(number) if positive => Formula::Atom(Atom::Numbers(vec![number])),
            Json::Number(number) => Formula::Atom(Atom::NotNumber(number)),
            Json::String(text) if positive => Formula::Atom(Atom::Texts(vec![text])),
            Json::String(text) => Formula::Atom(Atom::NotText(text)),
            Json::Array(items) => {
                let equal = |json: &'a Json, positive: bool| Literal {
                    json,
                    constant: true,
                    positive,
                    ..self.literal
                };
                let n = items.len() as u32;
                if positive {
                    let prefix = items.iter().map(|item| equal(item, true)).collect();
                    let rule = Items { prefix, ..Items::default() };
                    return Formula::All(vec![
                        Formula::Atom(Atom::MinItems(n)),
                        Formula::Atom(Atom::MaxItems(n)),
                        Formula::Atom(Atom::Items(rule)),
                    ]);
                }
                let mut options = vec![Formula::Atom(Atom::MinItems(n + 1))];
                if n > 0 {
                    options.push(Formula::Atom(Atom::MaxItems(n - 1)));
                }
                for (i, item) in items.iter().enumerate() {
                    let i = i as u32;
                    options.push(Formula::All(vec![
                        Formula::Atom(Atom::MinItems(i + 1)),
                        Formula::Atom(Atom::Item(i, equal(item, false))),
                    ]));
                }
                Formula::Any(options)
            }
            Json::Object(members) => {
                let equal = |json: &'a Json, positive: bool| Literal {
                    json,
                    constant: true,
                    positive,
                    ..self.literal
                };
                if positive {
                    let mut parts: Vec<Formula> =
                        members.iter().map(|m| Formula::Atom(Atom::Required(&m.0))).collect();
                    let declared = members.iter().map(|m| (m.0.as_str(), equal(&m.1, true))).collect();
                    let other = Some(self.part(&FALSE, true));
                    parts.push(Formula::Atom(Atom::Members(Members {
                        declared,
                        other,
                        ..Members::default()
                    })));
                    return Formula::All(parts);
                }
                let except = members.iter().map(|m| m.0.as_str()).collect();
                let mut options =
                    vec![Formula::Atom(Atom::Witness(Witness { except, ..Witness::default() }))];
                for (name, value) in members {
                    options.push(self.absent(name));
                    options.push(with_member(name, equal(value, false)));
                }
                Formula::Any(options)
            }
        }
    }

    pub(super) fn enumeration(&mut self, list: &'a [Json]) -> Formula<'a> {
        if !self.positive() {
            return Formula::All(
                list.iter()
                    .map(|v| Formula::Schema(Literal { json: v, constant: true, ..self.literal }))
                    .collect(),
            );
        }
        match self.kind {
            Type::String => Formula::Atom(Atom::Texts(list.iter().filter_map(Json::text).collect())),
            Type::Number => {
                let numbers =
                    list.iter().filter_map(|v| if let Json::Number(n) = v { Some(n) } else { None });
                Formula::Atom(Atom::Numbers(numbers.collect()))
            }
            kind => {
                let values = list.iter().filter(|v| Type::of(v) == kind);
                Formula::Any(
                    values
                        .map(|v| Formula::Schema(Literal { json: v, constant: true, ..self.literal }))
                        .collect(),
                )
            }
        }
    }
}

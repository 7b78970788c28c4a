//! Structural tags: free text in which some beginnings must be followed by something given, as tool
//! calls are written. The notation is the JSON that serving engines pass on.

use serde_json::Value;

use crate::error::{Error, GrammarError, LimitError};
use crate::grammar::chars::CharSet;
use crate::grammar::json_schema::{self, Format, Options};
use crate::grammar::regex::{self, Dialect, Regex};
use crate::grammar::rules::{Expr, Rules};
use crate::grammar::{ebnf, lark, Grammar, Node, SpecialToken, UNBOUNDED};

/// Nesting of formats.
const MAX_DEPTH: usize = 64;

/// Reads a structural tag given as JSON text.
pub fn read(text: &str, space: u32) -> Result<Grammar, Error> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| GrammarError::at_pointer(format!("this is not JSON: {error}"), ""))?;
    let mut reader = Reader { rules: Rules::default(), space, pointer: Vec::new() };
    let body = match value.get("format") {
        Some(format) => reader.at("format", |r| r.format(format, &[]))?,
        None if value.get("structures").is_some() => reader.triggered(&value, "structures")?,
        None => reader.format(&value, &[])?,
    };
    let root = reader.rules.add(body);
    reader.rules.finish(root)
}

struct Reader {
    rules: Rules,
    space: u32,
    pointer: Vec<String>,
}

impl Reader {
    fn error(&self, message: impl Into<String>) -> Error {
        let root = if self.pointer.is_empty() { "" } else { "/" };
        GrammarError::at_pointer(message, format!("{root}{}", self.pointer.join("/"))).into()
    }

    fn at<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.pointer.len() > MAX_DEPTH {
            return Err(LimitError { limit: "tag nesting".into(), value: MAX_DEPTH as u64 }.into());
        }
        self.pointer.push(key.to_owned());
        let found = read(self)?;
        self.pointer.pop();
        Ok(found)
    }

    fn text<'v>(&self, value: &'v Value, key: &str) -> Result<&'v str, Error> {
        let found = value.get(key).and_then(Value::as_str);
        found.ok_or_else(|| self.error(format!("{key} must be a string")))
    }

    fn flag(&self, value: &Value, key: &str) -> Result<bool, Error> {
        match value.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.error(format!("{key} must be true or false"))),
        }
    }

    fn list<'v>(&self, value: &'v Value, key: &str) -> Result<&'v [Value], Error> {
        let list = value.get(key).and_then(Value::as_array).filter(|list| !list.is_empty());
        list.map(Vec::as_slice).ok_or_else(|| self.error(format!("{key} must be a list that is not empty")))
    }

    fn texts(&self, value: &Value, key: &str) -> Result<Vec<String>, Error> {
        let texts: Option<Vec<String>> =
            self.list(value, key)?.iter().map(|v| v.as_str().map(str::to_owned)).collect();
        let texts = texts.filter(|texts| texts.iter().all(|t| !t.is_empty()));
        texts.ok_or_else(|| self.error(format!("{key} must hold strings that are not empty")))
    }

    fn all(&mut self, value: &Value, key: &str, ends: &[String]) -> Result<Vec<Expr>, Error> {
        let items = self.list(value, key)?;
        let read =
            |r: &mut Self, i: usize, item: &Value| r.at(&format!("{key}/{i}"), |r| r.format(item, ends));
        items.iter().enumerate().map(|(i, item)| read(self, i, item)).collect()
    }

    /// One format; free text in it stays clear of `ends`.
    fn format(&mut self, value: &Value, ends: &[String]) -> Result<Expr, Error> {
        Ok(match self.text(value, "type")? {
            "const_string" => Expr::Regular(Regex::literal(self.text(value, "value")?)),
            "token" => self.token(value)?,
            "json_schema" => {
                let Some(schema) = value.get("json_schema").or_else(|| value.get("schema")) else {
                    return Err(self.error("json_schema is missing"));
                };
                self.schema(schema)?
            }
            "any_text" => {
                let mut without = ends.to_vec();
                if value
                    .get("excludes")
                    .is_some_and(|list| list.as_array().is_some_and(|list| !list.is_empty()))
                {
                    without.extend(self.texts(value, "excludes")?);
                }
                Expr::Regular(free_text(&without))
            }
            "regex" => {
                let pattern = regex::parse(self.text(value, "pattern")?, Dialect::Extended)?;
                if pattern.has_assertion() {
                    return Err(self.error("a pattern in a tag cannot look at what stands around it"));
                }
                Expr::Regular(pattern)
            }
            "grammar" => self.rules_of(ebnf::read(self.text(value, "grammar")?, "root")?),
            "lark" => self.rules_of(lark::read(self.text(value, "grammar")?, "start")?),
            "sequence" => Expr::Sequence(self.all(value, "elements", ends)?),
            "or" => Expr::Choice(self.all(value, "elements", ends)?),
            "tag" => self.tag(value)?,
            "triggered_tags" => self.triggered(value, "tags")?,
            "tags_with_separator" => self.separated(value)?,
            other => return Err(self.error(format!("the format {other:?} is not supported"))),
        })
    }

    fn rules_of(&mut self, grammar: Grammar) -> Expr {
        self.rules.import(grammar)
    }

    fn schema(&mut self, schema: &Value) -> Result<Expr, Error> {
        let (space, resources) = (self.space, Vec::new());
        let options = Options { space, schema_order: false, format: Format::Assert, resources };
        let inner = json_schema::read(&schema.to_string(), &options)?;
        Ok(self.rules.import(inner))
    }

    fn token(&mut self, value: &Value) -> Result<Expr, Error> {
        let token = match value.get("token") {
            Some(Value::String(name)) => SpecialToken::Name(name.clone()),
            Some(Value::Number(id)) => match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => SpecialToken::Ids(id, id),
                None => return Err(self.error("token must be the name or id of a token")),
            },
            _ => return Err(self.error("token must be the name or id of a token")),
        };
        Ok(Expr::Node(self.rules.add_node(Node::Special(vec![token]))))
    }

    /// The text or token at one end of a tag.
    fn edge(&mut self, value: &Value, key: &str) -> Result<(Expr, Vec<String>), Error> {
        match value.get(key) {
            Some(Value::String(text)) => Ok((Expr::Regular(Regex::literal(text)), vec![text.clone()])),
            Some(Value::Array(_)) => {
                let texts = self.texts(value, key)?;
                let parts = texts.iter().map(|text| Regex::literal(text)).collect();
                Ok((Expr::Regular(Regex::Alternation(parts)), texts))
            }
            Some(token @ Value::Object(_)) => Ok((self.at(key, |r| r.token(token))?, Vec::new())),
            _ => Err(self.error(format!("{key} must be a string"))),
        }
    }

    fn tag(&mut self, value: &Value) -> Result<Expr, Error> {
        let (begin, _) = self.edge(value, "begin")?;
        let (end, ends) = self.edge(value, "end")?;
        let ends: Vec<String> = ends.into_iter().filter(|end| !end.is_empty()).collect();
        let content = match (value.get("content"), value.get("schema")) {
            (Some(content), _) => self.at("content", |r| r.format(content, &ends))?,
            (None, Some(schema)) => self.at("schema", |r| r.schema(schema))?,
            (None, None) => return Err(self.error("content is missing")),
        };
        let rule = self.rules.add(Expr::Sequence(vec![begin, content, end]));
        Ok(Expr::Rule(rule))
    }

    fn triggered(&mut self, value: &Value, key: &str) -> Result<Expr, Error> {
        let triggers = self.texts(value, "triggers")?;
        let mut tags = Vec::new();
        let mut used = vec![false; triggers.len()];
        for (i, tag) in self.list(value, key)?.iter().enumerate() {
            let found = self.at(&format!("{key}/{i}"), |r| {
                let begin = r.text(tag, "begin")?;
                let mut any = false;
                for (used, trigger) in used.iter_mut().zip(&triggers) {
                    *used |= begin.starts_with(trigger.as_str());
                    any |= begin.starts_with(trigger.as_str());
                }
                if !any {
                    return Err(r.error("no trigger begins this tag"));
                }
                r.tag(tag)
            })?;
            tags.push(found);
        }
        if let Some(i) = used.iter().position(|used| !used) {
            return Err(self.error(format!("the trigger {:?} begins no tag", triggers[i])));
        }
        let free = Expr::Regular(free_text(&triggers));
        let tag = Expr::Rule(self.rules.add(Expr::Choice(tags)));
        let least = u32::from(self.flag(value, "at_least_one")?);
        if self.flag(value, "stop_after_first")? {
            let whole = Expr::Sequence(vec![free.clone(), tag]);
            return Ok(if least == 1 { whole } else { Expr::Choice(vec![whole, free]) });
        }
        let again = Expr::Sequence(vec![free.clone(), tag]);
        Ok(Expr::Sequence(vec![Expr::Repeat(Box::new(again), least, UNBOUNDED), free]))
    }

    fn separated(&mut self, value: &Value) -> Result<Expr, Error> {
        let tags = self.all(value, "tags", &[])?;
        let separator = Expr::Regular(Regex::literal(self.text(value, "separator")?));
        let tag = Expr::Rule(self.rules.add(Expr::Choice(tags)));
        let mut list = tag.clone();
        if !self.flag(value, "stop_after_first")? {
            let more = Expr::Sequence(vec![separator, tag.clone()]);
            list = Expr::Sequence(vec![tag, Expr::Repeat(Box::new(more), 0, UNBOUNDED)]);
        }
        Ok(if self.flag(value, "at_least_one")? { list } else { Expr::Choice(vec![Expr::empty(), list]) })
    }
}

/// Texts in which none of some texts occurs.
fn free_text(without: &[String]) -> Regex {
    let any = Regex::Repeat(Box::new(Regex::Class(CharSet::all())), 0, None);
    if without.is_empty() {
        return any;
    }
    let words = Regex::Alternation(without.iter().map(|text| Regex::literal(text)).collect());
    Regex::Not(Box::new(Regex::Concat(vec![any.clone(), words, any])))
}

//! Structural tags: free text in which some beginnings must be followed by something given, as tool
//! calls are written. The notation is the JSON that serving engines pass on.

mod xml;

use serde_json::Value;

use crate::error::{Error, GrammarError, LimitError, UnsatisfiableError, UnsupportedKeywordError};
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
        Some(format) => {
            reader.only(&value, &["format"])?;
            reader.at("format", |r| r.format(format, &Ends::default()))?
        }
        None if value.get("structures").is_some() => reader.triggered(&value, "structures")?,
        None => reader.format(&value, &Ends::default())?,
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
    fn place(&self) -> String {
        let root = if self.pointer.is_empty() { "" } else { "/" };
        format!("{root}{}", self.pointer.join("/"))
    }

    fn error(&self, message: impl Into<String>) -> Error {
        GrammarError::at_pointer(message, self.place()).into()
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

    fn optional_texts(&self, value: &Value, key: &str) -> Result<Vec<String>, Error> {
        match value.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) if list.is_empty() => Ok(Vec::new()),
            Some(_) => self.texts(value, key),
        }
    }

    fn count(&self, value: &Value, key: &str) -> Result<Option<u32>, Error> {
        match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(n) => match n.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|&n| n < UNBOUNDED) {
                Some(n) => Ok(Some(n)),
                None => Err(self.error(format!("{key} must be a whole number"))),
            },
        }
    }

    fn all(&mut self, value: &Value, key: &str, ends: &Ends) -> Result<Vec<Expr>, Error> {
        let items = self.list(value, key)?;
        let read =
            |r: &mut Self, i: usize, item: &Value| r.at(&format!("{key}/{i}"), |r| r.format(item, ends));
        items.iter().enumerate().map(|(i, item)| read(self, i, item)).collect()
    }

    /// The fields that a format may have. Others are refused, so that none is ignored; null is as if it was not there.
    fn only(&self, value: &Value, known: &[&str]) -> Result<(), Error> {
        for (key, given) in value.as_object().into_iter().flatten() {
            if key != "type" && !known.contains(&key.as_str()) && !given.is_null() {
                return Err(UnsupportedKeywordError {
                    json_pointer: self.place(),
                    keyword: key.clone(),
                    reason: Some(format!("{} knows {}", kind(value), known.join(", "))),
                }
                .into());
            }
        }
        Ok(())
    }

    /// One format; free text in it stays clear of `ends`.
    fn format(&mut self, value: &Value, ends: &Ends) -> Result<Expr, Error> {
        if !value.is_object() {
            return Err(self.error("a format must be an object"));
        }
        let content = |r: &mut Self| match value.get("content") {
            Some(content) => r.at("content", |r| r.format(content, ends)),
            None => Err(r.error("content is missing")),
        };
        Ok(match self.text(value, "type")? {
            "const_string" => {
                self.only(value, &["value"])?;
                self.literal(self.text(value, "value")?)
            }
            "json_schema" => self.json_schema(value, ends)?,
            "qwen_xml_parameter" => {
                self.only(value, &["json_schema"])?;
                self.styled(value, "json_schema", "qwen_xml", ends)?
            }
            "any_text" => {
                self.only(value, &["excludes", "max_chars"])?;
                let mut without = ends.texts.clone();
                without.extend(self.optional_texts(value, "excludes")?);
                let text = free_text(&without);
                Expr::Regular(match self.count(value, "max_chars")? {
                    Some(most) if without.is_empty() => any_text(Some(most)),
                    Some(most) => Regex::All(vec![any_text(Some(most)), text]),
                    None => text,
                })
            }
            "regex" => {
                self.only(value, &["pattern"])?;
                let pattern = regex::parse(self.text(value, "pattern")?, Dialect::Extended)?;
                if pattern.has_assertion() {
                    return Err(self.error("a pattern in a tag cannot look at what stands around it"));
                }
                Expr::Regular(pattern)
            }
            "grammar" => {
                self.only(value, &["grammar"])?;
                self.rules_of(ebnf::read(self.text(value, "grammar")?, "root")?)
            }
            "lark" => {
                self.only(value, &["grammar"])?;
                self.rules_of(lark::read(self.text(value, "grammar")?, "start")?)
            }
            "token" => {
                self.only(value, &["token"])?;
                self.token(value)?
            }
            "exclude_token" => {
                self.only(value, &["exclude_tokens"])?;
                self.any_token(self.tokens(value, "exclude_tokens")?, ends)
            }
            "any_tokens" => {
                self.only(value, &["exclude_tokens", "max_tokens"])?;
                let most = self.count(value, "max_tokens")?.unwrap_or(UNBOUNDED);
                let any = self.any_token(self.tokens(value, "exclude_tokens")?, ends);
                Expr::Repeat(Box::new(any), 0, most)
            }
            "sequence" => {
                self.only(value, &["elements"])?;
                Expr::Sequence(self.all(value, "elements", ends)?)
            }
            "or" => {
                self.only(value, &["elements"])?;
                Expr::Choice(self.all(value, "elements", ends)?)
            }
            kind @ ("optional" | "star" | "plus") => {
                self.only(value, &["content"])?;
                let least = u32::from(kind == "plus");
                let most = if kind == "optional" { 1 } else { UNBOUNDED };
                let content = content(self)?;
                self.repeat(content, least, most)
            }
            "repeat" => {
                self.only(value, &["content", "min", "max"])?;
                let bound = |key: &str| value.get(key).and_then(Value::as_i64);
                let (Some(min), Some(max)) = (bound("min"), bound("max")) else {
                    return Err(self.error("min and max must be whole numbers"));
                };
                let most = if max == -1 { Ok(UNBOUNDED) } else { u32::try_from(max) };
                let (Ok(least), Ok(most)) = (u32::try_from(min), most) else {
                    return Err(self.error("min must be 0 or more, and max as well or -1"));
                };
                if least > most {
                    return Err(self.error("min is more than max"));
                }
                let content = content(self)?;
                self.repeat(content, least, most)
            }
            "tag" => self.tag(value)?,
            "triggered_tags" => self.triggered(value, "tags")?,
            "token_triggered_tags" => self.token_triggered(value)?,
            "tags_with_separator" => self.separated(value)?,
            "dispatch" => self.dispatch(value, ends)?,
            "token_dispatch" => self.token_dispatch(value, ends)?,
            other => return Err(self.error(format!("the format {other:?} is not supported"))),
        })
    }

    fn repeat(&mut self, content: Expr, least: u32, most: u32) -> Expr {
        let rule = self.rules.add(content);
        Expr::Repeat(Box::new(Expr::Rule(rule)), least, most)
    }

    fn rules_of(&mut self, grammar: Grammar) -> Expr {
        self.rules.import(grammar)
    }

    fn json_schema(&mut self, value: &Value, ends: &Ends) -> Result<Expr, Error> {
        self.only(value, &["json_schema", "schema", "style", "any_order", "max_whitespace_cnt", "excludes"])?;
        let key = if value.get("json_schema").is_some() { "json_schema" } else { "schema" };
        let excludes = self.optional_texts(value, "excludes")?;
        if let Some(style) = value.get("style").filter(|style| !style.is_null() && *style != "json") {
            if self.flag(value, "any_order")? {
                return Err(self.error("any_order is not supported beside a style"));
            }
            let mut without = ends.texts.clone();
            without.extend(excludes);
            return self.styled(value, key, style.as_str().unwrap_or_default(), &Ends::texts(without));
        }
        if !excludes.is_empty() {
            return Err(self.error("excludes inside a JSON Schema are not supported"));
        }
        let space = self.count(value, "max_whitespace_cnt")?.unwrap_or(self.space);
        let schema_order = value.get("any_order").is_some_and(|any| any == &Value::Bool(false));
        self.flag(value, "any_order")?;
        let Some(schema) = value.get(key) else { return Err(self.error("json_schema is missing")) };
        self.at(key, |r| r.schema(schema, space, schema_order))
    }

    /// Arguments in an XML dialect.
    fn styled(&mut self, value: &Value, key: &str, style: &str, ends: &Ends) -> Result<Expr, Error> {
        let Some(style) = xml::style(style) else {
            return Err(self.error(format!("the style {style:?} is not supported")));
        };
        let Some(schema) = value.get(key) else { return Err(self.error("json_schema is missing")) };
        self.at(key, |r| r.xml(schema, &style, ends))
    }

    fn schema(&mut self, schema: &Value, space: u32, schema_order: bool) -> Result<Expr, Error> {
        let options = Options { space, schema_order, format: Format::Assert, resources: Vec::new() };
        // No schema at all is no condition: engines pass tools without parameters so.
        let text = if schema.is_null() { "true".to_owned() } else { schema.to_string() };
        let inner = json_schema::read(&text, &options).map_err(|error| self.inside(error))?;
        Ok(self.rules.import(inner))
    }

    /// An error inside a schema, at its place in the whole.
    fn inside(&self, error: Error) -> Error {
        let place = self.place();
        let joined = |inner: &str| format!("{place}{inner}");
        match error {
            Error::Grammar(e) => {
                let json_pointer = e.json_pointer.as_deref().map(joined);
                GrammarError { json_pointer, ..e }.into()
            }
            Error::UnsupportedKeyword(e) => {
                UnsupportedKeywordError { json_pointer: joined(&e.json_pointer), ..e }.into()
            }
            Error::Unsatisfiable(e) => {
                UnsatisfiableError { json_pointer: Some(joined(e.json_pointer.as_deref().unwrap_or(""))) }
                    .into()
            }
            other => other,
        }
    }

    /// A text. Parts of it that look like the name of a special token may be that token: where a tag is written out,
    /// it is meant, and models write it so.
    fn literal(&mut self, text: &str) -> Expr {
        let mut parts = Vec::new();
        let mut from = 0;
        for (start, end) in token_names(text) {
            let name = text[start..end].to_owned();
            let token = self.rules.add_node(Node::Special(vec![SpecialToken::Spelled(name)]));
            parts.push(Expr::Regular(Regex::literal(&text[from..start])));
            let spelled = Expr::Regular(Regex::literal(&text[start..end]));
            parts.push(Expr::Choice(vec![spelled, Expr::Node(token)]));
            from = end;
        }
        parts.push(Expr::Regular(Regex::literal(&text[from..])));
        if parts.len() == 1 {
            parts.swap_remove(0)
        } else {
            Expr::Sequence(parts)
        }
    }

    fn token_name(&self, value: Option<&Value>) -> Result<SpecialToken, Error> {
        match value {
            Some(Value::String(name)) => Ok(SpecialToken::Name(name.clone())),
            Some(Value::Number(id)) => match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => Ok(SpecialToken::Ids(id, id)),
                None => Err(self.error("a token must be a name or an id")),
            },
            _ => Err(self.error("a token must be a name or an id")),
        }
    }

    fn tokens(&self, value: &Value, key: &str) -> Result<Vec<SpecialToken>, Error> {
        match value.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|item| self.token_name(Some(item))).collect(),
            Some(_) => Err(self.error(format!("{key} must be a list"))),
        }
    }

    fn token(&mut self, value: &Value) -> Result<Expr, Error> {
        let token = self.token_name(value.get("token"))?;
        Ok(Expr::Node(self.rules.add_node(Node::Special(vec![token]))))
    }

    /// Any token but some.
    fn any_token(&mut self, mut without: Vec<SpecialToken>, ends: &Ends) -> Expr {
        without.extend(ends.tokens.iter().cloned());
        Expr::Node(self.rules.add_node(Node::Special(vec![SpecialToken::AllBut(without)])))
    }

    /// The text or token at one end of a tag.
    fn edge(&mut self, value: &Value, key: &str) -> Result<(Expr, Ends), Error> {
        match value.get(key) {
            Some(Value::String(text)) => Ok((self.literal(text), Ends::texts(vec![text.clone()]))),
            Some(Value::Array(_)) => {
                let texts = self.texts(value, key)?;
                let parts = texts.iter().map(|text| self.literal(text)).collect();
                Ok((Expr::Choice(parts), Ends::texts(texts)))
            }
            Some(token @ Value::Object(_)) => self.at(key, |r| {
                r.only(token, &["token"])?;
                let name = r.token_name(token.get("token"))?;
                Ok((r.token(token)?, Ends { tokens: vec![name], ..Ends::default() }))
            }),
            _ => Err(self.error(format!("{key} must be a string"))),
        }
    }

    fn tag(&mut self, value: &Value) -> Result<Expr, Error> {
        self.only(value, &["begin", "content", "schema", "end"])?;
        let (begin, _) = self.edge(value, "begin")?;
        let (end, ends) = self.edge(value, "end")?;
        let content = match (value.get("content"), value.get("schema")) {
            (Some(content), _) => self.at("content", |r| r.format(content, &ends))?,
            (None, Some(schema)) => {
                // What engines passed before formats had a type; the schema may be JSON text.
                let parsed = schema.as_str().map(serde_json::from_str);
                let schema = match parsed {
                    None => schema.clone(),
                    Some(Ok(schema)) => schema,
                    Some(Err(error)) => return Err(self.error(format!("schema is not JSON: {error}"))),
                };
                self.at("schema", |r| r.schema(&schema, r.space, false))?
            }
            (None, None) => return Err(self.error("content is missing")),
        };
        let rule = self.rules.add(Expr::Sequence(vec![begin, content, end]));
        Ok(Expr::Rule(rule))
    }

    /// Free parts with something between them, as `at_least_one` and `stop_after_first` say.
    fn among(&mut self, value: &Value, free: Expr, tags: Vec<Expr>) -> Result<Expr, Error> {
        let tag = Expr::Rule(self.rules.add(Expr::Choice(tags)));
        let least = u32::from(self.flag(value, "at_least_one")?);
        let again = Expr::Sequence(vec![free.clone(), tag]);
        if self.flag(value, "stop_after_first")? {
            return Ok(if least == 1 { again } else { Expr::Choice(vec![again, free]) });
        }
        Ok(Expr::Sequence(vec![Expr::Repeat(Box::new(again), least, UNBOUNDED), free]))
    }

    fn triggered(&mut self, value: &Value, key: &str) -> Result<Expr, Error> {
        self.only(value, &[key, "triggers", "excludes", "at_least_one", "stop_after_first"])?;
        let mut triggers = self.texts(value, "triggers")?;
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
        triggers.extend(self.optional_texts(value, "excludes")?);
        self.among(value, Expr::Regular(free_text(&triggers)), tags)
    }

    fn token_triggered(&mut self, value: &Value) -> Result<Expr, Error> {
        self.only(value, &["tags", "trigger_tokens", "exclude_tokens", "at_least_one", "stop_after_first"])?;
        let mut triggers = self.tokens(value, "trigger_tokens")?;
        let mut tags = Vec::new();
        for (i, tag) in self.list(value, "tags")?.iter().enumerate() {
            let found = self.at(&format!("tags/{i}"), |r| {
                let begin = r.token_name(tag.get("begin").and_then(|begin| begin.get("token")))?;
                if !triggers.contains(&begin) {
                    return Err(r.error("no trigger begins this tag"));
                }
                r.tag(tag)
            })?;
            tags.push(found);
        }
        triggers.extend(self.tokens(value, "exclude_tokens")?);
        let any = self.any_token(triggers, &Ends::default());
        self.among(value, Expr::Repeat(Box::new(any), 0, UNBOUNDED), tags)
    }

    fn separated(&mut self, value: &Value) -> Result<Expr, Error> {
        self.only(value, &["tags", "separator", "at_least_one", "stop_after_first"])?;
        let tags = self.all(value, "tags", &Ends::default())?;
        let separator = self.literal(self.text(value, "separator")?);
        let tag = Expr::Rule(self.rules.add(Expr::Choice(tags)));
        let mut list = tag.clone();
        if !self.flag(value, "stop_after_first")? {
            let more = Expr::Sequence(vec![separator, tag.clone()]);
            list = Expr::Sequence(vec![tag, Expr::Repeat(Box::new(more), 0, UNBOUNDED)]);
        }
        Ok(if self.flag(value, "at_least_one")? { list } else { Expr::Choice(vec![Expr::empty(), list]) })
    }

    /// The pairs of a pattern or token and the format behind it.
    fn pairs<'v>(&self, value: &'v Value) -> Result<Vec<(&'v Value, &'v Value)>, Error> {
        let pair = |rule: &'v Value| match rule.as_array().map(Vec::as_slice) {
            Some([pattern, format]) => Ok((pattern, format)),
            _ => Err(self.error("each rule must be a pair")),
        };
        self.list(value, "rules")?.iter().map(pair).collect()
    }

    /// Free parts with what is dispatched between them; once only, unless `loop`.
    fn dispatched(&mut self, value: &Value, free: Expr, rules: Vec<Expr>) -> Result<Expr, Error> {
        let once = matches!(value.get("loop"), Some(Value::Bool(false)));
        if !once {
            self.flag(value, "loop")?;
        }
        let rule = Expr::Rule(self.rules.add(Expr::Choice(rules)));
        let again = Expr::Sequence(vec![free.clone(), rule]);
        Ok(if once {
            Expr::Choice(vec![again, free])
        } else {
            Expr::Sequence(vec![Expr::Repeat(Box::new(again), 0, UNBOUNDED), free])
        })
    }

    fn dispatch(&mut self, value: &Value, ends: &Ends) -> Result<Expr, Error> {
        self.only(value, &["rules", "loop", "excludes"])?;
        let mut without = ends.texts.clone();
        let mut rules = Vec::new();
        for (i, (pattern, format)) in self.pairs(value)?.into_iter().enumerate() {
            let found = self.at(&format!("rules/{i}"), |r| match pattern.as_str() {
                Some(text) if !text.is_empty() => {
                    without.push(text.to_owned());
                    Ok(Expr::Sequence(vec![r.literal(text), r.at("1", |r| r.format(format, ends))?]))
                }
                _ => Err(r.error("a pattern must be a string that is not empty")),
            })?;
            rules.push(found);
        }
        without.extend(self.optional_texts(value, "excludes")?);
        self.dispatched(value, Expr::Regular(free_text(&without)), rules)
    }

    fn token_dispatch(&mut self, value: &Value, ends: &Ends) -> Result<Expr, Error> {
        self.only(value, &["rules", "loop", "exclude_tokens"])?;
        let mut without = Vec::new();
        let mut rules = Vec::new();
        for (i, (token, format)) in self.pairs(value)?.into_iter().enumerate() {
            let found = self.at(&format!("rules/{i}"), |r| {
                let token = r.token_name(Some(token))?;
                without.push(token.clone());
                let first = Expr::Node(r.rules.add_node(Node::Special(vec![token])));
                Ok(Expr::Sequence(vec![first, r.at("1", |r| r.format(format, ends))?]))
            })?;
            rules.push(found);
        }
        without.extend(self.tokens(value, "exclude_tokens")?);
        let any = self.any_token(without, ends);
        self.dispatched(value, Expr::Repeat(Box::new(any), 0, UNBOUNDED), rules)
    }
}

/// What ends the tag that a format stands in.
#[derive(Default)]
struct Ends {
    texts: Vec<String>,
    tokens: Vec<SpecialToken>,
}

impl Ends {
    fn texts(texts: Vec<String>) -> Self {
        Self { texts: texts.into_iter().filter(|text| !text.is_empty()).collect(), tokens: Vec::new() }
    }
}

fn kind(value: &Value) -> &str {
    value.get("type").and_then(Value::as_str).unwrap_or("a tag")
}

/// Where a text has what looks like the name of a special token: `<name>`, `</name>`, `<|name|>`, `[NAME]`, and with
/// the wide bars that some models use.
fn token_names(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find(['<', '[']).map(|i| i + from) {
        let close = if text[start..].starts_with('<') { '>' } else { ']' };
        let rest = &text[start + 1..];
        let Some(length) = rest.find(['<', '[', '>', ']']).filter(|&i| rest[i..].starts_with(close)) else {
            from = start + 1;
            continue;
        };
        let inner = &rest[..length];
        let end = start + length + 2;
        let barred = ['|', '\u{ff5c}'].iter().any(|&bar| inner.starts_with(bar) && inner.ends_with(bar));
        let word = inner.strip_prefix('/').unwrap_or(inner);
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let named = !word.is_empty() && word.chars().all(plain);
        let upper = named && !inner.chars().any(char::is_lowercase);
        if close == '>' && (barred || named) || close == ']' && upper {
            found.push((start, end));
        }
        from = end;
    }
    found
}

fn any_text(most: Option<u32>) -> Regex {
    Regex::Repeat(Box::new(Regex::Class(CharSet::all())), 0, most)
}

/// Texts in which none of some texts occurs.
fn free_text(without: &[String]) -> Regex {
    let any = any_text(None);
    if without.is_empty() {
        return any;
    }
    let words = Regex::Alternation(without.iter().map(|text| Regex::literal(text)).collect());
    Regex::Not(Box::new(Regex::Concat(vec![any.clone(), words, any])))
}

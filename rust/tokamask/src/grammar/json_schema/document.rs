//! The documents of a schema: where `$ref` leads, and the pointer of every place for errors.

use rustc_hash::FxHashMap;

use crate::error::{Error, GrammarError};
use crate::grammar::json::Json;

/// The identity of a place in a document.
pub fn address(json: &Json) -> usize {
    std::ptr::from_ref(json) as usize
}

/// The root document and those given beside it.
pub struct Documents<'a> {
    /// Base URI and root of each resource; the first is the document itself.
    resources: Vec<(String, &'a Json)>,
    by_uri: FxHashMap<String, u32>,
    by_root: FxHashMap<usize, u32>,
    /// (resource, anchor) to place; the flag marks dynamic anchors.
    anchors: FxHashMap<(u32, String), (&'a Json, bool)>,
    /// `$ref` hides its neighbours, as it did up to draft 7.
    pub lone_ref: bool,
    /// An integer has no fraction, not even of zeros, as it was up to draft 5.
    pub bare_integers: bool,
    /// Some `$dynamicAnchor` or `$recursiveAnchor` exists.
    pub dynamic: bool,
}

impl<'a> Documents<'a> {
    /// Finds the resources and anchors.
    pub fn new(root: &'a Json, others: &'a [(String, Json)]) -> Self {
        let mut documents = Self {
            resources: Vec::new(),
            by_uri: FxHashMap::default(),
            by_root: FxHashMap::default(),
            anchors: FxHashMap::default(),
            lone_ref: false,
            bare_integers: false,
            dynamic: false,
        };
        let dialect = root.get("$schema").and_then(Json::text).unwrap_or_default();
        documents.bare_integers = ["draft-03", "draft-04", "draft-05"].iter().any(|d| dialect.contains(d));
        documents.lone_ref =
            documents.bare_integers || ["draft-06", "draft-07"].iter().any(|d| dialect.contains(d));
        documents.enter(String::new(), root);
        documents.index(root, 0, "", true);
        for (uri, json) in others {
            let resource = documents.enter(uri.trim_end_matches('#').to_owned(), json);
            documents.index(json, resource, uri, true);
        }
        documents
    }

    fn enter(&mut self, uri: String, root: &'a Json) -> u32 {
        let resource = self.resources.len() as u32;
        self.by_uri.entry(uri.clone()).or_insert(resource);
        self.by_root.entry(address(root)).or_insert(resource);
        self.resources.push((uri, root));
        resource
    }

    fn index(&mut self, json: &'a Json, mut resource: u32, base: &str, top: bool) {
        let mut base = base.to_owned();
        let members = json.members();
        let id = json.get("$id").or_else(|| json.get("id")).and_then(Json::text);
        if let Some(id) = id.filter(|_| !(self.lone_ref && json.get("$ref").is_some())) {
            if let (Some(anchor), true) = (id.strip_prefix('#'), self.lone_ref) {
                self.anchors.insert((resource, anchor.to_owned()), (json, false));
            } else if !id.starts_with('#') {
                let uri = resolve(&base, id);
                let uri = uri.split('#').next().unwrap_or_default().to_owned();
                base.clone_from(&uri);
                if top {
                    self.by_uri.insert(uri.clone(), resource);
                    self.resources[resource as usize].0 = uri;
                } else {
                    resource = self.enter(uri, json);
                }
            }
        }
        for (keyword, dynamic) in [("$anchor", false), ("$dynamicAnchor", true)] {
            if let Some(name) = json.get(keyword).and_then(Json::text) {
                self.anchors.insert((resource, name.to_owned()), (json, dynamic));
                self.dynamic |= dynamic;
            }
        }
        for (keyword, value) in members {
            match keyword.as_str() {
                "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas"
                | "dependencies" => {
                    value.members().iter().for_each(|m| self.index(&m.1, resource, &base, false));
                }
                "allOf"
                | "anyOf"
                | "oneOf"
                | "prefixItems"
                | "items"
                | "additionalItems"
                | "not"
                | "if"
                | "then"
                | "else"
                | "contains"
                | "propertyNames"
                | "additionalProperties"
                | "unevaluatedItems"
                | "unevaluatedProperties" => match value {
                    Json::Array(items) => {
                        for item in items {
                            self.index(item, resource, &base, false);
                        }
                    }
                    _ => self.index(value, resource, &base, false),
                },
                _ => {}
            }
        }
    }

    /// The resource that a schema begins, or the one it stands in.
    pub fn resource_of(&self, json: &Json, base: u32) -> u32 {
        if self.by_root.len() == 1 {
            return base;
        }
        self.by_root.get(&address(json)).copied().unwrap_or(base)
    }

    /// Follows a reference from a resource: the place and its resource.
    pub fn follow(&self, reference: &str, base: u32) -> Option<(&'a Json, u32)> {
        let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let resource = if uri.is_empty() {
            base
        } else {
            let absolute = resolve(&self.resources[base as usize].0, uri);
            *self.by_uri.get(&absolute).or_else(|| self.by_uri.get(uri))?
        };
        let fragment = percent_decode(fragment);
        if fragment.is_empty() {
            return Some((self.resources[resource as usize].1, resource));
        }
        if !fragment.starts_with('/') {
            return self.anchors.get(&(resource, fragment)).map(|a| (a.0, resource));
        }
        let mut at = self.resources[resource as usize].1;
        let mut inside = resource;
        for part in fragment.split('/').skip(1) {
            let part = part.replace("~1", "/").replace("~0", "~");
            at = match at {
                Json::Array(items) => items.get(part.parse::<usize>().ok()?)?,
                _ => at.get(&part)?,
            };
            inside = self.resource_of(at, inside);
        }
        Some((at, inside))
    }

    /// The dynamic anchor of a resource.
    pub fn dynamic_anchor(&self, resource: u32, name: &str) -> Option<&'a Json> {
        self.anchors.get(&(resource, name.to_owned())).filter(|a| a.1).map(|a| a.0)
    }

    /// The JSON pointer of a place; places in other documents carry their URI in front.
    pub fn pointer(&self, json: &Json) -> String {
        let mut done = Vec::new();
        for (uri, root) in &self.resources {
            if done.contains(&address(root)) {
                continue;
            }
            done.push(address(root));
            let mut path = Vec::new();
            if find(root, address(json), &mut path) {
                let mut place = String::new();
                for part in path.iter().rev() {
                    place.push('/');
                    place.push_str(&part.replace('~', "~0").replace('/', "~1"));
                }
                let first = address(root) == address(self.resources[0].1);
                return if first { place } else { format!("{uri}#{place}") };
            }
        }
        String::new()
    }

    /// An error at a keyword of a schema.
    pub fn error(&self, message: impl Into<String>, schema: &Json, keyword: &str) -> Error {
        let keyword = keyword.replace('~', "~0").replace('/', "~1");
        let pointer = self.pointer(schema);
        let pointer = if keyword.is_empty() { pointer } else { format!("{pointer}/{keyword}") };
        GrammarError::at_pointer(message, pointer).into()
    }
}

fn find(at: &Json, wanted: usize, path: &mut Vec<String>) -> bool {
    if address(at) == wanted {
        return true;
    }
    let found = match at {
        Json::Array(items) => {
            items.iter().enumerate().find(|(_, i)| find(i, wanted, path)).map(|(i, _)| i.to_string())
        }
        Json::Object(members) => members.iter().find(|m| find(&m.1, wanted, path)).map(|m| m.0.clone()),
        _ => None,
    };
    let hit = found.is_some();
    path.extend(found);
    hit
}

/// A reference against a base URI (RFC 3986, without the rare corners).
fn resolve(base: &str, reference: &str) -> String {
    if reference.contains("://") || reference.starts_with("urn:") || base.is_empty() {
        return reference.trim_end_matches('#').to_owned();
    }
    if reference.is_empty() {
        return base.to_owned();
    }
    let authority = base.find("://").map_or(0, |i| i + 3);
    let path_start = base[authority..].find('/').map_or(base.len(), |i| authority + i);
    if reference.starts_with('/') {
        return format!("{}{reference}", &base[..path_start]);
    }
    let folder = base.rfind('/').filter(|&i| i >= path_start).map_or(path_start, |i| i + 1);
    let mut parts: Vec<&str> = base[path_start..folder].split('/').collect();
    parts.pop();
    for part in reference.split('/') {
        match part {
            ".." if parts.len() > 1 => {
                parts.pop();
            }
            "." | ".." => {}
            _ => parts.push(part),
        }
    }
    let path = parts.join("/");
    let slash = if path.starts_with('/') || path_start == 0 { "" } else { "/" };
    format!("{}{slash}{path}", &base[..path_start])
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let code = (bytes[i] == b'%').then(|| text.get(i + 1..i + 3)).flatten();
        if let Some(byte) = code.and_then(|c| u8::from_str_radix(c, 16).ok()) {
            out.push(byte);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

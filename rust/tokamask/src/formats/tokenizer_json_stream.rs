//! The large members of a tokenizer.json, vocabulary and merges, read as they stand in the file, without a tree.
//!
//! This reader takes what every writer of such files writes and gives up on anything else, faulty files
//! included: they are then read as a tree, which names what is wrong and where.

use serde_json::{Map, Value};

use super::spellings::SpellingTable;
use crate::bpe::{MAX_SYMBOLS, NONE};

/// A file whose model has lost `vocab` and `merges`, and what they held.
pub struct Streamed {
    /// The file without the two.
    pub file: Value,
    /// Spellings and ids.
    pub vocab: SpellingTable,
    /// Pairs of ids.
    pub merges: Vec<(u32, u32)>,
}

/// Merges whose halves are looked up together.
const BATCH: usize = 64;

/// Reads a file with a byte-pair model; `None` where there is anything unusual.
pub fn read(data: &[u8]) -> Option<Streamed> {
    let text = std::str::from_utf8(data).ok()?;
    let mut scanner = Scanner { text, at: 0 };
    let (mut file, mut model) = (Map::new(), None);
    scanner.members(|scanner, name| {
        if name == "model" {
            let read = scanner.model()?;
            return model.replace(read).is_none().then_some(());
        }
        file.insert(name.to_owned(), scanner.tree()?).is_none().then_some(())
    })?;
    scanner.space();
    let (members, vocab, merges) = model?;
    file.insert("model".to_owned(), Value::Object(members));
    (scanner.at == text.len()).then_some(Streamed { file: Value::Object(file), vocab, merges })
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    #[inline]
    fn byte(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Takes one byte behind white space.
    #[inline]
    fn take(&mut self, byte: u8) -> Option<()> {
        self.space();
        (self.byte() == byte).then(|| self.at += 1)
    }

    /// Where a string's content ends, and whether it has escapes.
    #[inline]
    fn string_end(&self) -> Option<(usize, bool)> {
        let (bytes, mut at, mut escapes) = (self.text.as_bytes(), self.at, false);
        loop {
            match *bytes.get(at)? {
                b'"' => return Some((at, escapes)),
                b'\\' => {
                    escapes = true;
                    at += 2;
                }
                0..0x20 => return None,
                _ => at += 1,
            }
        }
    }

    /// A string; with escapes it is written to `own`.
    #[inline]
    fn string<'b>(&mut self, own: &'b mut String) -> Option<&'b str>
    where
        'a: 'b,
    {
        self.take(b'"')?;
        let (end, escapes) = self.string_end()?;
        let (start, content) = (self.at, &self.text[self.at..end]);
        self.at = end + 1;
        if !escapes {
            return Some(content);
        }
        *own = serde_json::from_str(&self.text[start - 1..=end]).ok()?;
        Some(own)
    }

    /// A whole number without sign, fraction or exponent.
    #[inline]
    fn number(&mut self) -> Option<u32> {
        self.space();
        let start = self.at;
        let mut number = 0usize;
        while self.byte().is_ascii_digit() {
            number = number * 10 + usize::from(self.byte() - b'0');
            self.at += 1;
            if number >= MAX_SYMBOLS {
                return None;
            }
        }
        let zeros = self.at > start + 1 && self.text.as_bytes()[start] == b'0';
        (self.at > start && !zeros).then_some(number as u32)
    }

    /// What separates the items of a list or an object: true if another follows.
    #[inline]
    fn another(&mut self, end: u8) -> Option<bool> {
        self.space();
        let byte = self.byte();
        self.at += 1;
        (byte == b',' || byte == end).then_some(byte == b',')
    }

    /// The members of an object, each read by `member`.
    fn members(&mut self, mut member: impl FnMut(&mut Self, &str) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        let mut own = String::new();
        loop {
            let name = self.string(&mut own)?;
            self.take(b':')?;
            member(self, name)?;
            if !self.another(b'}')? {
                return Some(());
            }
        }
    }

    /// A value of any kind, as a tree.
    fn tree(&mut self) -> Option<Value> {
        let mut values = serde_json::Deserializer::from_str(&self.text[self.at..]).into_iter();
        let value = values.next()?.ok()?;
        self.at += values.byte_offset();
        Some(value)
    }

    #[allow(clippy::type_complexity)]
    fn model(&mut self) -> Option<(Map<String, Value>, SpellingTable, Vec<(u32, u32)>)> {
        let (mut model, mut vocab, mut merges) = (Map::new(), None, None);
        self.members(|scanner, name| match name {
            "vocab" => vocab.replace(scanner.vocab()?).is_none().then_some(()),
            "merges" => merges.replace(scanner.merges(vocab.as_ref()?)?).is_none().then_some(()),
            _ => model.insert(name.to_owned(), scanner.tree()?).is_none().then_some(()),
        })?;
        let bpe = match model.get("type") {
            None | Some(Value::Null) => true,
            Some(name) => name == "BPE",
        };
        Some((model, vocab.filter(|_| bpe)?, merges?))
    }

    fn vocab(&mut self) -> Option<SpellingTable> {
        let left = self.text.len() - self.at;
        // A member takes some twelve bytes and more, and a merge takes about as much again.
        let mut table = SpellingTable::new(0, left / 2);
        let (mut own, mut given) = (String::new(), Vec::with_capacity(left / 40));
        self.take(b'{')?;
        loop {
            let spelling = self.string(&mut own)?;
            self.take(b':')?;
            let id = self.number()?;
            if given.len() <= id as usize {
                given.resize(id as usize + 1, false);
            }
            // Read as a tree, the last of equal names would stand; an id given twice is an error.
            if std::mem::replace(&mut given[id as usize], true) {
                return None;
            }
            table.push(spelling, id);
            if !self.another(b'}')? {
                return table.index().then_some(table);
            }
        }
    }

    fn merges(&mut self, vocab: &SpellingTable) -> Option<Vec<(u32, u32)>> {
        let mut merges = Vec::with_capacity(vocab.count());
        self.take(b'[')?;
        self.space();
        if self.byte() == b']' {
            self.at += 1;
            return Some(merges);
        }
        let (mut owns, mut more) = (vec![[String::new(), String::new()]; BATCH], true);
        while more {
            // The slots of a batch are asked for together, so that their latencies overlap.
            let mut halves: [(&[u8], u64); 2 * BATCH] = [(&[], 0); 2 * BATCH];
            let mut count = 0;
            for own in &mut owns {
                let (left, right) = self.merge(own)?;
                for half in [left, right] {
                    let hash = vocab.hash(half.as_bytes());
                    vocab.prefetch(hash);
                    halves[count] = (half.as_bytes(), hash);
                    count += 1;
                }
                more = self.another(b']')?;
                if !more {
                    break;
                }
            }
            for pair in halves[..count].chunks_exact(2) {
                let ids = [pair[0], pair[1]].map(|(half, hash)| vocab.get_hashed(half, hash));
                if ids.contains(&NONE) {
                    return None;
                }
                merges.push((ids[0], ids[1]));
            }
        }
        Some(merges)
    }

    /// Two texts in a list, or in one string with a space between.
    #[inline]
    fn merge<'b>(&mut self, own: &'b mut [String; 2]) -> Option<(&'b str, &'b str)>
    where
        'a: 'b,
    {
        let [first, second] = own;
        self.space();
        if self.byte() == b'"' {
            return self.string(first)?.split_once(' ').filter(|(_, right)| !right.contains(' '));
        }
        self.take(b'[')?;
        let left = self.string(first)?;
        self.take(b',')?;
        let right = self.string(second)?;
        self.take(b']')?;
        Some((left, right))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{tekken, tokenizer_json};
    use super::*;
    use proptest::prelude::*;

    /// Files as writers differ in them, some of them broken.
    fn file() -> impl Strategy<Value = String> {
        let spelling =
            prop::sample::select(vec!["a", "b", "ab", "\"", "\\", "\n", "Ġ", "Ġa", "é", " ", "abab", "😀"]);
        let vocab = prop::collection::vec((spelling.clone(), 0u32..14), 0..9);
        let merges = prop::collection::vec((spelling.clone(), spelling), 0..5);
        let form = (
            0usize..4,
            0usize..3,
            prop::option::of((
                any::<prop::sample::Index>(),
                prop::sample::select(b"\"\\{}[],:01 x".to_vec()),
            )),
        );
        (vocab, merges, form).prop_map(|(vocab, merges, (form, kind, damage))| {
            let quote = |text: &str| if form & 1 == 0 { Value::from(text).to_string() } else { escaped(text) };
            let vocab: Vec<String> = vocab.iter().map(|(t, id)| format!("{}:{id}", quote(t))).collect();
            let merges: Vec<String> = merges
                .iter()
                .map(|(l, r)| if form & 2 == 0 { format!("[{}, {}]", quote(l), quote(r)) } else { quote(&format!("{l} {r}")) })
                .collect();
            let kind = ["", "\"type\": \"BPE\",", "\"type\": null,"][kind];
            let mut text = format!(
                "{{\"version\": \"1.0\", \"added_tokens\": [],\n\"model\": {{{kind} \"dropout\": null, \"vocab\": {{{}}},\n \"merges\": [{}]}}}}\n",
                vocab.join(","), merges.join(" , ")
            );
            if let Some((at, byte)) = damage {
                let mut bytes = text.into_bytes();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            text
        })
    }

    fn escaped(text: &str) -> String {
        let mut units = [0; 2];
        let codes = text.chars().flat_map(|c| {
            c.encode_utf16(&mut units).iter().map(|u| format!("\\u{u:04x}")).collect::<Vec<_>>()
        });
        format!("\"{}\"", codes.collect::<String>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// What is read without a tree is what the tree says; what is wrong is left to the tree.
        #[test]
        fn streamed_as_the_tree(text in file()) {
            let tree = serde_json::from_str::<Value>(&text).ok();
            let plain = tree.as_ref().map(|file| tokenizer_json::read(file, None));
            if let Some(streamed) = read(text.as_bytes()) {
                prop_assert!(!tekken::looks_like(&streamed.file));
                let large = Some((streamed.vocab, streamed.merges));
                let ours = tokenizer_json::read(&streamed.file, large);
                match (ours, plain) {
                    (Ok(ours), Some(Ok(plain))) => prop_assert_eq!(ours, plain, "{}", text),
                    (Err(ours), Some(Err(plain))) => prop_assert_eq!(ours.to_string(), plain.to_string(), "{}", text),
                    (ours, plain) => prop_assert!(false, "{:?} {:?} {}", ours, plain, text),
                }
            } else if let Some(Ok(_)) = plain {
                // Only what writers do not write: no members, equal names, members in another order.
                let unusual = text.contains("{}") || text.contains("{ }") || tree.is_some();
                prop_assert!(unusual);
            }
        }
    }

    #[test]
    fn what_writers_write_is_streamed() {
        for merges in ["[\"a b\"]", "[[\"a\", \"b\"]]", "[]"] {
            let text = format!("{{\"model\": {{\"type\": \"BPE\", \"vocab\": {{\"a\": 0, \"b\": 1, \"ab\": 2, \"\\u0120\": 3}}, \"merges\": {merges}}}}}");
            let streamed = read(text.as_bytes()).expect("an ordinary file");
            assert_eq!(streamed.vocab.get("Ġ"), Some(3));
            assert_eq!(streamed.merges.len(), usize::from(merges != "[]"));
        }
    }
}

//! Ids and bytes that may go on: canonicality, cover encodings, healing, and the law of the next byte.

use rayon::prelude::*;

use super::Tokenizer;
use crate::error::{Error, ShapeError};
use crate::ids::TokenId;
use crate::text::pretokenizer::Step;

impl Tokenizer {
    /// The first place at which `ids` are not the encoding of what they spell; special tokens stand for themselves.
    pub fn first_noncanonical(&self, ids: &[u32]) -> Result<Option<usize>, Error> {
        let special = |id: &u32| self.vocabulary.is_special(TokenId::new(*id));
        let mut start = 0;
        for part in ids.split_inclusive(special) {
            let ordinary =
                part.strip_suffix(&[part[part.len() - 1]]).filter(|_| special(&part[part.len() - 1]));
            let ordinary = ordinary.unwrap_or(part);
            let canonical = self.encode_bytes(&self.decode_bytes(ordinary)?)?;
            let same = ordinary.iter().zip(&canonical).take_while(|(a, b)| a == b).count();
            if same < ordinary.len() || same < canonical.len() {
                return Ok(Some(start + same.min(ordinary.len().saturating_sub(1))));
            }
            start += part.len();
        }
        Ok(None)
    }

    /// All encodings that spell `prefix` and possibly more, and would not without their last id: sequences `t` with
    /// `encode(decode(t)) == t`, in ascending order of ids.
    pub fn cover_encodings(&self, prefix: &[u8]) -> Result<Vec<Vec<u32>>, Error> {
        self.only_bytes("cover encodings")?;
        if prefix.is_empty() {
            return Ok(vec![Vec::new()]);
        }
        let vocabulary = &self.vocabulary;
        // What cannot change any more is encoded once.
        let settled = match std::str::from_utf8(prefix) {
            Ok(text) => self.settled(text),
            Err(error) => self.settled(&String::from_utf8_lossy(&prefix[..error.valid_up_to()])),
        };
        let mut head = self.encode_bytes(prefix)?;
        head.truncate(head.len() - self.encode_bytes(&prefix[settled..])?.len());
        let open = &prefix[settled..];
        let candidates: Vec<(usize, u32)> = (0..open.len())
            .flat_map(|cut| {
                self.prefixes().beginning_with(vocabulary, &open[cut..]).iter().map(move |&id| (cut, id))
            })
            .collect();
        let covers: Vec<Option<Vec<u32>>> = candidates
            .par_iter()
            .with_min_len(256)
            .map(|&(cut, last)| {
                let longer = [&open[..cut], vocabulary.try_bytes(last.into())?].concat();
                let ids = self.encode_bytes(&longer)?;
                Ok((ids.last() == Some(&last)).then(|| [&head[..], &ids].concat()))
            })
            .collect::<Result<_, Error>>()?;
        let mut covers: Vec<Vec<u32>> = covers.into_iter().flatten().collect();
        covers.sort();
        covers.dedup();
        Ok(covers)
    }

    /// How many of `ids` stay whatever is written after them, and the bytes of the rest.
    pub fn heal(&self, ids: &[u32]) -> Result<(usize, Vec<u8>), Error> {
        // After a special token nothing merges with what comes before.
        let special = ids.iter().rposition(|&id| self.vocabulary.is_special(TokenId::new(id)));
        let first = special.map_or(0, |at| at + 1);
        let bytes = self.decode_bytes(&ids[first..])?;
        let covers = self.cover_encodings(&bytes)?;
        let mut kept = ids.len() - first;
        for cover in &covers {
            kept = cover.iter().zip(&ids[first..first + kept]).take_while(|(a, b)| a == b).count();
        }
        if covers.is_empty() || !self.covers_tell() {
            kept = self.encode_bytes(&bytes[..self.settled(&String::from_utf8_lossy(&bytes))])?.len();
        }
        let spelled = self.decode_bytes(&ids[first..first + kept])?.len();
        Ok((first + kept, bytes[spelled..].to_vec()))
    }

    /// True if ids that all covers share cannot change: what a split rule sees beyond them begins some cover. That
    /// is so for rules without look-around, and for these: white space before a word, digits by three.
    fn covers_tell(&self) -> bool {
        self.settings.steps.iter().all(|step| {
            let (Step::Split { pattern, .. } | Step::Matches { pattern }) = step else { return true };
            let known = [r"\s+(?!\S)", r" +(?!\S)", r"(?=(\d{3})+(?!\d))"];
            let rest = known.iter().fold(pattern.clone(), |rest, known| rest.replace(known, ""));
            !["(?=", "(?!", "(?<", r"\b", r"\B"].iter().any(|look| rest.contains(look))
        })
    }

    /// Logarithms of the mass of the tokens that spell `pending` and go on with each byte; the last entry is the mass
    /// of the end of the sequence, which only an empty `pending` leaves possible. Not normalised: tokens that spell
    /// no more than `pending` say nothing about the byte after it.
    pub fn next_byte_logprobs(&self, logprobs: &[f32], pending: &[u8]) -> Result<Vec<f64>, Error> {
        if logprobs.len() < self.vocabulary.len() {
            return Err(ShapeError {
                name: "token_logprobs".into(),
                expected: format!("float32 [{}] or more", self.vocabulary.len()),
                got: format!("[{}]", logprobs.len()),
            }
            .into());
        }
        let top = logprobs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let top = if top.is_finite() { f64::from(top) } else { 0.0 };
        let mass = |id: u32| (f64::from(logprobs[id as usize]) - top).exp();
        let mut sums = vec![0.0; 257];
        for &id in self.prefixes().beginning_with(&self.vocabulary, pending) {
            let bytes = self.vocabulary.bytes(TokenId::new(id)).unwrap_or_default();
            if let Some(&byte) = bytes.get(pending.len()) {
                sums[usize::from(byte)] += mass(id);
            }
        }
        if pending.is_empty() {
            sums[256] = self.vocabulary.eos_ids().iter().map(|id| mass(id.get())).sum();
        }
        Ok(sums.into_iter().map(|sum| sum.ln() + top).collect())
    }
}

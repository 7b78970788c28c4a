//! tiktoken rank files: a base64 token and its rank on each line.

use super::Definition;
use crate::bpe::{Bpe, Merges, NONE};
use crate::error::VocabularyError;
use crate::models::Kind;
use crate::text::base64;

/// True if the first line reads as a token and its rank.
pub fn looks_like(data: &[u8]) -> bool {
    let line = data.split(|&b| b == b'\n').next().unwrap_or_default();
    parse_line(line).is_some()
}

/// Token bytes by rank; ranks that no line has are holes.
pub fn read(data: &[u8]) -> Result<Vec<Option<Vec<u8>>>, VocabularyError> {
    let mut entries = Vec::new();
    for (nth, line) in data.split(|&b| b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let Some((token, rank)) = parse_line(line) else {
            return Err(VocabularyError::new("expected a base64 token and a rank").at_line(nth + 1));
        };
        entries.push((token, rank));
    }
    from_entries(entries)
}

/// Token bytes by rank from pairs in any order.
pub fn from_entries(
    entries: impl IntoIterator<Item = (Vec<u8>, u32)>,
) -> Result<Vec<Option<Vec<u8>>>, VocabularyError> {
    let mut tokens: Vec<Option<Vec<u8>>> = Vec::new();
    for (token, rank) in entries {
        let at = rank as usize;
        if at >= crate::bpe::MAX_SYMBOLS {
            return Err(VocabularyError::new(format!("rank {rank} is too large")));
        }
        if tokens.len() <= at {
            tokens.resize(at + 1, None);
        }
        if tokens[at].replace(token).is_some() {
            return Err(VocabularyError::new(format!("rank {rank} is given twice")));
        }
    }
    Ok(tokens)
}

/// The lines of a tokenizer whose ids are its ranks. Split rule and special tokens have no place in the file.
pub fn write(definition: &Definition) -> Result<Vec<u8>, VocabularyError> {
    let mut file = Vec::new();
    for (rank, token) in ranked(definition)?.iter().enumerate() {
        if let Some(token) = token {
            file.extend(base64::encode(token).into_bytes());
            file.extend(format!(" {rank}\n").into_bytes());
        }
    }
    Ok(file)
}

/// The tokens, if merging by their ids gives what the tokenizer's own merges give.
pub(super) fn ranked(definition: &Definition) -> Result<&[Option<Vec<u8>>], VocabularyError> {
    let Definition { tokens, merges, settings } = definition;
    if settings.model != Kind::Bytes {
        return Err(VocabularyError::new("a model that does not merge bytes has no ranks"));
    }
    let slices: Vec<Option<&[u8]>> = tokens.iter().map(Option::as_deref).collect();
    let by_rank = Bpe::new(&slices, &Merges::Ranks)?;
    if matches!(merges, Merges::List(_)) && Bpe::new(&slices, merges)?.symbols() != by_rank.symbols() {
        return Err(VocabularyError::new("the merges are not those of the tokens in the order of their ids"));
    }
    // Readers of ranks take a piece that is a token for it, whether merging makes it or not.
    let made = |(id, token): (usize, &Option<Vec<u8>>)| token.is_none() || by_rank.symbols[id] != NONE;
    if settings.whole_pieces || tokens.iter().enumerate().all(made) {
        Ok(tokens)
    } else {
        Err(VocabularyError::new("some token is never made by merging, which ranks cannot say"))
    }
}

fn parse_line(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let cut = line.iter().position(|&b| b == b' ')?;
    let rank = std::str::from_utf8(&line[cut + 1..]).ok()?.trim().parse().ok()?;
    Some((base64::decode(&line[..cut])?, rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes = (0..=255u8).map(|byte| Some(vec![byte]));
        let words = [Some(b"ab".to_vec()), None, Some(b"abc".to_vec())];
        let settings = crate::formats::Settings::tiktoken("(?s:.+)", Vec::new());
        let tokens: Vec<_> = bytes.chain(words).collect();
        let mut definition = Definition { tokens, merges: Merges::Ranks, settings };
        assert_eq!(read(&write(&definition).expect("ranks")).expect("lines"), definition.tokens);
        let pair = u32::from(b'a');
        definition.merges = Merges::List(vec![(pair, pair + 1), (256, pair + 2)]);
        assert_eq!(read(&write(&definition).expect("the same order")).expect("lines"), definition.tokens);
        definition.merges = Merges::List(vec![(pair + 1, pair + 2), (pair, 258)]);
        assert!(write(&definition).is_err());
    }

    #[test]
    fn lines_are_read_and_errors_name_them() {
        let tokens = read(b"YQ== 0\nYWI= 1\n\nIQ== 3\n").expect("valid");
        assert_eq!(tokens, [Some(b"a".to_vec()), Some(b"ab".to_vec()), None, Some(b"!".to_vec())]);
        assert_eq!(read(b"YQ== 0\nYQ=\xFF 1\n").unwrap_err().line, Some(2));
        assert!(read(b"YQ== 0\nYg== 0\n").is_err());
    }
}

//! tiktoken rank files: a base64 token and its rank on each line.

use crate::error::VocabularyError;
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

fn parse_line(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let cut = line.iter().position(|&b| b == b' ')?;
    let rank = std::str::from_utf8(&line[cut + 1..]).ok()?.trim().parse().ok()?;
    Some((base64::decode(&line[..cut])?, rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_errors_name_them() {
        let tokens = read(b"YQ== 0\nYWI= 1\n\nIQ== 3\n").expect("valid");
        assert_eq!(tokens, [Some(b"a".to_vec()), Some(b"ab".to_vec()), None, Some(b"!".to_vec())]);
        assert_eq!(read(b"YQ== 0\nYQ=\xFF 1\n").unwrap_err().line, Some(2));
        assert!(read(b"YQ== 0\nYg== 0\n").is_err());
    }
}

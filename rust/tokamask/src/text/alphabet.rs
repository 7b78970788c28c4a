//! The printable alphabet in which byte-level files spell bytes.

/// The character that stands for a byte: itself where it is printable, else one from U+0100 on.
pub fn char_of_byte(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let nth = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + nth).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The way back, as a table for U+0000..U+0144.
pub struct ByteOfChar([Option<u8>; 0x144]);

impl Default for ByteOfChar {
    fn default() -> Self {
        let mut table = [None; 0x144];
        for byte in 0..=255 {
            table[char_of_byte(byte) as usize] = Some(byte);
        }
        Self(table)
    }
}

impl ByteOfChar {
    /// The bytes that a word of the alphabet spells; `None` if a character is not of it.
    pub fn bytes(&self, word: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(word.len());
        for c in word.chars() {
            bytes.push(self.0.get(c as usize).copied().flatten()?);
        }
        Some(bytes)
    }
}

/// A byte string in the alphabet.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char_of_byte(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(ByteOfChar::default().bytes(&spell(&all)), Some(all));
        assert_eq!(spell(b"\n a"), "ĊĠa");
        assert_eq!(ByteOfChar::default().bytes("\u{400}"), None);
    }
}

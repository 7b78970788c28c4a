//! Just enough of protocol buffers to read a message, with every length checked.

use crate::error::VocabularyError;

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// A number of variable length.
    Number(u64),
    /// Four bytes.
    Fixed([u8; 4]),
    /// A text, or a message.
    Bytes(&'a [u8]),
    /// Eight bytes, which nobody here asks for.
    Other,
}

impl<'a> Field<'a> {
    /// A number as a truth value.
    pub fn is_true(&self) -> bool {
        matches!(self, Self::Number(number) if *number != 0)
    }

    /// A 32-bit number, negative ones included.
    pub fn int(&self) -> Option<i32> {
        match self {
            Self::Number(number) => i32::try_from(*number as i64).ok(),
            _ => None,
        }
    }

    /// A single-precision number.
    pub fn float(&self) -> Option<f32> {
        match self {
            Self::Fixed(bytes) => Some(f32::from_le_bytes(*bytes)),
            _ => None,
        }
    }

    /// The bytes of a text or message.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message in order, by number.
pub struct Message<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Message<'a> {
    /// A message of these bytes.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    fn broken(&self) -> VocabularyError {
        VocabularyError::new(format!(
            "protocol buffer: broken or cut short at byte {} of its message",
            self.at
        ))
    }

    fn number(&mut self) -> Result<u64, VocabularyError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.data.get(self.at).ok_or_else(|| self.broken())?;
            self.at += 1;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(self.broken())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], VocabularyError> {
        let end = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count));
        let bytes = end.and_then(|end| self.data.get(self.at..end)).ok_or_else(|| self.broken())?;
        self.at += bytes.len();
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u32, Field<'a>), VocabularyError> {
        let tag = self.number()?;
        let number =
            u32::try_from(tag >> 3).ok().filter(|&number| number > 0).ok_or_else(|| self.broken())?;
        let field = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = self.number()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            _ => return Err(self.broken()),
        };
        Ok((number, field))
    }
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u32, Field<'a>), VocabularyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.data.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.data.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_lengths_checked() {
        let data = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i', 0x1D, 0, 0, 0x80, 0x3F];
        let fields: Result<Vec<_>, _> = Message::new(&data).collect();
        let fields = fields.expect("valid");
        assert_eq!(fields[0], (1, Field::Number(150)));
        assert_eq!(fields[1].1.bytes(), Some(&b"hi"[..]));
        assert_eq!(fields[2].1.float(), Some(1.0));
        for cut in 1..data.len() {
            let whole = matches!(cut, 3 | 7);
            assert_eq!(Message::new(&data[..cut]).all(|field| field.is_ok()), whole, "{cut}");
        }
        assert!(
            Message::new(&[0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]).any(|f| f.is_err())
        );
    }
}

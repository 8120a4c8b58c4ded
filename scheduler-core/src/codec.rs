//! Numbers and byte strings in few bytes: LEB128 varints and length-prefixed strings.

use bytes::Bytes;

/// Bytes that do not say what they should.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem} at byte {at}")]
pub struct DecodeError {
    /// Where, from the beginning of what was decoded.
    pub at: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// Appends `value` in 1 to 10 bytes, the smaller the fewer.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes` and then `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes apart what [`put_varint`] and [`put_bytes`] put together; never panics, whatever the bytes.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    /// Reads `bytes` from the beginning.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether everything is read.
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The error `problem` at the place reached.
    pub fn error(&self, problem: &'static str) -> DecodeError {
        DecodeError { at: self.at, problem }
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self
            .bytes
            .get(self.at)
            .ok_or_else(|| self.error("the end comes too early"))?;
        self.at += 1;
        Ok(byte)
    }

    /// The next number.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error("a number has more than 64 bits"))
    }

    /// The next number, which must fit into `T`.
    pub fn number<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.varint()?).map_err(|_| self.error("a number is too large"))
    }

    /// The next byte string, as a slice of what is read.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len: usize = self.number()?;
        self.take(len)
    }

    /// The next `len` bytes, as a slice of what is read.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(self.error("the end comes too early"));
        }
        let bytes = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }

    /// The next byte string, which must be text.
    pub fn text(&mut self) -> Result<String, DecodeError> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.into()).map_err(|_| self.error("a text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_strings_survive(numbers: Vec<u64>, string: Vec<u8>) {
            let mut out = Vec::new();
            for number in &numbers {
                put_varint(&mut out, *number);
            }
            put_bytes(&mut out, &string);
            let mut reader = Reader::new(out.into());
            for number in numbers {
                prop_assert_eq!(reader.varint(), Ok(number));
            }
            prop_assert_eq!(reader.bytes(), Ok(Bytes::from(string)));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(bytes.into());
            while reader.varint().is_ok() && reader.text().is_ok() {}
        }
    }
}

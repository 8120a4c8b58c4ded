/// The first bytes of an output, and how many there were.
#[derive(Debug)]
pub(crate) struct Head {
    kept: Vec<u8>,
    limit: usize,
    left_out: u64,
}

impl Head {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            kept: Vec::new(),
            limit,
            left_out: 0,
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes in a piece and returns how much of it was kept.
    pub(crate) fn push(&mut self, piece: &[u8]) -> usize {
        let keep = piece.len().min(self.limit - self.kept.len());
        self.kept.extend_from_slice(&piece[..keep]);
        self.left_out += (piece.len() - keep) as u64;
        keep
    }

    /// The text, with a last line that says so if it is not the whole. Bytes that are not UTF-8 become `U+FFFD`.
    pub(crate) fn into_text(self) -> String {
        let mut text = match String::from_utf8(self.kept) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        let mut left_out = self.left_out;
        if text.len() > self.limit {
            let end = text.floor_char_boundary(self.limit);
            left_out += (text.len() - end) as u64;
            text.truncate(end);
        }
        if left_out > 0 {
            return format!("{text}\n[output truncated: {left_out} more bytes]\n");
        }
        text
    }
}

/// The last bytes of an output.
#[derive(Debug)]
pub(crate) struct Tail {
    kept: Vec<u8>,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            kept: Vec::new(),
            limit,
        }
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
        if self.kept.len() > 2 * self.limit {
            self.kept.drain(..self.kept.len() - self.limit);
        }
    }

    pub(crate) fn into_text(self) -> String {
        let start = self.kept.len().saturating_sub(self.limit);
        String::from_utf8_lossy(&self.kept[start..]).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_output_keeps_its_head_and_says_so() {
        let mut head = Head::new(5);
        assert_eq!(head.push(b"abc"), 3);
        assert_eq!(head.push(b"defg"), 2);
        assert_eq!(head.push(b"h"), 0);
        assert_eq!(head.into_text(), "abcde\n[output truncated: 3 more bytes]\n");
    }

    #[test]
    fn replacement_characters_do_not_grow_past_the_limit() {
        let mut head = Head::new(4);
        head.push(&[0xff; 4]);
        assert_eq!(head.into_text(), "\u{fffd}\n[output truncated: 9 more bytes]\n");
    }

    #[test]
    fn a_long_error_output_keeps_its_tail() {
        let mut tail = Tail::new(3);
        for byte in b'a'..=b'z' {
            tail.push(&[byte]);
        }
        assert_eq!(tail.into_text(), "xyz");
    }
}

/// A word as the scanner saw it, quotes removed.
#[derive(Debug, Default)]
pub(super) struct Word {
    /// Where it begins in the source.
    pub(super) at: usize,
    /// Indexes into the placeholders found so far.
    placeholders: Vec<usize>,
    /// Those of them that may turn out to be the first text of the word.
    opening: Vec<usize>,
    /// Its text up to the first placeholder or expansion.
    prefix: String,
    /// `prefix` up to the first quote: what assignments and keywords are recognised by.
    bare_prefix: String,
    quoted: bool,
    /// It holds literal text, anywhere.
    has_text: bool,
    /// It holds `$…` or a command substitution.
    expands: bool,
}

impl Word {
    pub(super) fn new(at: usize) -> Self {
        Self {
            at,
            ..Self::default()
        }
    }

    pub(super) fn push_bare(&mut self, c: char) {
        if !self.quoted && self.is_literal() {
            self.bare_prefix.push(c);
        }
        self.push(c);
    }

    pub(super) fn push_quoted(&mut self, c: char) {
        self.quoted = true;
        self.push(c);
    }

    fn push(&mut self, c: char) {
        self.has_text = true;
        if self.is_literal() {
            self.prefix.push(c);
        }
    }

    pub(super) fn quote(&mut self) {
        self.quoted = true;
    }

    pub(super) fn expand(&mut self) {
        self.expands = true;
    }

    pub(super) fn push_placeholder(&mut self, index: usize) {
        self.placeholders.push(index);
        if !self.has_text {
            self.opening.push(index);
        }
    }

    pub(super) fn has_placeholder(&self) -> bool {
        !self.placeholders.is_empty()
    }

    /// The placeholders whose values may be the first text of the word.
    pub(super) fn opening(&self) -> &[usize] {
        &self.opening
    }

    /// The text up to the first placeholder or expansion.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn is_literal(&self) -> bool {
        self.placeholders.is_empty() && !self.expands
    }

    /// The whole text, when nothing in it is decided later.
    pub(super) fn literal(&self) -> Option<&str> {
        self.is_literal().then_some(&*self.prefix)
    }

    /// The whole text, when it is literal and holds no quotes.
    pub(super) fn keyword(&self) -> Option<&str> {
        self.literal().filter(|_| !self.quoted)
    }

    pub(super) fn is_number(&self) -> bool {
        self.keyword()
            .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    }

    /// The variable that a word like `name=value` sets.
    pub(super) fn assigns(&self) -> Option<&str> {
        let (name, _) = self.bare_prefix.split_once('=')?;
        let mut characters = name.chars();
        let first = characters.next()?;
        let valid = (first.is_ascii_alphabetic() || first == '_')
            && characters.all(|c| c.is_ascii_alphanumeric() || c == '_');
        valid.then_some(name)
    }
}

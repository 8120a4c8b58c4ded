//! The scanner: which quoting is in force at each character, and where words and commands begin and end.
//!
//! It is deliberately narrower than any shell: the safety of every value depends on it agreeing with dash and bash, so
//! whatever those two read differently is refused.

use super::command::Command;
use super::word::Word;
use super::{Place, Placeholder, TemplateError, TemplateProblem};

/// `$(…)` and `(…)` inside each other, at most.
const MAX_DEPTH: usize = 16;

/// Finds the placeholders of a command and the quoting each needs.
pub(super) fn placeholders(source: &str) -> Result<Vec<Placeholder>, TemplateError> {
    let mut scanner = Scanner {
        source,
        at: 0,
        depth: 0,
        found: Vec::new(),
    };
    scanner.list(false)?;
    Ok(scanner.found)
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    depth: usize,
    found: Vec<Placeholder>,
}

type Scan<T = ()> = Result<T, TemplateError>;

impl<'a> Scanner<'a> {
    /// Commands up to the end, or up to the `)` that closes them.
    fn list(&mut self, in_parentheses: bool) -> Scan {
        let opened = self.at;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.refuse(opened, TemplateProblem::TooDeep);
        }
        let mut command = Command::default();
        loop {
            self.blanks()?;
            let at = self.at;
            let Some(c) = self.peek() else {
                if in_parentheses {
                    return self.refuse(opened - 1, TemplateProblem::Unclosed("`(`"));
                }
                break;
            };
            match c {
                ';' if self.rest().starts_with(";;") => {
                    return self.refuse(at, TemplateProblem::Unsupported("`;;`"));
                }
                '\n' | ';' | '&' | '|' => {
                    self.end(&mut command)?;
                    self.bump();
                }
                '(' => self.subshell(&command)?,
                ')' if in_parentheses => {
                    self.bump();
                    break;
                }
                ')' => return self.refuse(at, TemplateProblem::Unopened),
                '#' => self.comment()?,
                '<' | '>' => self.redirection()?,
                _ => {
                    let word = self.word()?;
                    let redirects = matches!(self.peek(), Some('<' | '>'));
                    if redirects && word.prefix().starts_with('{') {
                        // bash takes `{name}>` for a redirection, other shells for a word.
                        return self.refuse(at, TemplateProblem::Unsupported("`{name}<` or `{name}>`"));
                    }
                    let number_of_redirection = redirects && word.is_number();
                    if !number_of_redirection {
                        command
                            .push(word)
                            .map_err(|(at, problem)| self.error(at, problem))?;
                    }
                }
            }
        }
        self.end(&mut command)?;
        self.depth -= 1;
        Ok(())
    }

    fn end(&mut self, command: &mut Command) -> Scan {
        let command = std::mem::take(command);
        command
            .check(&mut self.found)
            .map_err(|(at, problem)| self.error(at, problem))
    }

    fn subshell(&mut self, command: &Command) -> Scan {
        let at = self.at;
        if !command.is_empty() {
            return self.refuse(at, TemplateProblem::Unsupported("a function or an array"));
        }
        if self.rest().starts_with("((") {
            return self.refuse(at, TemplateProblem::Unsupported("`((`"));
        }
        self.bump();
        self.list(true)
    }

    fn comment(&mut self) -> Scan {
        let length = self.rest().find('\n').unwrap_or(self.rest().len());
        if let Some(inside) = self.rest()[..length].find("{{") {
            return self.refuse(self.at + inside, TemplateProblem::PlaceholderIn("a comment"));
        }
        self.at += length;
        Ok(())
    }

    fn redirection(&mut self) -> Scan {
        let at = self.at;
        let rest = self.rest();
        if rest.starts_with("<<") {
            return self.refuse(at, TemplateProblem::Unsupported("a here-document (`<<`)"));
        }
        let duplicates = rest.starts_with(">&") || rest.starts_with("<&");
        let length = if duplicates || [">>", ">|", "<>"].iter().any(|op| rest.starts_with(op)) {
            2
        } else {
            1
        };
        self.at += length;
        if matches!(self.peek(), Some('(')) {
            return self.refuse(at, TemplateProblem::Unsupported("`<(` or `>(`"));
        }
        self.blanks()?;
        if matches!(
            self.peek(),
            None | Some('\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '#')
        ) {
            return self.refuse(at, TemplateProblem::Unsupported("a redirection without a file"));
        }
        let target = self.word()?;
        if duplicates && target.has_placeholder() {
            return self.refuse(target.at, TemplateProblem::PlaceholderIn("`>&` or `<&`"));
        }
        Ok(())
    }

    /// One word, up to an unquoted blank or operator.
    fn word(&mut self) -> Scan<Word> {
        let mut word = Word::new(self.at);
        while let Some(c) = self.peek() {
            let at = self.at;
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                '\\' => self.escape(&mut word)?,
                '\'' => self.single_quotes(&mut word)?,
                '"' => self.double_quotes(&mut word)?,
                '`' => self.backticks(&mut word)?,
                '$' => self.dollar(&mut word, false)?,
                '{' if self.rest().starts_with("{{") => self.placeholder(&mut word, Place::Bare)?,
                _ => {
                    self.bump();
                    word.push_bare(c);
                    debug_assert!(self.at > at, "a character was read");
                }
            }
        }
        Ok(word)
    }

    fn escape(&mut self, word: &mut Word) -> Scan {
        let at = self.at;
        self.bump();
        match self.peek() {
            None => self.refuse(at, TemplateProblem::Unsupported("`\\` as its last character")),
            // Shells differ in where they join lines; between words they agree, and `blanks` takes those.
            Some('\n') => self.refuse(at, TemplateProblem::Unsupported("a line joined within a word")),
            Some('{') if self.rest().starts_with("{{") => {
                self.refuse(at, TemplateProblem::PlaceholderAfter('\\'))
            }
            Some(c) => {
                self.bump();
                word.push_quoted(c);
                Ok(())
            }
        }
    }

    fn single_quotes(&mut self, word: &mut Word) -> Scan {
        let opened = self.at;
        self.bump();
        word.quote();
        loop {
            match self.peek() {
                None => return self.refuse(opened, TemplateProblem::Unclosed("a single quote")),
                Some('\'') => break,
                Some('{') if self.rest().starts_with("{{") => {
                    self.placeholder(word, Place::InSingleQuotes)?;
                }
                Some(c) => {
                    self.bump();
                    word.push_quoted(c);
                }
            }
        }
        self.bump();
        Ok(())
    }

    fn double_quotes(&mut self, word: &mut Word) -> Scan {
        let opened = self.at;
        self.bump();
        word.quote();
        loop {
            match self.peek() {
                None => return self.refuse(opened, TemplateProblem::Unclosed("a double quote")),
                Some('"') => break,
                Some('\\') => {
                    let at = self.at;
                    self.bump();
                    match self.peek() {
                        None => return self.refuse(opened, TemplateProblem::Unclosed("a double quote")),
                        Some('{') if self.rest().starts_with("{{") => {
                            return self.refuse(at, TemplateProblem::PlaceholderAfter('\\'));
                        }
                        Some('\n') => self.bump(),
                        Some(c) => {
                            if !matches!(c, '$' | '`' | '"' | '\\') {
                                word.push_quoted('\\');
                            }
                            self.bump();
                            word.push_quoted(c);
                        }
                    }
                }
                Some('`') => self.backticks(word)?,
                Some('$') => self.dollar(word, true)?,
                Some('{') if self.rest().starts_with("{{") => {
                    self.placeholder(word, Place::InDoubleQuotes)?;
                }
                Some(c) => {
                    self.bump();
                    word.push_quoted(c);
                }
            }
        }
        self.bump();
        Ok(())
    }

    /// Backticks take away one level of backslashes before anything else; only what needs none is let through.
    fn backticks(&mut self, word: &mut Word) -> Scan {
        let opened = self.at;
        self.bump();
        loop {
            let at = self.at;
            match self.peek() {
                None => return self.refuse(opened, TemplateProblem::Unclosed("a backtick")),
                Some('`') => break,
                Some('{') if self.rest().starts_with("{{") => {
                    return self.refuse(at, TemplateProblem::PlaceholderIn("backticks (use `$(…)`)"));
                }
                Some('\\' | '\'' | '"' | '#' | '\n') => {
                    return self.refuse(
                        at,
                        TemplateProblem::Unsupported(
                            "quotes, `\\`, `#` or line ends in backticks (use `$(…)`)",
                        ),
                    );
                }
                Some(_) => self.bump(),
            }
        }
        self.bump();
        word.expand();
        Ok(())
    }

    fn dollar(&mut self, word: &mut Word, in_double_quotes: bool) -> Scan {
        let at = self.at;
        self.bump();
        let rest = self.rest();
        if rest.starts_with("{{") {
            return self.refuse(at, TemplateProblem::PlaceholderAfter('$'));
        }
        if rest.starts_with("\\\n") {
            return self.refuse(at, TemplateProblem::Unsupported("a line joined after `$`"));
        }
        match self.peek() {
            Some('(') if rest.starts_with("((") => self.arithmetic()?,
            Some('(') => {
                self.bump();
                self.list(true)?;
            }
            Some('{') => self.parameter_expansion()?,
            Some('[') => return self.refuse(at, TemplateProblem::Unsupported("`$[`")),
            Some('\'' | '"') if !in_double_quotes => {
                return self.refuse(at, TemplateProblem::Unsupported("`$'` or `$\"`"));
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!' | '0'..='9') => self.bump(),
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    self.bump();
                }
            }
            _ => {
                word.push_quoted('$');
                return Ok(());
            }
        }
        word.expand();
        Ok(())
    }

    /// `$((…))`, or a substitution that begins with a subshell: both end with their last parenthesis, as long as
    /// nothing in between can hide one.
    fn arithmetic(&mut self) -> Scan {
        let opened = self.at;
        let mut open = 0_usize;
        loop {
            let at = self.at;
            match self.peek() {
                None => return self.refuse(opened, TemplateProblem::Unclosed("`$((`")),
                Some('(') => open += 1,
                Some(')') => open -= 1,
                Some('{') if self.rest().starts_with("{{") => {
                    return self.refuse(at, TemplateProblem::PlaceholderIn("arithmetic"));
                }
                Some('\\' | '\'' | '"' | '`' | '#' | ';' | '\n') => {
                    return self.refuse(
                        at,
                        TemplateProblem::Unsupported("quotes, `\\`, `#`, `;` or line ends in `$((…))`"),
                    );
                }
                Some(_) => {}
            }
            self.bump();
            if open == 0 {
                return Ok(());
            }
        }
    }

    /// `${…}` without quotes or another expansion in braces, so that its end is the first `}`.
    fn parameter_expansion(&mut self) -> Scan {
        let opened = self.at;
        self.bump();
        loop {
            let at = self.at;
            match self.peek() {
                None => return self.refuse(opened, TemplateProblem::Unclosed("`${`")),
                Some('}') => break,
                Some('{') if self.rest().starts_with("{{") => {
                    return self.refuse(at, TemplateProblem::PlaceholderIn("`${…}`"));
                }
                Some('\\' | '\'' | '"' | '`' | '{' | '(' | '\n') => {
                    return self.refuse(
                        at,
                        TemplateProblem::Unsupported("quotes, `\\`, `{`, `(` or line ends in `${…}`"),
                    );
                }
                Some(_) => self.bump(),
            }
        }
        self.bump();
        Ok(())
    }

    fn placeholder(&mut self, word: &mut Word, place: Place) -> Scan {
        let start = self.at;
        let inner = &self.source[start + 2..];
        let Some((name, end)) = inner
            .find("}}")
            .map(|length| (inner[..length].trim_matches([' ', '\t']), start + length + 4))
            .filter(|(name, _)| crate::params::is_name(name))
        else {
            return self.refuse(start, TemplateProblem::NotAPlaceholder);
        };
        word.push_placeholder(self.found.len());
        self.found.push(Placeholder {
            start,
            end,
            name: name.into(),
            place,
            opens_argument: false,
        });
        self.at = end;
        Ok(())
    }

    /// Blanks between words, and lines joined there.
    fn blanks(&mut self) -> Scan {
        let mut blank_before = self.at == 0 || self.source[..self.at].ends_with(['\n', ' ', '\t']);
        loop {
            match self.peek() {
                Some(' ' | '\t') => {
                    self.bump();
                    blank_before = true;
                }
                Some('\\') if self.rest().starts_with("\\\n") => {
                    if !blank_before {
                        return self.refuse(
                            self.at,
                            TemplateProblem::Unsupported("a joined line without a blank before `\\`"),
                        );
                    }
                    self.at += 2;
                }
                _ => return Ok(()),
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn error(&self, at: usize, problem: TemplateProblem) -> TemplateError {
        TemplateError::new(self.source, at, problem)
    }

    fn refuse<T>(&self, at: usize, problem: TemplateProblem) -> Scan<T> {
        Err(self.error(at, problem))
    }
}

//! A model of how a POSIX shell reads a command: just its words, and which of their characters mean more than themselves.
//!
//! It shares nothing with the scanner that it is there to check. What it does not model (`${…}` with operators, arithmetic, backticks,
//! here-documents, `$'…'`) it does not read at all.

use std::iter::Peekable;
use std::str::Chars;

/// A part of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Token {
    /// A character that ends words: newline, `;`, `&`, `|`, `<`, `>`, `(` or `)`.
    Operator(char),
    /// A word, quotes removed.
    Word(Vec<Piece>),
}

/// A part of a word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Piece {
    /// A character, and whether it is nothing but itself whatever it is: in single quotes or behind a backslash.
    Char(char, bool),
    /// The same in double quotes, where `$` is still more than itself.
    InDouble(char),
    /// `$(…)`.
    Substitution(Vec<Token>),
}

/// Reads a whole command; `None` for what is not modelled.
pub(crate) fn read(command: &str) -> Option<Vec<Token>> {
    let mut source = command.chars().peekable();
    list(&mut source, false, 0)
}

type Source<'a> = Peekable<Chars<'a>>;

fn list(source: &mut Source<'_>, is_inside: bool, depth: u32) -> Option<Vec<Token>> {
    if depth > 20 {
        return None;
    }
    let mut tokens = Vec::new();
    let mut open = 0u32;
    loop {
        match source.peek().copied() {
            None => return (!is_inside && open == 0).then_some(tokens),
            Some(' ' | '\t') => {
                source.next();
            }
            Some('#') => while source.next_if(|c| *c != '\n').is_some() {},
            Some(')') if is_inside && open == 0 => {
                source.next();
                return Some(tokens);
            }
            Some(c @ ('\n' | ';' | '&' | '|' | '<' | '>' | '(' | ')')) => {
                source.next();
                match c {
                    '(' => open += 1,
                    ')' => open = open.checked_sub(1)?,
                    '<' if source.peek() == Some(&'<') => return None,
                    _ => (),
                }
                tokens.push(Token::Operator(c));
            }
            Some(_) => {
                // A word may turn out to be nothing but a line that goes on.
                let (is_word, pieces) = word(source, depth)?;
                tokens.extend(is_word.then_some(Token::Word(pieces)));
            }
        }
    }
}

/// The pieces of a word, and whether there is one: it may be empty.
fn word(source: &mut Source<'_>, depth: u32) -> Option<(bool, Vec<Piece>)> {
    let mut pieces = Vec::new();
    let mut is_there = false;
    while let Some(c) = source.next_if(|c| !" \t\n;&|<>()".contains(*c)) {
        match c {
            '\\' => match source.next()? {
                '\n' => continue,
                escaped => pieces.push(Piece::Char(escaped, true)),
            },
            '\'' => loop {
                match source.next()? {
                    '\'' => break,
                    literal => pieces.push(Piece::Char(literal, true)),
                }
            },
            '"' => in_double_quotes(source, &mut pieces, depth)?,
            '$' if source.peek().is_some_and(|next| "'\"".contains(*next)) => return None,
            '$' => dollar(source, &mut pieces, Piece::Char('$', false), depth)?,
            '`' => return None,
            other => pieces.push(Piece::Char(other, false)),
        }
        is_there = true;
    }
    Some((is_there, pieces))
}

fn in_double_quotes(source: &mut Source<'_>, pieces: &mut Vec<Piece>, depth: u32) -> Option<()> {
    loop {
        match source.next()? {
            '"' => return Some(()),
            '`' => return None,
            '$' => dollar(source, pieces, Piece::InDouble('$'), depth)?,
            '\\' => match source.next()? {
                '\n' => (),
                escaped @ ('$' | '`' | '"' | '\\') => pieces.push(Piece::Char(escaped, true)),
                other => pieces.extend([Piece::InDouble('\\'), Piece::InDouble(other)]),
            },
            other => pieces.push(Piece::InDouble(other)),
        }
    }
}

fn dollar(source: &mut Source<'_>, pieces: &mut Vec<Piece>, plain: Piece, depth: u32) -> Option<()> {
    match source.peek() {
        Some('(') => {
            source.next();
            if source.peek() == Some(&'(') {
                return None;
            }
            pieces.push(Piece::Substitution(list(source, true, depth + 1)?));
        }
        Some('{' | '[') => return None,
        // A parameter of one character: what follows it is not its own, a `(` behind `$$` opens nothing.
        Some('$' | '?' | '!' | '#' | '*' | '@' | '-') => {
            let name = Piece::InDouble(source.next()?);
            pieces.extend([plain, name]);
        }
        _ => pieces.push(plain),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &str) -> Option<Vec<String>> {
        let text = |token: Token| match token {
            Token::Operator(operator) => operator.to_string(),
            Token::Word(pieces) => pieces
                .into_iter()
                .map(|piece| match piece {
                    Piece::Char(c, _) | Piece::InDouble(c) => c.to_string(),
                    Piece::Substitution(inside) => format!("[{}]", inside.len()),
                })
                .collect(),
        };
        Some(read(command)?.into_iter().map(text).collect())
    }

    #[test]
    fn words_are_those_that_a_shell_makes() {
        for (command, expected) in [
            (r#"a 'b c'"d e"\ f;g"#, &["a", "b cd e f", ";", "g"][..]),
            ("a\\\nb # c 'd\n e", &["ab", "\n", "e"]),
            (r#"a "$(b 'c)' d)" '' "#, &["a", "[3]", ""]),
            (r#""\a\"\$" $x"#, &[r#"\a"$"#, "$x"]),
            (r#""$$(a "b")""#, &["$$(a b)"]),
        ] {
            assert_eq!(words(command).unwrap(), expected, "{command}");
        }
    }

    #[test]
    fn what_is_not_modelled_is_not_read() {
        for command in [
            "a `b`", "$((1))", "${a:-b}", "cat <<E", "'a", "\"a", "(a", "a)", "$'a'", "a\\",
        ] {
            assert_eq!(read(command), None, "{command}");
        }
    }
}

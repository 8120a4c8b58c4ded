//! Commands with placeholders: whatever a value holds, it arrives as data, as one word or part of one.

use std::process::{Command, Stdio};

use scheduler_pipeline::{Params, Template};

use crate::shell::{self, Piece, Token};
use crate::split_at_nul;

/// Stands for the value where the model is asked what it is a part of.
const MARK: &str = "qzMARKzq";

/// One input of so many is tried in the shell itself.
const SAMPLE: u32 = 1_024;

/// A command, and after a zero byte the value of `x` and of every other param.
///
/// A shell, as far as it is modelled, reads the command with the value as it reads it with a harmless word in its place.
pub fn quoting(data: &[u8]) {
    let (command, value) = split_at_nul(data);
    let (Ok(command), Ok(value)) = (std::str::from_utf8(command), std::str::from_utf8(value)) else {
        return;
    };
    if crc32fast::hash(data).is_multiple_of(SAMPLE) {
        quoting_in_a_shell(value);
    }
    let Ok(template) = Template::parse(command) else {
        return;
    };
    if command.contains(MARK) || template.names().next().is_none() {
        return;
    }
    let render = |value: &str| {
        let params = template
            .names()
            .map(|name| (name.to_owned(), value.to_owned().into()));
        template.render(&Params::new(params.collect()))
    };
    let (Ok(marked), Ok(rendered)) = (render(MARK), render(value)) else {
        return;
    };
    let Some(mut expected) = shell::read(&marked) else {
        return;
    };
    let marks = fill_in(&mut expected, value);
    assert_eq!(
        marks,
        template.names().count(),
        "a word is not all data in {marked:?}"
    );
    assert_eq!(
        shell::read(&rendered).as_ref(),
        Some(&expected),
        "{command:?} with {value:?} is {rendered:?}"
    );
}

/// Puts the value where the mark stands as nothing but data; answers how often that was.
fn fill_in(tokens: &mut [Token], value: &str) -> usize {
    let mut marks = 0;
    for token in tokens {
        let Token::Word(pieces) = token else { continue };
        let mark: Vec<Piece> = MARK.chars().map(|c| Piece::Char(c, true)).collect();
        let mut at = 0;
        while at < pieces.len() {
            if pieces[at..].starts_with(&mark) {
                pieces.splice(at..at + mark.len(), value.chars().map(|c| Piece::Char(c, true)));
                at += value.chars().count();
                marks += 1;
                continue;
            }
            if let Piece::Substitution(inside) = &mut pieces[at] {
                marks += fill_in(inside, value);
            }
            at += 1;
        }
    }
    marks
}

/// Every quoting there is, each printing what arrived.
const PLACES: [(&str, &str, &str); 7] = [
    (r"printf '%s\0' {{x}}", "", ""),
    (r"printf '%s\0' '{{x}}'", "", ""),
    (r#"printf '%s\0' "a{{x}}b""#, "a", "b"),
    (r#"printf '%s\0' "$(printf '%s.' {{x}})""#, "", "."),
    (r#"printf '%s\0' "$(printf '%s.' "<{{x}}>")""#, "<", ">."),
    (r#"y={{x}}; printf '%s\0' "$y""#, "", ""),
    (r#"for y in {{x}}; do printf '%s\0' "$y"; done"#, "", ""),
];

/// The value arrives unchanged through `sh`, wherever it stands.
pub fn quoting_in_a_shell(value: &str) {
    let mut script = String::new();
    let mut expected = Vec::new();
    for (place, before, after) in PLACES {
        let Ok(template) = Template::parse(place) else {
            panic!("{place} is not taken");
        };
        let params = [("x".to_owned(), value.to_owned().into())];
        let Ok(command) = template.render(&Params::new(params.into_iter().collect())) else {
            // Too long, or with a zero byte.
            return;
        };
        script += &command;
        script.push('\n');
        expected.extend_from_slice(format!("{before}{value}{after}\0").as_bytes());
    }
    let output = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    // A machine that cannot start a process just now says nothing of quoting.
    let Ok(output) = output else { return };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&expected),
        "{value:?} does not arrive"
    );
}

//! Commands that take one of their arguments for code: shells, script languages, `sed` and `awk`.

use super::command::{Refusal, dangerous, unmark};
use super::word::Word;
use super::{Placeholder, TemplateProblem};

/// How a command line of an interpreter is read.
pub(super) struct Interpreter {
    names: &'static [&'static str],
    /// Short options whose value (the rest of the word, or the next one) is code or names a file with code.
    script_options: &'static str,
    /// Short options with any other value.
    value_options: &'static str,
    /// Short options with a value in their own word only.
    attached_options: &'static str,
    /// What follows the script goes to the script and is never an option of the interpreter.
    rest_is_data: bool,
}

const fn interpreter(
    names: &'static [&'static str],
    [script_options, value_options, attached_options]: [&'static str; 3],
) -> Interpreter {
    Interpreter {
        names,
        script_options,
        value_options,
        attached_options,
        rest_is_data: true,
    }
}

const INTERPRETERS: &[Interpreter] = &[
    // A shell's `-c` only says that its first operand is code, not a file with code; either is the script.
    interpreter(
        &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "fish"],
        ["", "oO", ""],
    ),
    interpreter(&["python"], ["cm", "WX", ""]),
    interpreter(&["perl"], ["eE", "I", "CDFMVilmx0"]),
    interpreter(&["ruby"], ["e", "CEIr", "FKTWix"]),
    interpreter(&["node", "nodejs"], ["ep", "r", ""]),
    interpreter(&["php"], ["rBREFf", "cdztS", ""]),
    interpreter(&["Rscript"], ["e", "", ""]),
    Interpreter {
        rest_is_data: false,
        ..interpreter(&["sed", "gsed"], ["ef", "l", "i"])
    },
    Interpreter {
        rest_is_data: false,
        ..interpreter(&["awk", "gawk", "mawk", "nawk"], ["fe", "vF", ""])
    },
];

const LONG_SCRIPT_OPTIONS: &[&str] = &[
    "--command",
    "--eval",
    "--exec",
    "--execute",
    "--expression",
    "--file",
    "--print",
    "--run",
    "--source",
];
/// Long options known to take no value.
const LONG_FLAGS: &[&str] = &[
    "--debug",
    "--in-place",
    "--login",
    "--no-warnings",
    "--noprofile",
    "--norc",
    "--null-data",
    "--posix",
    "--quiet",
    "--regexp-extended",
    "--separate",
    "--silent",
    "--unbuffered",
    "--vanilla",
];

/// The interpreter of this name, whatever its version: `python3.11` is `python`.
pub(super) fn find(name: &str) -> Option<&'static Interpreter> {
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS
        .iter()
        .find(|interpreter| interpreter.names.contains(&plain))
}

impl Interpreter {
    pub(super) fn check(
        &self,
        name: &str,
        name_at: usize,
        arguments: &[Word],
        found: &mut [Placeholder],
    ) -> Result<(), Refusal> {
        let mut script_seen = false;
        let mut only_operands = false;
        let mut at = 0;
        while let Some(word) = arguments.get(at) {
            if script_seen && self.rest_is_data {
                unmark(&arguments[at..], found);
                return Ok(());
            }
            at += 1;
            let text = word.prefix();
            if !only_operands && word.literal() == Some("--") {
                only_operands = true;
            } else if !only_operands && self.is_option(text) {
                if word.has_placeholder() {
                    return Err((word.at, TemplateProblem::PlaceholderInCode(name.to_owned())));
                }
                match self.option(text) {
                    Opt::Flag => {}
                    Opt::Unclear => {
                        let what =
                            format!("`{name}` with `{text}` (write options with a value as --name=value)");
                        return Err((word.at, dangerous(&what)));
                    }
                    Opt::Script { in_next_word } => {
                        let script = if in_next_word {
                            arguments.get(at)
                        } else {
                            Some(word)
                        };
                        script.map_or(Ok(()), |script| must_be_literal(name, script))?;
                        at += usize::from(in_next_word);
                        script_seen = true;
                    }
                    Opt::Value => {
                        let value = arguments
                            .get(at)
                            .filter(|value| !(text == "-v" && value.assigns().is_some()));
                        value.map_or(Ok(()), |value| must_be_literal(name, value))?;
                        at += 1;
                    }
                }
            } else if !script_seen {
                if word.literal() == Some("-") {
                    break;
                }
                must_be_literal(name, word)?;
                script_seen = true;
            }
        }
        if script_seen {
            Ok(())
        } else {
            Err((
                name_at,
                dangerous(&format!("`{name}` with a script from standard input")),
            ))
        }
    }

    fn is_shell(&self) -> bool {
        self.names.contains(&"sh")
    }

    fn is_option(&self, text: &str) -> bool {
        text.len() > 1 && (text.starts_with('-') || (self.is_shell() && text.starts_with('+')))
    }

    fn option(&self, text: &str) -> Opt {
        if text.starts_with("--") {
            return match text.split_once('=') {
                Some((long, _)) if LONG_SCRIPT_OPTIONS.contains(&long) => Opt::Script { in_next_word: false },
                Some(_) => Opt::Flag,
                None if LONG_SCRIPT_OPTIONS.contains(&text) => Opt::Script { in_next_word: true },
                None if LONG_FLAGS.contains(&text) => Opt::Flag,
                None => Opt::Unclear,
            };
        }
        let letters = &text[1..];
        if self.is_shell() && letters.contains('s') {
            return Opt::Unclear;
        }
        for (index, letter) in letters.char_indices() {
            let last = index + letter.len_utf8() == letters.len();
            if self.script_options.contains(letter) {
                return Opt::Script { in_next_word: last };
            }
            if self.value_options.contains(letter) {
                return if last { Opt::Value } else { Opt::Flag };
            }
            if self.attached_options.contains(letter) {
                return Opt::Flag;
            }
        }
        Opt::Flag
    }
}

enum Opt {
    Flag,
    /// Takes the next word.
    Value,
    Script {
        in_next_word: bool,
    },
    Unclear,
}

fn must_be_literal(name: &str, word: &Word) -> Result<(), Refusal> {
    if word.has_placeholder() {
        Err((word.at, TemplateProblem::PlaceholderInCode(name.to_owned())))
    } else if word.is_literal() {
        Ok(())
    } else {
        Err((
            word.at,
            dangerous(&format!(
                "`{name}` with a script or an option that is not written out"
            )),
        ))
    }
}

//! What a command does with its words: some take them for code, for another command, or for the name of a variable.

use super::word::Word;
use super::{Placeholder, TemplateProblem};

/// Where in the source, and what is wrong there.
pub(super) type Refusal = (usize, TemplateProblem);

/// The words of a command so far, without the variables set before it.
#[derive(Debug, Default)]
pub(super) struct Command {
    words: Vec<Word>,
    sets_variables: bool,
}

/// These may be followed by a command.
const KEYWORDS: &[&str] = &["if", "then", "else", "elif", "while", "until", "do", "{", "!"];
const UNSUPPORTED_KEYWORDS: &[&str] = &["case", "select", "function", "coproc", "[["];
/// Setting one of these changes which programs run or how the shell reads its input.
const DECISIVE_VARIABLES: &[&str] = &[
    "PATH",
    "IFS",
    "ENV",
    "BASH_ENV",
    "PS4",
    "SHELLOPTS",
    "BASHOPTS",
    "CDPATH",
];

impl Command {
    pub(super) fn push(&mut self, word: Word) -> Result<(), Refusal> {
        if self.words.is_empty() {
            if let Some(keyword) = word.keyword() {
                if KEYWORDS.contains(&keyword) {
                    return Ok(());
                }
                if let Some(keyword) = UNSUPPORTED_KEYWORDS
                    .iter()
                    .find(|unsupported| **unsupported == keyword)
                {
                    return Err((word.at, TemplateProblem::Unsupported(keyword)));
                }
            }
            if word.assigns().is_some() {
                self.sets_variables = true;
                return check_assignment(&word);
            }
        }
        self.words.push(word);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && !self.sets_variables
    }

    /// Refuses values where the command would not take them for values, and marks those that it might take for
    /// options.
    pub(super) fn check(&self, found: &mut [Placeholder]) -> Result<(), Refusal> {
        check(&self.words, found)
    }
}

fn check_assignment(word: &Word) -> Result<(), Refusal> {
    let decisive = |name: &&str| {
        DECISIVE_VARIABLES.contains(name)
            || ["LD_", "DYLD_", "PYTHON", "PERL", "RUBY", "NODE_"]
                .iter()
                .any(|p| name.starts_with(p))
    };
    match word.assigns().filter(decisive) {
        Some(name) if word.has_placeholder() => {
            Err((word.at, TemplateProblem::PlaceholderSets(name.to_owned())))
        }
        _ => Ok(()),
    }
}

fn check(words: &[Word], found: &mut [Placeholder]) -> Result<(), Refusal> {
    let Some((name, arguments)) = words.split_first() else {
        return Ok(());
    };
    if name.has_placeholder() {
        return Err((name.at, TemplateProblem::PlaceholderNamesCommand));
    }
    let Some(literal) = name.literal() else {
        return Err((name.at, dangerous("an expansion as the name of a command")));
    };
    mark_options(arguments, found)?;

    let base = literal.rsplit('/').next().unwrap_or(literal);
    match base {
        "for" => match arguments.first() {
            Some(variable) if variable.has_placeholder() => Err((
                variable.at,
                TemplateProblem::PlaceholderIn("the name of a variable"),
            )),
            _ => {
                unmark(arguments, found);
                Ok(())
            }
        },
        "eval" | "." | "source" => Err((name.at, dangerous(&format!("`{base}`")))),
        "export" | "readonly" => arguments
            .iter()
            .filter(|word| word.has_placeholder())
            .try_for_each(|word| {
                if word.assigns().is_none() {
                    return Err((word.at, TemplateProblem::PlaceholderIn("the name of a variable")));
                }
                check_assignment(word)
            }),
        "printf" | "test" | "[" => {
            if arguments
                .iter()
                .any(|word| matches!(word.literal(), Some("-v" | "-R")))
            {
                refuse_placeholders(base, arguments)?;
            }
            if base == "printf" {
                // After the format nothing is an option any more.
                let format = arguments
                    .iter()
                    .position(|word| !word.prefix().starts_with('-') && !word.has_placeholder());
                unmark(format.map_or(&[], |format| &arguments[format + 1..]), found);
            }
            Ok(())
        }
        "find" => check_find(arguments, found),
        _ if ALL_CODE.contains(&base) => refuse_placeholders(base, arguments),
        _ => {
            if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == base) {
                wrapper.check(arguments, found)
            } else if let Some(interpreter) = super::interpreter::find(base) {
                interpreter.check(base, name.at, arguments, found)
            } else {
                Ok(())
            }
        }
    }
}

pub(super) fn dangerous(what: &str) -> TemplateProblem {
    TemplateProblem::Dangerous(what.to_owned())
}

fn refuse_placeholders(command: &str, words: &[Word]) -> Result<(), Refusal> {
    match words.iter().find(|word| word.has_placeholder()) {
        Some(word) => Err((word.at, TemplateProblem::PlaceholderInCode(command.to_owned()))),
        None => Ok(()),
    }
}

fn mark_options(arguments: &[Word], found: &mut [Placeholder]) -> Result<(), Refusal> {
    for word in arguments.iter().take_while(|word| word.literal() != Some("--")) {
        let prefix = word.prefix();
        if word.has_placeholder() && (prefix == "-" || (prefix.starts_with("--") && !prefix.contains('='))) {
            return Err((word.at, TemplateProblem::PlaceholderNamesOption));
        }
        for &index in word.opening() {
            found[index].opens_argument = true;
        }
    }
    Ok(())
}

/// What the command itself never takes for options.
pub(super) fn unmark(words: &[Word], found: &mut [Placeholder]) {
    for &index in words.iter().flat_map(Word::opening) {
        found[index].opens_argument = false;
    }
}

/// Every argument is code, or names what is to be changed, or both.
const ALL_CODE: &[&str] = &[
    "alias",
    "at",
    "batch",
    "bind",
    "compgen",
    "complete",
    "declare",
    "enable",
    "expect",
    "fc",
    "getopts",
    "hash",
    "let",
    "local",
    "lua",
    "mapfile",
    "osascript",
    "parallel",
    "read",
    "readarray",
    "rsh",
    "runuser",
    "script",
    "ssh",
    "su",
    "tclsh",
    "trap",
    "typeset",
    "unset",
    "watch",
];

fn check_find(arguments: &[Word], found: &mut [Placeholder]) -> Result<(), Refusal> {
    let runs = |word: &Word| matches!(word.literal(), Some("-exec" | "-execdir" | "-ok" | "-okdir"));
    let mut rest = arguments;
    while let Some(at) = rest.iter().position(runs) {
        rest = &rest[at + 1..];
        check(rest, found)?;
    }
    Ok(())
}

/// A command that runs the command its arguments name.
struct Wrapper {
    name: &'static str,
    /// Short options that take the next word.
    options_with_value: &'static str,
    /// Words before the command that are neither options nor variables.
    operands: usize,
}

const fn wrapper(name: &'static str, options_with_value: &'static str, operands: usize) -> Wrapper {
    Wrapper {
        name,
        options_with_value,
        operands,
    }
}

const WRAPPERS: &[Wrapper] = &[
    wrapper("builtin", "", 0),
    wrapper("busybox", "", 0),
    wrapper("chroot", "", 1),
    wrapper("chrt", "", 1),
    wrapper("command", "", 0),
    wrapper("doas", "uC", 0),
    wrapper("env", "uCS", 0),
    wrapper("exec", "a", 0),
    wrapper("flock", "wE", 1),
    wrapper("ionice", "cn", 0),
    wrapper("nice", "n", 0),
    wrapper("nohup", "", 0),
    wrapper("setsid", "", 0),
    wrapper("stdbuf", "ioe", 0),
    wrapper("strace", "eopPsu", 0),
    wrapper("sudo", "ughpCrtTU", 0),
    wrapper("taskset", "", 1),
    wrapper("time", "fo", 0),
    wrapper("timeout", "ks", 1),
    wrapper("tini", "", 0),
    wrapper("xargs", "InPLdsaE", 0),
];

impl Wrapper {
    fn check(&self, arguments: &[Word], found: &mut [Placeholder]) -> Result<(), Refusal> {
        let mut operands = self.operands;
        let mut at = 0;
        while let Some(word) = arguments.get(at) {
            at += 1;
            if word.assigns().is_some() {
                check_assignment(word)?;
                continue;
            }
            let Some(text) = word.literal() else {
                return Err((word.at, self.unclear()));
            };
            if text == "--" {
                continue;
            }
            if let Some(option) = text.strip_prefix('-').filter(|option| !option.is_empty()) {
                if self.name == "env" && option.starts_with('S')
                    || self.name == "flock" && option.contains('c')
                {
                    return Err((word.at, dangerous(&format!("`{} {text}`", self.name))));
                }
                if option.starts_with('-') {
                    if !option.contains('=') {
                        return Err((word.at, self.unclear()));
                    }
                } else if option.ends_with(|letter| self.options_with_value.contains(letter)) {
                    match arguments.get(at) {
                        Some(value) if !value.is_literal() => return Err((value.at, self.unclear())),
                        _ => at += 1,
                    }
                }
                continue;
            }
            if operands > 0 {
                operands -= 1;
                continue;
            }
            return check(&arguments[at - 1..], found);
        }
        Ok(())
    }

    fn unclear(&self) -> TemplateProblem {
        dangerous(&format!(
            "`{}` with placeholders, expansions or long options (other than --name=value) before the command that it \
             runs",
            self.name
        ))
    }
}

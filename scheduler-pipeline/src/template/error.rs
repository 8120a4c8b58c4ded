use std::fmt;

/// A command that cannot be filled in safely.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem} (line {line}, column {column}: `{excerpt}`)")]
pub struct TemplateError {
    /// Line of the command, counted from 1.
    pub line: usize,
    /// Character of that line, counted from 1.
    pub column: usize,
    /// What stands there.
    pub excerpt: String,
    /// What is wrong and what to write instead.
    pub problem: TemplateProblem,
}

impl TemplateError {
    pub(super) fn new(source: &str, at: usize, problem: TemplateProblem) -> Self {
        let before = &source[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: source[line_start..at].chars().count() + 1,
            excerpt: source[at..].chars().take_while(|&c| c != '\n').take(24).collect(),
            problem,
        }
    }
}

/// Why a command was refused. Its text says what to write instead.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TemplateProblem {
    /// The command holds a NUL character.
    Nul,
    /// `{{` that no placeholder follows.
    NotAPlaceholder,
    /// A quote or a parenthesis is not closed.
    Unclosed(&'static str),
    /// A closing parenthesis without its opening one.
    Unopened,
    /// A placeholder stands where no quoting keeps its value a value.
    PlaceholderIn(&'static str),
    /// A placeholder names a command.
    PlaceholderNamesCommand,
    /// A placeholder names an option.
    PlaceholderNamesOption,
    /// A placeholder stands in what this command takes for code.
    PlaceholderInCode(String),
    /// A placeholder sets a variable that changes which commands run.
    PlaceholderSets(String),
    /// `\` or `$` before a placeholder would change the meaning of the quotes around its value.
    PlaceholderAfter(char),
    /// A construct that a command with placeholders cannot use.
    Unsupported(&'static str),
    /// A command that could run a value that reached it in another way.
    Dangerous(String),
    /// Too deep `$(…)` and `(…)`.
    TooDeep,
}

impl fmt::Display for TemplateProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul => f.write_str("a command cannot hold a NUL character"),
            Self::NotAPlaceholder => f.write_str(
                "`{{` begins a placeholder such as {{name}} (a letter or `_`, then letters, digits, `_` or `-`); \
                 to mean the braces themselves, part them with quotes: `{''{`",
            ),
            Self::Unclosed(what) => write!(f, "{what} is not closed"),
            Self::Unopened => f.write_str("`)` closes nothing"),
            Self::PlaceholderIn(what) => write!(
                f,
                "a placeholder cannot be made safe in {what}; set a variable before (`value={{{{name}}}}`) and use \
                 \"$value\" there, or write it another way"
            ),
            Self::PlaceholderNamesCommand => {
                f.write_str("a placeholder cannot name the command to run; write the command out")
            }
            Self::PlaceholderNamesOption => {
                f.write_str("a placeholder cannot name an option; write the option out, as in --name={{value}}")
            }
            Self::PlaceholderInCode(command) => write!(
                f,
                "`{command}` takes this for code, which one level of quoting cannot protect; hand the value over as \
                 an argument after the script, as in sh -c 'convert \"$1\" out.png' sh {{{{picture}}}}"
            ),
            Self::PlaceholderSets(variable) => {
                write!(f, "a placeholder cannot set `{variable}`, which decides what other commands run")
            }
            Self::PlaceholderAfter(c) => {
                write!(f, "`{c}` right before a placeholder changes the quotes around its value; remove it")
            }
            Self::Unsupported(what) => write!(
                f,
                "a command with placeholders cannot use {what}; move it to a script in the tool's image, or to a \
                 command of its own that gets its values in variables"
            ),
            Self::Dangerous(what) => write!(
                f,
                "a command with placeholders cannot use {what}, which could run a value as code; write the commands \
                 out"
            ),
            Self::TooDeep => f.write_str("commands are nested too deeply"),
        }
    }
}

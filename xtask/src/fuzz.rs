//! Fuzzing: `cargo fuzz` with the toolchain that everything else is built with.

use crate::Failed;
use crate::run::{cargo, root, run as execute};
use crate::tools;

pub(crate) const USAGE: &str = "\
  fuzz TARGET [--minutes N]
                tries inputs that it makes up for N minutes (5); targets are the directories of fuzz/corpus
";

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    let (target, minutes) = options(arguments)?;
    if !root().join("fuzz/corpus").join(&target).is_dir() {
        return Err(format!("there is no target `{target}` in fuzz/corpus"));
    }
    if !tools::is_installed("cargo-fuzz") {
        return Err("`cargo fuzz` is missing: cargo install cargo-fuzz --locked".to_owned());
    }
    let seconds = format!("-max_total_time={}", minutes.saturating_mul(60));
    // No sanitizer: there is no unsafe code of ours to watch, and so the pinned toolchain will do.
    let mut command = cargo(&["fuzz", "run", "--sanitizer", "none", &target, "--", &seconds]);
    command
        .args(["-timeout=20", "-rss_limit_mb=2048", "-max_len=4096"])
        .current_dir(root().join("fuzz"))
        .env("RUSTC_BOOTSTRAP", "1");
    execute(command)
}

fn options(arguments: &[String]) -> Result<(String, u64), Failed> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (target, minutes) = match words[..] {
        [target] => (target, Some(5)),
        [target, "--minutes", minutes] | ["--minutes", minutes, target] => (target, minutes.parse().ok()),
        _ => return Err(format!("which target?\n\n{USAGE}")),
    };
    let minutes = minutes.ok_or("`--minutes` wants a number after it")?;
    Ok((target.to_owned(), minutes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_comes_with_or_without_minutes() {
        let read = |line: &str| options(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(read("state"), Ok(("state".to_owned(), 5)));
        assert_eq!(read("state --minutes 2"), Ok(("state".to_owned(), 2)));
        assert!(read("state --minutes x").is_err());
        assert!(read("").is_err());
    }
}

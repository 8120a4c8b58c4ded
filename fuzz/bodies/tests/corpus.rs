//! Runs what is fuzzed on the inputs that were kept.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use scheduler_fuzz::{Body, TARGETS, quoting_in_a_shell};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = directory.read_dir().unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_input_that_was_kept_passes() {
    for (target, body) in TARGETS {
        let directory = corpus().join(target);
        let inputs = names(&directory);
        assert!(!inputs.is_empty(), "nothing is kept for {target}");
        for input in inputs {
            let data = std::fs::read(directory.join(&input)).unwrap();
            run(target, &input, *body, &data);
        }
    }
}

/// So that a failure names its input.
fn run(target: &str, input: &str, body: Body, data: &[u8]) {
    let result = std::panic::catch_unwind(|| body(data));
    assert!(result.is_ok(), "fuzz/corpus/{target}/{input} fails; see above");
}

#[test]
fn every_target_has_a_corpus_and_a_body() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&corpus()), targets);
    let files = names(&corpus().join("../fuzz_targets"));
    let binaries: BTreeSet<String> = files
        .iter()
        .filter_map(|file| Some(file.strip_suffix(".rs")?.to_owned()))
        .collect();
    assert_eq!(binaries, targets);
}

#[test]
fn values_that_were_kept_arrive_through_a_shell() {
    let directory = corpus().join("quoting");
    for input in names(&directory).iter().take(200) {
        let data = std::fs::read(directory.join(input)).unwrap();
        let value = data.splitn(2, |byte| *byte == 0).nth(1).unwrap_or_default();
        if let Ok(value) = std::str::from_utf8(value) {
            quoting_in_a_shell(value);
        }
    }
}

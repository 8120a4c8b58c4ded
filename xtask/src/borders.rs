//! Which crate may see which: the arrows of the architecture, checked on what cargo resolves.

use std::collections::{BTreeMap, BTreeSet};

use crate::Failed;
use crate::run::{cargo, output};

/// Crates of this workspace that a library may depend on, by whatever way. A crate that is not here has to be added, with thought.
const LIBRARIES: [(&str, &[&str]); 13] = [
    ("scheduler-core", &[]),
    ("scheduler-pipeline", &[]),
    ("scheduler-proto", &[]),
    ("scheduler-runtime", &["scheduler-core", "scheduler-pipeline"]),
    ("scheduler-embedded", &["scheduler-core"]),
    ("scheduler-kafka", &["scheduler-core"]),
    ("scheduler-grpc", &["scheduler-core", "scheduler-proto"]),
    ("scheduler-http", &["scheduler-core"]),
    ("scheduler-deploy", &["scheduler-core", "scheduler-pipeline"]),
    ("scheduler-sdk", &["scheduler-proto"]),
    (
        "scheduler-sim",
        &["scheduler-core", "scheduler-sdk", "scheduler-proto"],
    ),
    ("scheduler-testkit", &["scheduler-core"]),
    ("scheduler-tidb", &["scheduler-core"]),
];

/// Crates that stand outside: nothing depends on them but each other.
const OUTSIDE: [&str; 9] = [
    "scheduler-chaos",
    "scheduler-concurrency",
    "scheduler-fuzz",
    "scheduler-sim",
    "scheduler-examples",
    "scheduler-benches",
    "scheduler-load",
    "scheduler-tests",
    "xtask",
];

/// Crates of others that must not be seen from a library, by whatever way.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    // The core has no runtime, no serializer, no clock, no IO and no randomness.
    (
        "scheduler-core",
        &[
            "tokio",
            "serde",
            "serde_json",
            "rand",
            "getrandom",
            "tracing",
            "mio",
            "prost",
            "tonic",
        ],
    ),
    (
        "scheduler-pipeline",
        &["tokio", "mio", "tonic", "rand", "getrandom"],
    ),
    ("scheduler-runtime", &["axum", "tonic", "prost", "fjall"]),
    // What is written on it must not need a server's things.
    ("scheduler-sdk", &["fjall", "sqlx", "rdkafka", "clap"]),
];

/// Names of crates, by the crate that sees them.
type Seen = BTreeMap<String, BTreeSet<String>>;

pub(crate) fn run() -> Result<(), Failed> {
    let members = members(&output(cargo(&[
        "tree",
        "--workspace",
        "--depth",
        "0",
        "--prefix",
        "none",
    ]))?);
    let mut seen = Seen::new();
    for member in members.keys() {
        // Features included: a border has no exceptions. Tests may look over it.
        let tree = output(cargo(&[
            "tree",
            "--package",
            member,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--all-features",
        ]))?;
        let names = tree.lines().filter_map(name_of).filter(|name| name != member);
        seen.insert(member.clone(), names.collect());
    }
    let wrong = violations(&members, &seen);
    if wrong.is_empty() {
        println!("borders: {} crates see what they may", members.len());
        Ok(())
    } else {
        Err(format!("borders are crossed:\n  {}", wrong.join("\n  ")))
    }
}

/// The crates of the workspace, and whether each is a binary's.
fn members(tree: &str) -> BTreeMap<String, bool> {
    let lines = tree.lines().filter(|line| !line.is_empty());
    lines
        .filter_map(|line| Some((name_of(line)?, line.contains("/bins/"))))
        .collect()
}

fn name_of(line: &str) -> Option<String> {
    line.split_whitespace().next().map(str::to_owned)
}

fn violations(members: &BTreeMap<String, bool>, seen: &Seen) -> Vec<String> {
    let mut wrong = Vec::new();
    for (member, &is_binary) in members {
        let Some(seen) = seen.get(member) else { continue };
        let ours: Vec<&String> = seen.iter().filter(|name| members.contains_key(*name)).collect();
        if is_binary {
            for name in ours.iter().filter(|name| members.get(**name) == Some(&true)) {
                wrong.push(format!("{member} -> {name}: a binary sees libraries only"));
            }
        } else if let Some((_, allowed)) = LIBRARIES.iter().find(|(name, _)| name == member) {
            for name in ours.iter().filter(|name| !allowed.contains(&name.as_str())) {
                let allowed = if allowed.is_empty() {
                    "none of ours".to_owned()
                } else {
                    allowed.join(", ")
                };
                wrong.push(format!("{member} -> {name}: it may see {allowed}"));
            }
        } else if !OUTSIDE.contains(&member.as_str()) {
            wrong.push(format!(
                "{member} is in no layer; say in xtask/src/borders.rs what it may see"
            ));
        }
        if !OUTSIDE.contains(&member.as_str()) {
            for name in ours.iter().filter(|name| OUTSIDE.contains(&name.as_str())) {
                wrong.push(format!("{member} -> {name}: that stands outside"));
            }
        }
        let forbidden = FORBIDDEN.iter().filter(|(name, _)| name == member);
        for name in forbidden
            .flat_map(|(_, names)| *names)
            .filter(|name| seen.contains(**name))
        {
            wrong.push(format!("{member} -> {name}: not behind this border"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(member: &str, sees: &str) -> Vec<String> {
        let members = members(
            "scheduler-core v0.1.0 (/p/scheduler-core)\n\nscheduler-http v0.1.0 (/p/scheduler-http)\n\
             scheduler-grpc v0.1.0 (/p/scheduler-grpc)\n\nscheduler-sdk v0.1.0 (/p/scheduler-sdk)\n\
             scheduler-server v0.1.0 (/p/bins/scheduler-server)\nscheduler-new v0.1.0 (/p/scheduler-new)\n",
        );
        let seen = Seen::from([(member.to_owned(), BTreeSet::from([sees.to_owned()]))]);
        violations(&members, &seen)
    }

    #[test]
    fn arrows_that_point_inwards_pass() {
        assert!(wrong("scheduler-http", "scheduler-core").is_empty());
        assert!(wrong("scheduler-server", "scheduler-http").is_empty());
        assert!(wrong("scheduler-core", "bytes").is_empty());
    }

    #[test]
    fn every_arrow_that_points_the_wrong_way_is_named() {
        for (member, sees) in [
            ("scheduler-core", "scheduler-http"),
            ("scheduler-core", "tokio"),
            ("scheduler-core", "serde"),
            ("scheduler-sdk", "scheduler-core"),
            ("scheduler-http", "scheduler-grpc"),
            ("scheduler-http", "scheduler-server"),
        ] {
            let wrong = wrong(member, sees);
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            assert!(
                wrong[0].starts_with(&format!("{member} -> {sees}: ")),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_crate_without_a_layer_is_named() {
        assert!(wrong("scheduler-new", "bytes")[0].starts_with("scheduler-new is in no layer"));
    }
}

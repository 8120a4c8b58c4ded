//! This scheduler beside the queues that people would use instead, in one run on this machine.

use std::process::Command;

use crate::Failed;
use crate::run::{cargo, own, root, run as execute};
use crate::stamp::stamp;

pub(crate) const USAGE: &str = "\
  compare [PEER:MODE ...]
                the same work on this scheduler and on other queues, one after the other; `compare list` names them.
                Needs Go, Java and Maven, and of each peer what benches/peers/README.md says
";

/// What the table of benches/README.md has.
const USUAL: &[&str] = &[
    "workload-scheduler:embedded",
    "redis-streams:always",
    "redis-streams:everysec",
    "nats:default",
    "nats:always",
    "rabbitmq:quorum",
    "beanstalkd:f0",
    "faktory:rdb",
    "river:sync-on",
    "workload-scheduler:cluster",
    "kafka-share:default",
    "kafka-raw:default",
    "temporal-act:pg",
];

pub(crate) fn run(arguments: &[String]) -> Result<(), Failed> {
    if arguments == ["list"] {
        for peer in USUAL {
            println!("{peer}");
        }
        return Ok(());
    }
    if let Some(wrong) = arguments.iter().find(|peer| !peer.contains(':')) {
        return Err(format!(
            "`{wrong}` is not PEER:MODE; `cargo xtask compare list` names some"
        ));
    }
    let build = [
        "build",
        "--release",
        "--package",
        "scheduler-server",
        "--package",
        "scheduler-load",
    ];
    execute(cargo(&build))?;
    let harness = |what: &[&str]| -> Result<Command, Failed> {
        let work = root().join("target/compare");
        let mut command = Command::new(root().join("benches/peers/run.sh"));
        command
            .args(what)
            .env("WORK", &work)
            .env("SCHEDULER_BIN_DIR", root().join("target/release"))
            .env("SCHEDULER_XTASK", own()?);
        Ok(command)
    };
    let results = root().join("target/compare/results.jsonl");
    match std::fs::remove_file(&results) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{} cannot be begun anew: {error}", results.display()));
        }
        _ => (),
    }
    let peers: Vec<&str> = if arguments.is_empty() {
        USUAL.to_vec()
    } else {
        arguments.iter().map(String::as_str).collect()
    };
    execute(harness(&[&["build"], &peers[..]].concat())?)?;
    execute(harness(&peers)?)?;

    println!("\n{}\n", stamp());
    let mut table = Command::new("python3");
    table.arg(root().join("benches/peers/table.py")).arg(&results);
    execute(table)
}

//! What is done with the workspace, as one command: `cargo xtask`.
//!
//! It depends on nothing but the standard library, since it is built before everything else.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a tool for a terminal")]

mod bench;
mod borders;
mod chaos;
mod ci;
mod compare;
mod configuration;
mod demo;
mod fuzz;
mod instructions;
mod k8s;
mod mutations;
mod run;
mod services;
mod simulate;
mod stamp;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask COMMAND

  test [ARGS]   build everything and run every test, on real servers too; ARGS go to `cargo test`
  test-k8s [ARGS]
                tests of charts where there are pods: Kubernetes with this machine as a node, played nodes, KEDA and a registry,
                and tests of deploying with helm 4; as root, since pods run; ARGS go to `cargo test`
  ci            what must hold before a change is taken: format, lints, documents, borders, test
  borders       check which crate may see which
  configuration write docs/configuration.md from the programs' own definitions
  demo [ARGS]   the system at work on this machine; --once ends it by itself, --help shows the rest
";

fn usage() -> String {
    [
        USAGE,
        chaos::USAGE,
        services::USAGE,
        mutations::USAGE,
        simulate::USAGE,
        fuzz::USAGE,
        bench::USAGE,
        compare::USAGE,
        instructions::USAGE,
    ]
    .concat()
}

/// Why a command failed, for people.
type Failed = String;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next();
    let rest: Vec<String> = arguments.collect();
    let outcome = match (command.as_deref(), rest.as_slice()) {
        (Some("test"), _) => test::run(&rest),
        (Some("test-k8s"), _) => k8s::run(&rest),
        (Some("ci"), []) => ci::run(),
        (Some("borders"), []) => borders::run(),
        (Some("chaos"), _) => chaos::run(&rest),
        (Some("configuration"), []) => configuration::run(),
        (Some("services"), _) => services::run(&rest),
        (Some("fuzz"), _) => fuzz::run(&rest),
        (Some("instructions"), _) => instructions::run(&rest),
        (Some("bench"), _) => bench::run(&rest),
        (Some("compare"), _) => compare::run(&rest),
        (Some("mutations"), _) => mutations::run(&rest),
        (Some("simulate"), _) => simulate::run(&rest),
        // `cargo demo -- --once` and `cargo demo --once` are the same.
        (Some("demo"), [separator, rest @ ..]) if separator == "--" => demo::run(rest),
        (Some("demo"), _) => demo::run(&rest),
        (Some("help" | "--help" | "-h"), _) => {
            print!("{}", usage());
            Ok(())
        }
        _ => Err(format!("which command?\n\n{}", usage())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

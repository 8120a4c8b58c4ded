//! `docs/configuration.md` says what the programs' own definitions say.
//!
//! `cargo xtask configuration` writes it anew.
#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory as _};
use serde_json::Value;

/// Set to write the document instead of comparing it.
const UPDATE: &str = "SCHEDULER_UPDATE_DOCS";

const BEGINNING: &str = "\
# Configuration

Written by `cargo xtask configuration` from the programs' own definitions; a test fails when it is out of date. Every option of a
program is an environment variable as well; an option on the command line goes over it. An option that may be given several times takes its
values with commas between them in the environment. Units are in the name or the text of each: bytes, seconds, milliseconds.

What is logged is chosen by `RUST_LOG` in all of them: `info` (the default), `warn`, `scheduler_runtime=debug`.
";

#[test]
fn the_configuration_reference_says_what_the_programs_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let right = reference();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, right).unwrap();
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let different = right
        .lines()
        .zip(written.lines().chain(std::iter::repeat("")))
        .find(|(right, written)| right != written);
    assert!(
        right == written,
        "docs/configuration.md is out of date; write it anew with `cargo xtask configuration`. First difference: {different:?}"
    );
}

fn reference() -> String {
    let mut text = BEGINNING.to_owned();
    program(&mut text, scheduler_server::Arguments::command(), 2);
    program(&mut text, scheduler_worker::Arguments::command(), 2);
    text.push_str(
        "\nEach executor has two variables, with n = 0, 1, 2, …: `PIPELINE_AGENT__EXECUTORS__<n>__NAME`, the name that steps use, and \
         `PIPELINE_AGENT__EXECUTORS__<n>__TARGET`, where it listens (`127.0.0.1:50051`).\n",
    );
    program(&mut text, command_executor::Arguments::command(), 2);
    program(&mut text, scheduler_cli::Arguments::command(), 2);
    policy(&mut text);
    text
}

/// A program, and its subcommands below it.
fn program(text: &mut String, mut command: Command, depth: usize) {
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    write!(text, "\n{} {name}\n\n{about}\n", "#".repeat(depth)).unwrap();
    let is_ours = |argument: &&Arg| {
        let action = argument.get_action();
        !matches!(
            action,
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
        )
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(is_ours).collect();
    if !arguments.is_empty() {
        text.push_str("\n| option | environment | default | |\n| --- | --- | --- | --- |\n");
    }
    for argument in arguments {
        row(text, argument);
    }
    for subcommand in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        program(text, subcommand.clone(), depth + 1);
    }
}

fn row(text: &mut String, argument: &Arg) {
    let takes_value = argument.get_action().takes_values();
    let value = argument.get_value_names().and_then(<[_]>::first);
    let value = value.map(ToString::to_string).unwrap_or_default();
    let option = match argument.get_long() {
        Some(long) if takes_value => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    };
    let environment = argument
        .get_env()
        .map(|name| format!("`{}`", name.to_string_lossy()));
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut help = help.map(ToString::to_string).unwrap_or_default();
    if takes_value {
        let values: Vec<_> = argument
            .get_possible_values()
            .iter()
            .map(|value| {
                let meaning = value.get_help().map(|help| format!(" ({help})"));
                format!("`{}`{}", value.get_name(), meaning.unwrap_or_default())
            })
            .collect();
        if !values.is_empty() {
            write!(help, "; one of {}", values.join(", ")).unwrap();
        }
    }
    writeln!(
        text,
        "| `{option}` | {} | {} | {} |",
        environment.unwrap_or_default(),
        defaults.join(", "),
        cell(&help)
    )
    .unwrap();
}

/// The fields of a pipeline's policy, as the API's own document has them.
fn policy(text: &mut String) {
    let document: Value = serde_json::from_str(&scheduler_http::openapi_json().unwrap()).unwrap();
    text.push_str(
        "\n## A pipeline's policy\n\nGiven as `policy` when a pipeline is created, and changed by `PATCH`: what is not said stays. A \
         duration is written `1s`, `5m`, `1h30m`, `30days`; a size `16MiB`.\n\n| field | default | |\n| --- | --- | --- |\n",
    );
    fields(text, &document["components"]["schemas"], "Policy", "");
}

fn fields(text: &mut String, schemas: &Value, schema: &str, prefix: &str) {
    let properties = schemas[schema]["properties"].as_object().unwrap();
    for (name, field) in properties {
        // A reference to a schema with words of its own is one of several things that hold.
        let parts = ["oneOf", "allOf"].iter().filter_map(|key| field[key].as_array());
        let parts: Vec<&Value> = std::iter::once(field).chain(parts.flatten()).collect();
        let said = |key: &str| parts.iter().find_map(|part| part[key].as_str());
        let reference = said("$ref").and_then(|path| path.rsplit('/').next());
        let path = format!("{prefix}{name}");
        if let Some(group) = reference
            && schemas[group]["properties"].is_object()
        {
            fields(text, schemas, group, &format!("{path}."));
            continue;
        }
        let description = said("description").unwrap_or_default();
        let (what, default) = description.rsplit_once("Default ").unwrap_or((description, ""));
        let mut what = what.trim().to_owned();
        if let Some(more) = reference.and_then(|group| schemas[group]["description"].as_str())
            && schemas[reference.unwrap_or_default()]["enum"].is_array()
        {
            what = format!("{what} {more}");
        }
        let default = default.trim_end_matches('.').trim_matches('`');
        assert!(!default.is_empty(), "{path} does not say its default");
        writeln!(text, "| `{path}` | `{default}` | {} |", cell(&what)).unwrap();
    }
}

/// One line, in which nothing ends the cell.
fn cell(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").replace('|', "\\|")
}

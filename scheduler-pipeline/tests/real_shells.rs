//! What rendered commands do in the shells that will run them.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use proptest::prelude::*;
use scheduler_pipeline::{Params, Template};
use serde_json::json;

/// `sh` is always there; the others are tried where they are installed.
fn shells() -> Vec<&'static str> {
    let installed = |shell: &&str| {
        Command::new(shell)
            .args(["-c", ":"])
            .status()
            .is_ok_and(|status| status.success())
    };
    let shells: Vec<_> = ["sh", "bash", "dash", "busybox"]
        .into_iter()
        .filter(installed)
        .collect();
    assert!(shells.contains(&"sh"), "the tests need a POSIX shell named `sh`");
    shells
}

fn run(shell: &str, command: &str, directory: &Path) -> Output {
    Command::new(shell)
        .args(if shell == "busybox" {
            &["sh", "-c"][..]
        } else {
            &["-c"]
        })
        .arg(command)
        .current_dir(directory)
        .env("HOME", "/home/of someone")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn params(x: &str) -> Params {
    Params::from_json(json!({ "x": x }).to_string().as_bytes()).unwrap()
}

/// Every place a value can stand in, and the argument that must arrive there.
const PLACES: &[(&str, &str, &str)] = &[
    (r"printf '%s\0' {{x}}", "", ""),
    (r"printf '%s\0' '{{x}}'", "", ""),
    (r#"printf '%s\0' "{{x}}""#, "", ""),
    (r"printf '%s\0' pre{{x}}post", "pre", "post"),
    (r#"printf '%s\0' "pre {{x}} post""#, "pre ", " post"),
    (r"printf '%s\0' 'pre {{x}} post'", "pre ", " post"),
    (
        r#"printf '%s\0' "$HOME{{x}}$HOME""#,
        "/home/of someone",
        "/home/of someone",
    ),
    (r#"printf '%s\0' "a"'b'c{{x}}"d"\ e"#, "abc", "d e"),
    (r"printf '%s\0' ~{{x}}", "~", ""),
    (r#"printf '%s\0' "$(printf '%s.' {{x}})""#, "", "."),
    (r#"printf '%s\0' "$(printf '%s.' "{{x}}")""#, "", "."),
    (r#"printf '%s\0' "$(printf '%s.' '{{x}}')""#, "", "."),
    (
        r#"printf '%s\0' "$(printf '%s.' "$(printf '%s.' "<{{x}}>")")""#,
        "<",
        ">..",
    ),
    (r#"y={{x}}; printf '%s\0' "$y""#, "", ""),
    (r#"y="{{x}}" z='{{x}}'; printf '%s\0' "$y""#, "", ""),
    (r#"for y in {{x}}; do printf '%s\0' "$y"; done"#, "", ""),
    (r"(true && printf '%s\0' {{x}})", "", ""),
    (r"if true; then { printf '%s\0' {{x}}; }; fi 2>/dev/null", "", ""),
    (r"printf '%s' {{x}} | cat; printf '\0'", "", ""),
    (
        r"true # it's a comment
       printf '%s\0' \
         {{x}}",
        "",
        "",
    ),
    (r#"sh -c 'printf "%s\0" "$1"' sh {{x}}"#, "", ""),
    (r#"set -- {{x}}; printf '%s\0' "$#$1""#, "1", ""),
];

/// Text of what is special to some shell, mixed with anything at all.
fn value() -> impl Strategy<Value = String> {
    let special = prop::sample::select(vec![
        "'",
        "\"",
        "\\",
        "`",
        "$",
        "$(touch PWNED)",
        "`touch PWNED`",
        "${HOME}",
        "$HOME",
        "\n",
        "\r",
        "\t",
        " ",
        "!",
        "!!",
        "*",
        "?",
        "[a]",
        "~",
        "#",
        "&",
        "|",
        ";",
        "<",
        ">",
        "(",
        ")",
        "{",
        "}",
        "{a,b}",
        "{{x}}",
        "-",
        "--",
        "-n",
        "=",
        "%s",
        "%",
        "\\0",
        "\\'",
        "'\\''",
        "\"'\"",
        "\u{81}",
        "\u{88}",
        "é",
        "日本",
        "🦀",
        "\u{202e}",
        "\u{7f}",
        "\u{1}",
        "'; touch PWNED; '",
        "\"; touch PWNED; \"",
        "\n touch PWNED\n",
    ]);
    let any = any::<String>().prop_map(|text| text.replace('\0', ""));
    let piece = prop_oneof![4 => special.prop_map(str::to_owned), 1 => any];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn exactly_the_value_arrives_as_exactly_one_argument(value in value()) {
        let directory = tempfile::tempdir().unwrap();
        // A value that opens an argument of `set` needs `--` when it looks like an option; see the unit tests.
        let places = PLACES.iter().filter(|(template, ..)| !(template.starts_with("set") && value.starts_with('-')));
        let (commands, expected): (Vec<_>, Vec<_>) = places
            .map(|(template, before, after)| {
                let command = Template::parse(template).unwrap().render(&params(&value)).unwrap();
                (command, format!("{before}{value}{after}\0"))
            })
            .unzip();
        for shell in shells() {
            let output = run(shell, &commands.join("\n"), directory.path());
            prop_assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                expected.concat(),
                "{} said {}",
                shell,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        prop_assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "a value was run");
    }
}

/// Pieces of shell that, put together at random, get placeholders into every quoting there is.
fn template() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{x}}",
        "{{x}}",
        "{{x}}",
        "{{x}}",
        "echo ",
        "printf %s ",
        "cat ",
        " ",
        " ",
        "'",
        "'",
        "\"",
        "\"",
        "\\",
        "`",
        "$",
        "$(",
        "$(echo ",
        ")",
        "(",
        "$y",
        "${y}",
        "${y:-",
        "${#y}",
        "}",
        "{",
        "#",
        "\n",
        "\\\n",
        ";",
        ";;",
        "&&",
        "|",
        "<",
        ">f",
        ">&2",
        "<<E\n",
        "\nE\n",
        "$((",
        "))",
        "[[ ",
        " ]]",
        "case ",
        " in ",
        "esac",
        "y=",
        "-n ",
        "--",
        "sh -c ",
        "eval ",
        "for y in ",
        "; do echo $y; done",
        "if true; then ",
        "; fi",
        "sed ",
        "awk ",
        "xargs ",
        "env ",
        "[ ",
        " ]",
        "~",
        "*",
        "!",
        "$'",
        "$\"",
        "=",
        "1",
        "y",
    ]);
    prop::collection::vec(piece, 2..14).prop_map(|pieces| format!("echo {{{{x}}}}; echo {}", pieces.concat()))
}

const ATTACKS: &[&str] = &[
    "$(touch PWNED)",
    "`touch PWNED`",
    "; touch PWNED ;",
    "\ntouch PWNED\n",
    "'; touch PWNED; '",
    "\"; touch PWNED; \"",
    "\"'; touch PWNED; '\"",
    "\\'; touch PWNED #",
    "\\\"; touch PWNED #",
    "); touch PWNED; (",
    "}; touch PWNED; {",
    ";; touch PWNED ;;",
    "a[$(touch PWNED)]",
    "\nE\ntouch PWNED\n",
    "|touch PWNED",
    "&touch PWNED&",
    "HOME}$(touch PWNED)",
    "`\ntouch PWNED\n`",
    "')\ntouch PWNED\n'",
    "*/;touch PWNED",
    "BEGIN{system(\"touch PWNED\")}",
    "1e touch PWNED",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_global_rejects: 1_000_000, ..ProptestConfig::default() })]

    #[test]
    fn no_accepted_template_runs_a_value(template in template()) {
        let Ok(parsed) = Template::parse(&template) else { return Err(TestCaseError::reject("refused")) };
        let directory = tempfile::tempdir().unwrap();
        let attacks = || ATTACKS.iter().map(|attack| parsed.render(&params(attack)).unwrap());
        for shell in shells() {
            // One shell runs every attack in turn, each in a subshell of its own, as a syntax error ends it.
            let script: Vec<_> = attacks().collect();
            let mut arguments = vec!["sh".to_owned()];
            arguments.extend(script);
            let status = Command::new(shell)
                .args(if shell == "busybox" { &["sh", "-c"][..] } else { &["-c"] })
                .arg(format!(r#"for command do {shell} -c "$command"; done"#))
                .args(&arguments)
                .current_dir(directory.path())
                .stdin(Stdio::null())
                .output();
            prop_assert!(status.is_ok());
        }
        prop_assert!(!directory.path().join("PWNED").exists(), "a value was run");
    }
}

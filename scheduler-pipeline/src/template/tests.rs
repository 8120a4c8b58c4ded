use serde_json::json;

use super::*;

fn params(value: serde_json::Value) -> Params {
    match value {
        serde_json::Value::Object(values) => Params::new(values),
        other => panic!("{other} is not an object"),
    }
}

fn render(template: &str, value: &str) -> String {
    Template::parse(template)
        .unwrap()
        .render(&params(json!({ "x": value })))
        .unwrap()
}

fn problem(template: &str) -> TemplateProblem {
    match Template::parse(template) {
        Ok(_) => panic!("`{template}` was accepted"),
        Err(error) => error.problem,
    }
}

#[test]
fn a_value_is_quoted_for_its_place() {
    assert_eq!(render("echo {{x}}", "it's"), r"echo 'it'\''s'");
    assert_eq!(render("echo '<{{ x }}>'", "it's"), r"echo '<it'\''s>'");
    assert_eq!(render("echo \"$y{{x}}\"", "it's"), r#"echo "$y"'it'\''s'"""#);
    assert_eq!(render("echo \"$(cat {{x}})\"", "a b"), r#"echo "$(cat 'a b')""#);
    assert_eq!(render("cat <{{x}} >{{x}}.out", "-f"), "cat <'-f' >'-f'.out");
}

#[test]
fn a_command_without_placeholders_may_be_anything() {
    for command in [
        "case $x in a) echo;; esac",
        "cat <<E\nit's\nE",
        "echo 'open",
        "eval \"$CODE\"",
        "f() { :; }",
    ] {
        assert_eq!(
            Template::parse(command)
                .unwrap()
                .render(&Params::default())
                .unwrap(),
            command
        );
    }
}

#[test]
fn pipelines_as_people_write_them_are_accepted() {
    for command in [
        "wget -O /mnt/pipe/{{name}}.png -- \"{{url}}\"",
        "for file in $(ls -v /mnt/pipe); do tesseract /mnt/pipe/$file /mnt/pipe/{{out}}; done",
        "mc alias set store {{endpoint}} \"$KEY\" \"$SECRET\" && mc cp --recursive /mnt/pipe store/{{bucket}}/",
        "cat /mnt/pipe/out.txt | head -n {{lines}} 2>/dev/null || true",
        "sh -c 'convert \"$1\" out.png' sh {{picture}}",
        "env LANG={{lang}} timeout -k 5 30s tesseract {{in}} out",
        "find {{dir}} -name '*.png' -exec sh -c 'echo \"$1\"' sh {} \\;",
        "awk -v want={{x}} '$1 == want { print $2 }' {{file}}",
        "sed -n -e 's/a/b/p' {{file}}; python3 -m tool {{x}}; python3 tool.py {{x}}",
        "if [ -f {{x}} ]; then cat {{x}} # a comment\nelse echo none >&2; fi",
        "wget --header=\"X-Id: {{id}}\" \\\n  -O out {{url}}",
        "name=$(basename {{x}} .png); echo \"${name%.*} $((1 + 2)) `date +%s`\"",
        "export LANG={{x}}; { echo {{x}}; } && ! false",
    ] {
        Template::parse(command).unwrap_or_else(|error| panic!("`{command}`: {error}"));
    }
}

#[test]
fn a_placeholder_where_no_quoting_helps_is_refused() {
    use TemplateProblem as P;
    let place = |template: &str| matches!(problem(template), P::PlaceholderIn(_));
    assert!(place("echo `cat {{x}}`"));
    assert!(place("echo $(( {{x}} + 1 ))"));
    assert!(place("echo ${y:-{{x}}}"));
    assert!(place("echo # {{x}}"));
    assert!(place("for {{x}} in a; do echo; done"));
    assert!(place("export {{x}}"));
    assert!(place("echo >&{{x}}"));
    assert_eq!(problem(r"echo \{{x}}"), P::PlaceholderAfter('\\'));
    assert_eq!(problem(r#"echo "\{{x}}""#), P::PlaceholderAfter('\\'));
    assert_eq!(problem("echo ${{x}}"), P::PlaceholderAfter('$'));
    assert_eq!(problem("echo \"${{x}}\""), P::PlaceholderAfter('$'));
    assert_eq!(problem("{{x}} a"), P::PlaceholderNamesCommand);
    assert_eq!(problem("true && /bin/{{x}} a"), P::PlaceholderNamesCommand);
    assert_eq!(problem("y=1 >out {{x}}"), P::PlaceholderNamesCommand);
    assert_eq!(problem("nohup {{x}}"), P::Dangerous(dangerous_wrapper("nohup")));
    assert_eq!(problem("find . -exec {{x}} \\;"), P::PlaceholderNamesCommand);
    assert_eq!(problem("wget --{{x}}"), P::PlaceholderNamesOption);
    assert_eq!(problem("wget -{{x}}"), P::PlaceholderNamesOption);
    assert_eq!(problem("PATH={{x}} ls"), P::PlaceholderSets("PATH".into()));
    assert_eq!(
        problem("env LD_PRELOAD={{x}} ls"),
        P::PlaceholderSets("LD_PRELOAD".into())
    );
}

fn dangerous_wrapper(name: &str) -> String {
    match problem(&format!("{name} $x {{{{x}}}}")) {
        TemplateProblem::Dangerous(text) => text,
        other => panic!("{other}"),
    }
}

#[test]
fn a_placeholder_in_code_is_refused() {
    for template in [
        "sh -c 'echo {{x}}'",
        "/bin/bash -ec \"echo {{x}}\"",
        "bash {{x}}",
        "sh -o {{x}} script",
        "env A=b timeout 5 sh -c 'echo {{x}}'",
        "find . -exec sh -c 'echo {{x}}' \\;",
        "xargs -I {} sh -c 'echo {{x}}'",
        "ssh host 'ls {{x}}'",
        "awk '{{x}}' file",
        "awk -F , '{{x}}' file",
        "sed 's/a/{{x}}/' file",
        "sed -l 5 's/a/{{x}}/' file",
        "sed -e p --expression={{x}} file",
        "sed -e p -e {{x}} file",
        "python3.11 -c 'print(\"{{x}}\")'",
        "perl -ne 'print {{x}}'",
        "trap {{x}} EXIT",
        "hash -p {{x}} ls",
        "printf -v {{x}} 1",
        "[ -v {{x}} ]",
        "read {{x}}",
        "busybox sh -c 'echo {{x}}'",
    ] {
        assert!(
            matches!(problem(template), TemplateProblem::PlaceholderInCode(_)),
            "{template}"
        );
    }
}

#[test]
fn a_value_cannot_reach_code_by_a_detour() {
    for template in [
        "y={{x}}; eval \"$y\"",
        "y={{x}}; $y",
        "y={{x}}; sh -c \"$y\"",
        "echo {{x}} | sh",
        "echo {{x}} | bash -s",
        "echo {{x}} | python3 -",
        ". /lib; echo {{x}}",
        "env -S 'sh -c' {{x}}",
    ] {
        assert!(
            matches!(problem(template), TemplateProblem::Dangerous(_)),
            "{template}"
        );
    }
}

#[test]
fn what_shells_read_differently_is_refused_beside_a_placeholder() {
    for template in [
        "case {{x}} in a) echo;; esac",
        "cat <<E\n{{x}}\nE",
        "cat <<<{{x}}",
        "f() { echo {{x}}; }",
        "(( y )); echo {{x}}",
        "[[ {{x}} -gt 1 ]]",
        "echo $'a' {{x}}",
        "echo $[1] {{x}}",
        "{fd}>out {{x}}",
        "a=({{x}})",
        "diff <(ls) {{x}}",
        "echo `echo 'a'` {{x}}",
        "echo ${y:-'a'} {{x}}",
        "echo a\\\nb {{x}}",
        "echo {{x}} \\",
    ] {
        assert!(
            matches!(problem(template), TemplateProblem::Unsupported(_)),
            "{template}"
        );
    }
    assert_eq!(
        problem("echo '{{x}}"),
        TemplateProblem::Unclosed("a single quote")
    );
    assert_eq!(problem("echo $(echo {{x}}"), TemplateProblem::Unclosed("`(`"));
    assert_eq!(problem("echo {{x}} )"), TemplateProblem::Unopened);
    assert_eq!(
        problem(&format!("echo {}{{{{x}}}}", "$(".repeat(40))),
        TemplateProblem::TooDeep
    );
}

#[test]
fn an_error_says_where() {
    let error = Template::parse("echo é\n  \"{{x y}}\"").unwrap_err();
    assert_eq!((error.line, error.column), (2, 4));
    assert!(
        error.to_string().ends_with("(line 2, column 4: `{{x y}}\"`)"),
        "{error}"
    );
}

#[test]
fn a_value_does_not_become_an_option() {
    let refused = |template: &str, value: serde_json::Value| {
        let rendered = Template::parse(template)
            .unwrap()
            .render(&params(json!({ "x": value })));
        matches!(rendered, Err(ParamError::LeadingDash { .. }))
    };
    assert!(refused("wget {{x}}", json!("--use-askpass=reboot")));
    assert!(refused("wget '{{x}}'", json!("-i/etc/passwd")));
    assert!(refused("wget $y\"\"{{x}}", json!("-i")));
    assert!(!refused("wget -- {{x}}", json!("-i")));
    assert!(!refused("wget --output={{x}}", json!("-i")));
    assert!(!refused("wget ./{{x}}", json!("-i")));
    assert!(!refused("printf %s {{x}}", json!("-i")));
    assert!(!refused("sh -c 'cat -- \"$1\"' sh {{x}}", json!("-i")));
    assert!(!refused("y={{x}}", json!("-i")));
    assert!(!refused("head -n {{x}}", json!(-5)));
    assert!(!refused("cat {{x}}", json!("-")));
    let two = Template::parse("wget {{x}}{{y}}")
        .unwrap()
        .render(&params(json!({ "x": "", "y": "-i" })));
    assert_eq!(two, Err(ParamError::LeadingDash { name: "y".into() }));
}

#[test]
fn values_that_no_command_can_take_are_errors_that_name_the_param() {
    let template = Template::parse("echo {{x}}").unwrap();
    assert_eq!(
        template.render(&Params::default()),
        Err(ParamError::Missing { name: "x".into() })
    );
    assert_eq!(
        template.render(&params(json!({ "x": "a\0" }))),
        Err(ParamError::Nul { name: "x".into() })
    );
    let long = params(json!({ "x": "'".repeat(MAX_RENDERED_BYTES / 2) }));
    assert_eq!(
        template.render(&long),
        Err(ParamError::CommandTooLong { name: "x".into() })
    );
}

#[test]
fn other_json_values_are_their_text() {
    let render = |value| {
        Template::parse("echo {{x}}")
            .unwrap()
            .render(&params(json!({ "x": value })))
            .unwrap()
    };
    assert_eq!(render(json!(1.5)), "echo '1.5'");
    assert_eq!(render(json!(true)), "echo 'true'");
    assert_eq!(render(json!(null)), "echo 'null'");
    assert_eq!(render(json!({"a": ["b c"]})), r#"echo '{"a":["b c"]}'"#);
}

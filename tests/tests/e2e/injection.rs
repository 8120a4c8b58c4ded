//! A param stays a value, through the server, the agent, the executor and a real shell.

use serde_json::json;

use crate::world::{Pipeline, World, run};

/// Where a param may stand in a command: bare, in double quotes, in single quotes, in the middle of a word, in a here-document.
const PLACES: [&str; 4] = [
    "printf '%s' {{value}}",
    "printf '%s' \"{{value}}\"",
    "printf '%s' '{{value}}'",
    "printf '%s' before{{value}}after",
];

async fn check(pipeline: &Pipeline, values: &[String]) {
    let ids = pipeline
        .submit_all(values.iter().map(|value| json!({"value": value})))
        .await;
    for (value, id) in values.iter().zip(&ids) {
        let output = pipeline.output(id).await;
        let expected = [
            value.clone(),
            value.clone(),
            value.clone(),
            format!("before{value}after"),
        ];
        assert_eq!(output, json!({"1:shell": expected}), "{value:?}");
    }
}

#[test]
fn no_param_becomes_a_command() {
    run(async {
        let mut world = World::start().await;
        let schema =
            json!({"required": ["value"], "properties": {"value": {"type": "string", "leadingDash": true}}});
        let pipeline = world.shell("inject", &PLACES, json!({"params": schema})).await;
        let canary = world.path().join("canary");
        let touch = format!("touch {}", canary.display());
        let mut values: Vec<String> = [
            "$(CMD)",
            "`CMD`",
            "; CMD #",
            "' ; CMD ; '",
            "\" ; CMD ; \"",
            "'\"'\"'$(CMD)",
            "\\\"; CMD; \\\"",
            "\\'; CMD; \\'",
            "\nCMD\n",
            "\r\nCMD\r\n",
            "a\n'\nCMD\n'",
            "&& CMD",
            "|| CMD",
            "| CMD",
            "& CMD &",
            "> CANARY",
            ">CANARY",
            "< CANARY",
            "${IFS}CMD",
            "$((1+1))",
            "$HOME",
            "${PATH}",
            "~",
            "~root",
            "*",
            "?",
            "[a-z]",
            "{a,b}",
            "!!",
            "!$",
            "#",
            "# comment",
            "\\",
            "\\\\",
            "'",
            "\"",
            "''",
            "\"\"",
            "`",
            "$",
            "$'\\n'",
            "$\"x\"",
            "<<EOF\nCMD\nEOF",
            "EOF",
            "%s%n%d",
            "--help",
            "-n",
            "",
            " ",
            "  two  spaces  ",
            "\t",
            "\u{7f}\u{1b}[31m",
            "äöü ß 漢字 🦀",
            "\u{202e}evil",
            "{{value}}",
            "{{pipe}}",
            "$(CMD",
            "`CMD",
            "\"$(CMD)\"",
            "'$(CMD)'",
            "\\$(CMD)",
            "\\`CMD\\`",
            "a;b|c&d<e>f(g)h{i}j",
        ]
        .iter()
        .map(|value| {
            value
                .replace("CMD", &touch)
                .replace("CANARY", canary.to_str().unwrap())
        })
        .collect();
        values.push("x".repeat(60_000));
        check(&pipeline, &values).await;
        assert!(!canary.exists(), "a param was run as a command");
        world.stop().await;
    });
}

#[test]
fn no_mixture_of_what_shells_read_becomes_a_command() {
    const PIECES: [&str; 24] = [
        "'", "\"", "`", "$(", ")", "$", "{", "}", "\\", "\n", ";", "&", "|", "<", ">", "*", "~", "#", "!",
        "=", " ", "a", "\t", "touch C",
    ];
    run(async {
        let mut world = World::start().await;
        let schema =
            json!({"required": ["value"], "properties": {"value": {"type": "string", "leadingDash": true}}});
        let pipeline = world
            .shell(
                "inject",
                &PLACES,
                json!({"params": schema, "replicas": {"min": 2, "max": 2}}),
            )
            .await;
        let canary = world.path().join("canary");
        // Chance, but the same in every run.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % 1_000_003).unwrap() % below
        };
        let values: Vec<String> = (0..300)
            .map(|_| {
                let length = 1 + next(12);
                let text: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
                text.replace('C', canary.to_str().unwrap())
            })
            .collect();
        check(&pipeline, &values).await;
        assert!(!canary.exists(), "a param was run as a command");
        world.stop().await;
    });
}

#[test]
fn a_nul_is_refused_at_the_door() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.shell("inject", &PLACES, json!({})).await;
        let answer = pipeline
            .api
            .post(&pipeline.path, &json!({"value": "a\u{0}b"}))
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.body["field"]),
            (400, &json!("params.value")),
            "{}",
            answer.body
        );
        let lines = pipeline
            .bulk(
                "",
                vec![r#"{"value":"a\u0000b"}"#.into(), r#"{"value":"good"}"#.into()],
            )
            .await;
        assert_eq!(lines[0]["error"]["field"], "params.value", "{}", lines[0]);
        assert_eq!(
            pipeline.output(lines[1]["id"].as_str().unwrap()).await["1:shell"][0],
            "good"
        );
        world.stop().await;
    });
}

#[test]
fn a_command_in_which_a_value_could_become_code_is_refused_with_the_pipeline() {
    run(async {
        let mut world = World::start().await;
        let pipelines = "/api/applications/myname/pipelines";
        for command in [
            "sh -c '{{value}}'",
            "eval {{value}}",
            "echo $(( {{value}} ))",
            "cat <<EOF\n{{value}}\nEOF",
            "{{value}} x",
        ] {
            let new = json!({"name": "bad", "pipeline": [{"executor": "shell", "commands": [command]}]});
            let answer = world.api().post(pipelines, &new).await.unwrap();
            assert_eq!(answer.status.as_u16(), 400, "{command}: {}", answer.body);
            let field = answer.body["field"].as_str().unwrap();
            assert!(
                field.starts_with("pipeline[0].commands[0]"),
                "{command}: {}",
                answer.body
            );
        }
        world.stop().await;
    });
}

//! Definitions as they are written in charts and requests, and what is said about bad ones.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a test ends where something unexpected happens"
)]

use std::time::Duration;

use scheduler_pipeline::{ParamError, Params, PipelineDefinition};
use serde_json::{Value, json};

fn params(value: &Value) -> Params {
    Params::from_json(value.to_string().as_bytes()).unwrap()
}

fn error(value: &Value) -> String {
    PipelineDefinition::from_json(&value.to_string())
        .unwrap_err()
        .to_string()
}

#[test]
fn three_spellings_mean_the_same() {
    let canonical = json!({"pipeline": [
        {"executor": "wget", "commands": ["wget -O /mnt/pipe/a.png -- {{url}}"]},
        {"executor": "tesseract", "commands": ["tesseract /mnt/pipe/a.png out", "cat out.txt"]},
    ]});
    let platform = canonical.to_string().replace("\"executor\"", "\"executorName\"");
    let agent = platform
        .replace("\"commands\"", "\"commandLines\"")
        .replace("\"pipeline\"", "\"commands\"");
    let expected = PipelineDefinition::from_json(&canonical.to_string()).unwrap();
    for spelling in [platform, agent] {
        assert_eq!(
            PipelineDefinition::from_json(&spelling).unwrap(),
            expected,
            "{spelling}"
        );
        assert_eq!(
            PipelineDefinition::from_yaml(&spelling).unwrap(),
            expected,
            "{spelling}"
        );
    }
    assert_eq!(
        serde_json::from_str::<Value>(&expected.to_json()).unwrap(),
        canonical
    );
}

#[test]
fn a_definition_is_written_as_it_is_read() {
    let definition = PipelineDefinition::from_yaml(
        r#"
        pipeline:
          - executor: wget
            timeout: 1.5m
            commands:
              - |
                wget -O {{pipe}}/in.png \
                  -- {{url}}
        params:
          required: [url]
          additionalProperties: false
          properties:
            url: { type: string, maxLength: 20, pattern: "^https?://", description: Where the picture is }
            size: { type: integer, enum: [1, 2], default: 1 }
            note: { type: string, leadingDash: true }
        "#,
    )
    .unwrap();
    assert_eq!(definition.steps()[0].timeout, Some(Duration::from_secs(90)));
    assert_eq!(
        PipelineDefinition::from_json(&definition.to_json()).unwrap(),
        definition
    );
    let through_serde: PipelineDefinition =
        serde_json::from_value(serde_json::to_value(&definition).unwrap()).unwrap();
    assert_eq!(through_serde, definition);
}

#[test]
fn a_definition_is_found_among_other_values_of_a_chart() {
    let values = json!({"replicaCount": {"min": 0}, "pipeline": [{"executor": "a", "commands": ["true"]}]});
    assert_eq!(PipelineDefinition::from_value(&values).unwrap().steps().len(), 1);
    assert_eq!(
        error(&values),
        "replicaCount: is unknown; a definition has `pipeline` and `params`"
    );
}

#[test]
fn errors_name_the_field() {
    let step = |step: Value| error(&json!({"pipeline": [{"executor": "a", "commands": ["true"]}, step]}));
    for (error, expected) in [
        (error(&json!([])), "pipeline: must be in an object"),
        (error(&json!({})), "pipeline: is missing"),
        (error(&json!({"pipeline": []})), "pipeline: is empty"),
        (error(&json!({"pipeline": {}})), "pipeline: must be an array"),
        (
            error(&json!({"pipeline": vec![0; 33]})),
            "pipeline: has 33 steps, at most 32",
        ),
        (
            step(json!("wget")),
            "pipeline[1]: must be an object, found a string",
        ),
        (
            step(json!({"commands": ["a"]})),
            "pipeline[1].executor: is missing",
        ),
        (
            step(json!({"executorName": "a b", "commands": ["a"]})),
            "pipeline[1].executorName: must be a name",
        ),
        (
            step(json!({"executor": "a", "executorName": "a", "commands": ["a"]})),
            "pipeline[1].executorName: means",
        ),
        (step(json!({"executor": "a"})), "pipeline[1].commands: is missing"),
        (
            step(json!({"executor": "a", "commands": []})),
            "pipeline[1].commands: is empty",
        ),
        (
            step(json!({"executor": "a", "commandLines": [" "]})),
            "pipeline[1].commandLines[0]: is empty",
        ),
        (
            step(json!({"executor": "a", "commands": ["a", 1]})),
            "pipeline[1].commands[1]: must be a string",
        ),
        (
            step(json!({"executor": "a", "commands": ["a".repeat(20_000)]})),
            "pipeline[1].commands[0]: is 20000 bytes",
        ),
        (
            step(json!({"executor": "a", "commands": vec!["a"; 65]})),
            "pipeline[1].commands: has 65 commands",
        ),
        (
            step(json!({"executor": "a", "commands": ["{{x}}"]})),
            "pipeline[1].commands[0]: a placeholder cannot name",
        ),
        (
            step(json!({"executor": "a", "commands": ["a"], "timeout": "soon"})),
            "pipeline[1].timeout: must be seconds",
        ),
        (
            step(json!({"executor": "a", "commands": ["a"], "timeoutSeconds": 0})),
            "pipeline[1].timeoutSeconds: must",
        ),
        (
            step(json!({"executor": "a", "commands": ["a"], "retry": 1})),
            "pipeline[1].retry: is unknown",
        ),
    ] {
        assert!(error.starts_with(expected), "`{error}` instead of `{expected}`");
    }
    let schema =
        |params: Value| error(&json!({"pipeline": [{"executor": "a", "commands": ["a"]}], "params": params}));
    for (error, expected) in [
        (schema(json!([])), "params: must be an object"),
        (schema(json!({"oneOf": []})), "params.oneOf: is not supported"),
        (
            schema(json!({"required": [1]})),
            "params.required[0]: must be the name",
        ),
        (
            schema(json!({"properties": {"a b": {}}})),
            "params.properties.a b: is not a name",
        ),
        (
            schema(json!({"properties": {"pipe": {}}})),
            "params.properties.pipe: is set by the worker",
        ),
        (
            schema(json!({"properties": {"a": {"type": "list"}}})),
            "params.properties.a.type: must be",
        ),
        (
            schema(json!({"properties": {"a": {"pattern": "("}}})),
            "params.properties.a.pattern: is not a usable",
        ),
        (
            schema(json!({"properties": {"a": {"pattern": "(a{1000}){1000}"}}})),
            "params.properties.a.pattern: is not",
        ),
        (
            schema(json!({"properties": {"a": {"minimum": 1}}})),
            "params.properties.a.minimum: is not supported",
        ),
        (
            schema(json!({"properties": {"a": {"type": "integer", "default": "x"}}})),
            "params.properties.a.default: ",
        ),
    ] {
        assert!(error.starts_with(expected), "`{error}` instead of `{expected}`");
    }
    assert!(
        PipelineDefinition::from_yaml("pipeline: [")
            .unwrap_err()
            .to_string()
            .contains("is not YAML")
    );
    assert!(
        PipelineDefinition::from_json(&" ".repeat(300_000))
            .unwrap_err()
            .to_string()
            .contains("bytes long")
    );
}

#[test]
fn params_are_checked_as_a_task_is_submitted() {
    let definition = PipelineDefinition::from_json(
        &json!({
            "pipeline": [{"executor": "a", "commands": ["echo {{pipe}} {{url}} {{size}} -- {{note}}"]}],
            "params": {
                "required": ["url"],
                "additionalProperties": false,
                "properties": {
                    "url": {"type": "string", "maxLength": 12, "pattern": "^http"},
                    "size": {"type": "integer", "enum": [1, 2], "default": 2},
                    "note": {},
                },
            },
        })
        .to_string(),
    )
    .unwrap();
    let check = |value: Value| definition.check(params(&value));

    let checked = check(json!({"url": "http://ab/é", "note": "-n"})).unwrap();
    assert_eq!(checked.values()["size"], json!(2));
    let error = |value: Value| check(value).unwrap_err();
    assert_eq!(
        error(json!({"note": 1})),
        ParamError::Missing { name: "url".into() }
    );
    assert_eq!(
        error(json!({"url": "http://"})),
        ParamError::Missing { name: "note".into() }
    );
    assert_eq!(
        error(json!({"url": "http", "x": 1})),
        ParamError::Unknown { name: "x".into() }
    );
    assert!(matches!(error(json!({"url": 1})), ParamError::Type { .. }));
    assert!(matches!(
        error(json!({"url": "http://abcdéf"})),
        ParamError::TooLong {
            length: 13,
            max: 12,
            ..
        }
    ));
    assert!(matches!(
        error(json!({"url": "ftp://"})),
        ParamError::Pattern { .. }
    ));
    assert!(matches!(
        error(json!({"url": "http", "size": 3})),
        ParamError::NotAllowed { .. }
    ));
    assert!(matches!(
        error(json!({"url": "http", "note": "\0"})),
        ParamError::Nul { .. }
    ));
    assert!(matches!(
        Params::from_json(b"[1]"),
        Err(ParamError::NotAnObject { .. })
    ));
    assert!(matches!(
        Params::from_json(b"{"),
        Err(ParamError::NotAnObject { .. })
    ));
    assert_eq!(Params::from_json(b" "), Ok(Params::default()));
}

#[test]
fn an_option_is_taken_where_the_schema_allows_it() {
    let definition = |params: Value| {
        let value = json!({"pipeline": [{"executor": "a", "commands": ["echo {{note}}"]}], "params": params});
        PipelineDefinition::from_value(&value).unwrap()
    };
    let note = params(&json!({"note": "-a list"}));
    let open = definition(json!({"properties": {"note": {"leadingDash": true}}}))
        .check(note.clone())
        .unwrap();
    assert_eq!(
        definition(json!({})).steps()[0].commands[0]
            .render(&open)
            .unwrap(),
        "echo '-a list'"
    );
    assert_eq!(
        definition(json!({})).check(note),
        Err(ParamError::LeadingDash { name: "note".into() })
    );
}

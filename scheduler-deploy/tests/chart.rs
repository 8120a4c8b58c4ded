//! Charts as people write them, and as they should not.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::DeployError;
use scheduler_deploy::chart::Chart;

const STEPS: &str = "pipeline:\n  - executor: sh\n    commands: [\"echo {{text}}\"]\n";

fn chart(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let named = [("Chart.yaml", "name: example\nversion: 1.0.0\n")];
    for (name, text) in named.iter().chain(files) {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    directory
}

fn deployment(chart: &str, values: &str) -> Deployment {
    Deployment {
        chart: chart.to_owned(),
        values: values.to_owned().into(),
        replicas: Replicas { min: 1, max: 1 },
    }
}

fn read(directory: &Path, values: &str) -> Result<Chart, DeployError> {
    Chart::read(&deployment(directory.to_str().unwrap(), values), &[])
}

#[track_caller]
fn refused(result: Result<Chart, DeployError>, field: &str, problem: &str) {
    match result.unwrap_err() {
        DeployError::Invalid { field: f, problem: p } => {
            assert_eq!(f, field, "{p}");
            assert!(p.contains(problem), "{p}");
        }
        error => panic!("{error:?}"),
    }
}

fn names(chart: &Chart) -> Vec<&str> {
    chart
        .executors
        .iter()
        .map(|executor| executor.name.as_str())
        .collect()
}

#[test]
fn the_definition_is_in_the_values() {
    let directory = chart(&[("values.yaml", &format!("{STEPS}replicas: {{min: 0, max: 4}}\n"))]);
    let chart = read(directory.path(), "").unwrap();
    assert_eq!(chart.name, "example");
    assert_eq!(names(&chart), ["sh"]);
    let facts = chart.facts();
    assert_eq!(facts.replicas, Some(Replicas { min: 0, max: 4 }));
    assert_eq!(
        facts.definition.unwrap(),
        r#"{"pipeline":[{"commands":["echo {{text}}"],"executor":"sh"}]}"#
    );
}

#[test]
fn every_spelling_is_read() {
    for values in [
        "pipeline: [{executorName: sh, commands: [\"ls\"]}]",
        "commands: [{executorName: sh, commandLines: [\"ls\"]}]",
    ] {
        let directory = chart(&[("values.yaml", values)]);
        assert_eq!(names(&read(directory.path(), "").unwrap()), ["sh"]);
    }
}

#[test]
fn the_definition_is_in_a_file_of_its_own() {
    let directory = chart(&[("pipeline.yaml", STEPS)]);
    assert!(read(directory.path(), "").unwrap().definition.is_some());
    let json = r#"{"pipeline": [{"executor": "sh", "commands": ["ls"]}]}"#;
    let directory = chart(&[("pipeline.json", json)]);
    assert!(read(directory.path(), "").unwrap().definition.is_some());
}

#[test]
fn the_definition_is_in_a_labelled_config_map() {
    let template = "kind: ConfigMap\nmetadata:\n  name: p\n  labels:\n    workload-scheduler/pipeline: \"true\"\ndata:\n  pipeline.yaml: |\n    pipeline:\n      - executor: sh\n        commands: [\"echo {{`{{text}}`}}\"]\n";
    let other = "kind: Service\nmetadata:\n  name: {{ .Release.Name }}\n";
    let both = format!("kind: Service\nmetadata:\n  name: s\n---\n{template}");
    for map in [template, &both] {
        let directory = chart(&[("templates/a.yaml", other), ("templates/pipeline.yaml", map)]);
        let chart = read(directory.path(), "").unwrap();
        let definition = chart.definition.unwrap();
        assert_eq!(definition.steps()[0].commands[0].source(), "echo {{text}}");
    }

    let unreadable = template.replace("name: p", "name: {{ .Release.Name }}");
    let directory = chart(&[("templates/pipeline.yaml", &unreadable)]);
    refused(
        read(directory.path(), ""),
        "templates/pipeline.yaml",
        "without Helm",
    );
    let empty = template.replace("pipeline.yaml: |", "other: |");
    let directory = chart(&[("templates/pipeline.yaml", &empty)]);
    refused(
        read(directory.path(), ""),
        "templates/pipeline.yaml: data",
        "pipeline.yaml or pipeline.json",
    );
}

/// The OCR chart that is in use: names, ports and bounds, and no definition.
#[test]
fn a_chart_of_the_existing_kind_is_read() {
    let values = r#"
replicaCount: {min: 1, max: 10}
pipeline_agent:
  env:
    - {name: PIPELINE_AGENT__NAME, value: "ocr"}
    - {name: PIPELINE_AGENT__EXECUTORS__0__NAME, value: "wget"}
    - {name: PIPELINE_AGENT__EXECUTORS__0__TARGET, value: "127.0.0.1:50051"}
    - {name: PIPELINE_AGENT__EXECUTORS__1__NAME, value: "ocr-tool"}
    - {name: PIPELINE_AGENT__EXECUTORS__1__TARGET, value: "127.0.0.1:50052"}
executor_wget:
  env:
    - {name: COMMAND_EXECUTOR_NAME, value: "wget"}
    - {name: COMMAND_EXECUTOR_SERVER_GRPC_PORT, value: ":50051"}
executor_tesseract:
  env:
    - {name: COMMAND_EXECUTOR_NAME, value: "tesseract"}
    - {name: COMMAND_EXECUTOR_SERVER_GRPC_PORT, value: ":50052"}
    - {name: OMP_THREAD_LIMIT, value: 1}
executor_mc: {enabled: false}
"#;
    let directory = chart(&[("values.yaml", values)]);
    let read = read(directory.path(), "").unwrap();
    // What the agent calls an executor is what pipelines call it.
    assert_eq!(names(&read), ["ocr-tool", "wget"]);
    assert_eq!(read.executors[0].environment["OMP_THREAD_LIMIT"], "1");
    assert_eq!(read.agent_environment.len(), 1);
    assert_eq!(read.replicas, Some(Replicas { min: 1, max: 10 }));
    assert_eq!(read.facts().definition, None);
}

#[test]
fn values_of_the_deployment_lie_over_those_of_the_chart() {
    let values = format!("{STEPS}replicas: {{min: 1, max: 4}}\nexecutors: [{{name: sh, env: {{A: x}}}}]\n");
    let directory = chart(&[("values.yaml", &values)]);
    let over = r#"{"replicas": {"max": 9}, "executors": ["sh", "cat"]}"#;
    let chart = read(directory.path(), over).unwrap();
    assert_eq!(chart.replicas, Some(Replicas { min: 1, max: 9 }));
    assert_eq!(names(&chart), ["sh", "cat"]);
    assert!(chart.executors[0].environment.is_empty());
    let chart = read(directory.path(), r#"{"pipeline": null, "executors": null}"#).unwrap();
    assert_eq!((chart.definition, chart.executors.len()), (None, 0));

    refused(read(directory.path(), "{"), "values", "must be JSON");
    refused(read(directory.path(), "[]"), "values", "must be a JSON object");
}

#[test]
fn what_is_wrong_is_named_by_file_and_field() {
    let values = |text: &str| {
        let directory = chart(&[("values.yaml", text)]);
        read(directory.path(), "")
    };
    refused(values("a: [1"), "values.yaml", "is not YAML");
    refused(values("- 1"), "values.yaml", "must be a map");
    refused(values("pipeline: []"), "values.yaml: pipeline", "is empty");
    refused(
        values("pipeline: [{executor: sh, commands: [7]}]"),
        "values.yaml: pipeline[0].commands[0]",
        "must be a string",
    );
    refused(
        values("executors: sh"),
        "values.yaml: executors",
        "must be a list",
    );
    refused(
        values("executors: [sh, 1]"),
        "values.yaml: executors[1]",
        "must be a name",
    );
    refused(
        values("executors: [sh, sh]"),
        "values.yaml: executors",
        "sh is there twice",
    );
    refused(
        values("executors: [{name: sh, env: {A: [1]}}]"),
        "values.yaml: executors[0].env.A",
        "must be a text",
    );
    refused(
        values("executor_sh: {env: [{name: A, valueFrom: {}}]}"),
        "values.yaml: executor_sh.env[0].value",
        "only plain values",
    );

    let directory = chart(&[("Chart.yaml", "version: 1")]);
    refused(
        read(directory.path(), ""),
        "Chart.yaml: name",
        "name of the chart",
    );
    let directory = chart(&[("Chart.yaml", "name: x\ntype: library")]);
    refused(read(directory.path(), ""), "Chart.yaml: type", "library");
    let long = format!("a: {}", "x".repeat(1 << 20));
    refused(values(&long), "values.yaml", "is longer than");
}

#[test]
fn only_directories_of_this_machine_are_taken() {
    let refused = |chart: &str, problem| refused(Chart::read(&deployment(chart, ""), &[]), "chart", problem);
    refused("", "must not be empty");
    refused(
        "https://example.org/ocr.tgz",
        "https:// is not taken; this deployer takes a directory",
    );
    refused("oci://registry/ocr", "oci:// is not taken");
    refused("repo/chart", "there is no chart directory repo/chart");
    refused("file://charts/ocr", "three slashes");
    refused("/nowhere/at/all", "there is no chart directory");
    let empty = tempfile::tempdir().unwrap();
    refused(empty.path().to_str().unwrap(), "has no Chart.yaml");

    let directory = chart(&[]);
    let url = format!("file://{}", directory.path().display());
    assert!(Chart::read(&deployment(&url, ""), &[]).is_ok());
}

#[test]
fn a_chart_lies_below_the_roots_where_there_are_some() {
    let root = tempfile::tempdir().unwrap();
    let inside = root.path().join("ocr");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("Chart.yaml"), "name: ocr").unwrap();
    let outside = chart(&[]);
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    let read =
        |path: PathBuf| Chart::read(&deployment(path.to_str().unwrap(), ""), &[root.path().to_owned()]);
    assert!(read(inside.clone()).is_ok());
    let up = inside.join("../..").join(outside.path().file_name().unwrap());
    for path in [
        outside.path().to_owned(),
        up,
        root.path().join("link"),
        root.path().join("nothing"),
    ] {
        refused(read(path.clone()), "chart", "there is no chart directory");
        refused(
            read(path),
            "chart",
            "below one of those that its operator allows (--chart-root)",
        );
    }
}

#[test]
fn no_file_outside_of_the_chart_is_read() {
    let secret = tempfile::tempdir().unwrap();
    std::fs::write(secret.path().join("s.yaml"), STEPS).unwrap();
    for name in ["values.yaml", "pipeline.yaml", "templates/pipeline.yaml"] {
        let directory = chart(&[("templates/x.txt", "")]);
        std::os::unix::fs::symlink(secret.path().join("s.yaml"), directory.path().join(name)).unwrap();
        refused(read(directory.path(), ""), name, "leads out");
    }
    // A link inside the chart is a file like another.
    let directory = chart(&[("files/v.yaml", STEPS)]);
    std::os::unix::fs::symlink("files/v.yaml", directory.path().join("values.yaml")).unwrap();
    assert!(read(directory.path(), "").unwrap().definition.is_some());
}

/// The charts of the examples, as they are.
#[test]
fn the_charts_of_the_examples_are_read() {
    let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/charts");
    let ocr = read(&charts.join("ocr"), "").unwrap();
    assert_eq!(names(&ocr), ["wget", "tesseract"]);
    assert_eq!(ocr.executors[1].environment["OMP_THREAD_LIMIT"], "1");
    assert_eq!(ocr.replicas, Some(Replicas { min: 1, max: 10 }));
    let filled = |chart: Chart, params: &str| {
        let definition = chart.definition.unwrap();
        let params = scheduler_pipeline::Params::from_json(params.as_bytes()).unwrap();
        let params = definition.check(params)?.with_pipe("/w");
        let commands = definition.steps().iter().flat_map(|step| &step.commands);
        commands
            .map(|command| command.render(&params))
            .collect::<Result<Vec<_>, _>>()
    };
    let commands = filled(ocr.clone(), r#"{"url": "http://127.0.0.1/a b.png?x='$(id)'"}"#).unwrap();
    println!("{commands:#?}");
    assert_eq!(commands.len(), 4);
    for bad in [
        r"{}",
        r#"{"url": "-O/etc/passwd"}"#,
        r#"{"url": "file:///etc/passwd"}"#,
    ] {
        assert!(filled(ocr.clone(), bad).is_err(), "{bad}");
    }
    let coreutils = read(&charts.join("coreutils"), "").unwrap();
    assert_eq!(names(&coreutils), ["text", "count"]);
    let commands = filled(coreutils, r#"{"text": "-n it's $(id)\n"}"#).unwrap();
    println!("{commands:#?}");
    assert_eq!(commands.len(), 4);
}

/// The chart for any pipeline, with the values of one: no chart of its own is needed.
#[test]
fn the_chart_for_pipelines_is_read_with_the_values_of_a_request() {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/pipeline");
    let values = r#"{
        "pipeline": [{"executor": "count", "commands": ["wc -w < {{pipe}}/text"]}],
        "executors": [{"name": "count", "image": "debian:12-slim", "env": {"LANG": "C"}}],
        "replicas": {"min": 0}
    }"#;
    let count = read(&chart, values).unwrap();
    assert_eq!(names(&count), ["count"]);
    assert_eq!(count.executors[0].environment["LANG"], "C");
    assert_eq!(count.replicas, Some(Replicas { min: 0, max: 4 }));
    assert_eq!(count.definition.unwrap().steps().len(), 1);
}

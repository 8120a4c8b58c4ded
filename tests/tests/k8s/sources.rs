//! From every kind of source to a result: a chart fetched, deployed, its pods at work, and what they make of a task.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::pods::{done, node, ready, until_rollout, world};
use crate::web::Web;
use crate::world::{PIPELINES, World, led_to};

/// A pipeline of busybox's tools: the values of `charts/pipeline`, and nothing else.
pub(crate) const WORDS: &str = r#"
pipeline:
  - executor: wget
    commands: ["wget -q -O {{pipe}}/page {{url}}"]
  - executor: count
    commands: ["wc -w < {{pipe}}/page"]
params:
  required: [url]
  properties:
    url: { type: string, pattern: "^https?://", maxLength: 2048 }
replicas: { min: 1, max: 2 }
executors:
  - { name: wget, image: "workload-scheduler/busybox:0.1.0" }
  - { name: count, image: "workload-scheduler/busybox:0.1.0" }
nodeSelector: { type: real }
"#;

pub(crate) fn run(program: impl AsRef<std::ffi::OsStr>, directory: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .current_dir(directory)
        .args(arguments)
        .env("HELM_CACHE_HOME", directory.join("helm/cache"))
        .env("HELM_CONFIG_HOME", directory.join("helm/config"))
        .env("HELM_DATA_HOME", directory.join("helm/data"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
}

/// The pipeline as a chart that is called `words`.
pub(crate) fn chart(directory: &Path) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("charts/pipeline");
    let chart = directory.join("words");
    run(
        "cp",
        directory,
        &["-r", own.to_str().unwrap(), chart.to_str().unwrap()],
    );
    let about = std::fs::read_to_string(chart.join("Chart.yaml")).unwrap();
    std::fs::write(
        chart.join("Chart.yaml"),
        about.replace("name: pipeline", "name: words"),
    )
    .unwrap();
    let defaults = std::fs::read_to_string(chart.join("values.yaml")).unwrap();
    // Of two equal keys in YAML there must be one.
    let kept = defaults
        .split("\n\n")
        .filter(|part| {
            let key = part
                .lines()
                .find(|line| !line.starts_with('#'))
                .unwrap_or_default();
            let set = ["pipeline:", "params:", "replicas:", "executors:"];
            !set.iter().any(|name| key.starts_with(name))
        })
        .collect::<Vec<_>>()
        .join("\n\n");
    let kept = kept.replace("nodeSelector:\n  kubernetes.io/os: linux\n", "");
    std::fs::write(chart.join("values.yaml"), format!("{kept}\n{WORDS}")).unwrap();
    chart
}

#[tokio::test]
async fn in_pods_a_task_is_done_with_a_chart_from_every_kind_of_source() {
    let place = tempfile::tempdir().unwrap();
    let served = place.path().join("served");
    std::fs::create_dir(&served).unwrap();
    let chart = chart(place.path());
    let helm = led_to("SCHEDULER_TEST_HELM");
    let registry = led_to("SCHEDULER_TEST_REGISTRY");

    // A repository of charts, and its archive by itself.
    run(&helm, &served, &["package", chart.to_str().unwrap()]);
    let web = Web::serve(&served, "127.0.0.1").await;
    run(&helm, &served, &["repo", "index", ".", "--url", &web.url("")]);
    // A registry.
    let to = format!("oci://{registry}/charts-of-tests");
    run(&helm, &served, &["push", "words-0.1.0.tgz", &to, "--plain-http"]);
    // A repository of git, whose host gives archives as GitHub does.
    let repository = place.path().join("repository");
    run("mkdir", place.path(), &["-p", "repository/deploy"]);
    run("cp", place.path(), &["-r", "words", "repository/deploy/words"]);
    run(
        "git",
        &repository,
        &["init", "--quiet", "--initial-branch", "main"],
    );
    run("git", &repository, &["add", "--all"]);
    let who = [
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@localhost",
        "-c",
        "commit.gpgsign=false",
    ];
    run(
        "git",
        &repository,
        &[&who[..], &["commit", "--quiet", "--message", "a chart"]].concat(),
    );
    run("mkdir", &served, &["-p", "archives/acme/charts/tar.gz"]);
    let archive = served.join("archives/acme/charts/tar.gz/main");
    let archive = [
        "archive",
        "--format=tar.gz",
        "--prefix=charts-main/",
        "-o",
        archive.to_str().unwrap(),
        "main",
    ];
    run("git", &repository, &archive);
    // As GitLab does, of a project in a group of a group.
    run("mkdir", &served, &["-p", "group/sub/charts/-/archive/main"]);
    let named = "group/sub/charts/-/archive/main/charts-main.tar.gz";
    run("cp", &served, &["archives/acme/charts/tar.gz/main", named]);

    // All that a GitHub shows is repositories.
    let github = Web::serve(&served, "127.0.0.1").await;
    // It needs no more than that it may be called.
    let gitlab = Web::serve(&served, "127.0.0.1").await;
    let pages = github.url("").trim_end_matches('/').to_owned();
    let mut world = world(&[
        ("--chart-root", place.path().to_str().unwrap()),
        ("--chart-source", &web.url("")),
        ("--chart-source", &format!("oci://{registry}/")),
        ("--chart-private-host", &web.host()),
        ("--chart-private-host", &registry),
        (
            "--chart-repository",
            &format!("acme={}", web.url("").trim_end_matches('/')),
        ),
        ("--chart-source", &gitlab.url("group/")),
        ("--chart-private-host", &gitlab.host()),
        ("--chart-source", &github.url("")),
        ("--chart-private-host", &github.host()),
        ("--chart-github", &format!("{pages}={}", github.url("archives"))),
    ])
    .await;
    std::fs::write(served.join("page"), "to be or not to be\n").unwrap();
    let page = Web::serve(&served, &node()).await;
    let kinds = [
        ("directory", chart.display().to_string()),
        ("archive", web.url("words-0.1.0.tgz")),
        ("github", github.url("acme/charts/tree/main/deploy/words")),
        ("gitlab", gitlab.url("group/sub/charts/-/tree/main/deploy/words")),
        ("repository", "acme/words@0.1.0".to_owned()),
        (
            "registry",
            format!("oci://{registry}/charts-of-tests/words:0.1.0"),
        ),
    ];
    for (name, chart) in &kinds {
        let created = world
            .api()
            .post(PIPELINES, &json!({"name": name, "chart": chart}))
            .await
            .unwrap();
        assert_eq!(created.status, 201, "{name}: {}", created.body);
    }
    for (name, _) in &kinds {
        until_rollout(&world, name, ready(1)).await;
        let task = done(&world, name, &json!({"url": page.url("page")})).await;
        assert_eq!(task["output"]["2:count"], json!(["6\n"]), "{name}: {task}");
    }
    for (name, _) in &kinds {
        let deleted = world.api().delete(&World::pipeline(name)).await.unwrap();
        assert!(deleted.status.is_success(), "{name}: {}", deleted.body);
    }
    world.until_gone().await;
    world.stop().await;
}

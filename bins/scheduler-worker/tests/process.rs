//! The binary as charts start it: environment, probes, the agent's own API, SIGTERM.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::process::Stdio;

use command_executor::{Config, serve};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use tokio_util::sync::{CancellationToken, DropGuard};

struct Process {
    child: Child,
    url: String,
    stop_executors: CancellationToken,
    _guard: DropGuard,
    _workspace: TempDir,
    _log: Lines<BufReader<ChildStderr>>,
}

/// A worker with real executors `wget` and `tesseract`, which here are but shells.
async fn start(environment: &[(&str, &str)]) -> Process {
    let stop_executors = CancellationToken::new();
    let workspace = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scheduler-worker"));
    for (number, name) in ["wget", "tesseract"].into_iter().enumerate() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        tokio::spawn(serve(listener, Config::default(), stop_executors.clone()));
        command.env(format!("PIPELINE_AGENT__EXECUTORS__{number}__NAME"), name);
        command.env(format!("PIPELINE_AGENT__EXECUTORS__{number}__TARGET"), target);
    }
    let mut child = command
        .env("PIPELINE_AGENT__NAME", "agent")
        .env("SCHEDULER_WORKER_HTTP", "127.0.0.1:0")
        .env("SCHEDULER_WORKSPACE", workspace.path())
        .envs(environment.iter().copied())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let url = loop {
        let line = log
            .next_line()
            .await
            .unwrap()
            .expect("the worker says where it serves HTTP");
        if let Some((_, address)) = line.split_once("address=") {
            break format!("http://{}", address.split(' ').next().unwrap());
        }
    };
    let guard = stop_executors.clone().drop_guard();
    Process {
        child,
        url,
        stop_executors,
        _guard: guard,
        _workspace: workspace,
        _log: log,
    }
}

impl Process {
    async fn get(&self, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = reqwest::Client::new()
            .post(format!("{}{path}", self.url))
            .body(body.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    fn terminate(&self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::SIGTERM).unwrap();
    }
}

#[tokio::test]
async fn the_agents_own_api_takes_every_spelling() {
    let process = start(&[]).await;
    let expected = json!({
        "result": true,
        "message": null,
        "output": {"1:wget": ["got it\n"], "2:tesseract": ["got it\n", "2\n"]},
    });
    let one = "echo 'got it' | tee {{pipe}}/file";
    let two = ["cat {{pipe}}/file", "echo 2"];
    for body in [
        json!({"commands": [{"executorName": "wget", "commandLines": [one]}, {"executorName": "tesseract", "commandLines": two}]}),
        json!({"pipeline": [{"executorName": "wget", "commands": [one]}, {"executorName": "tesseract", "commands": two}]}),
        json!({"pipeline": [{"executor": "wget", "commands": [one]}, {"executor": "tesseract", "commands": two}]}),
    ] {
        for path in ["/api/v1/Pipeline", "/api/v1/pipeline"] {
            assert_eq!(process.post(path, &body).await, (200, expected.clone()));
        }
    }

    let failing = json!({"commands": [{"executorName": "wget", "commandLines": ["echo so far; exit 8"]}]});
    let message = "step 1 (executor wget): command 1 of 1 (`echo so far; exit 8`) ended with exit code 8";
    let expected = json!({"result": false, "message": message, "output": {"1:wget": ["so far\n"]}});
    assert_eq!(process.post("/api/v1/Pipeline", &failing).await, (200, expected));

    for (body, text) in [
        (json!({"commands": []}), "commands: is empty"),
        (json!({}), "pipeline: is missing"),
        (
            json!({"commands": [{"executorName": "wget", "commandLines": []}]}),
            "commands[0].commandLines: is empty",
        ),
        (
            json!({"commands": [{"executorName": "wget", "commandLines": ["echo {{x}}"]}]}),
            "param `x` is missing",
        ),
    ] {
        let (status, answer) = process.post("/api/v1/Pipeline", &body).await;
        assert_eq!((status, &answer["result"]), (400, &json!(false)));
        assert!(answer["message"].as_str().unwrap().starts_with(text), "{answer}");
    }
    assert_eq!(process.get("/api/v1/Pipeline").await.0, 405);
    assert_eq!(process.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn probes_tell_alive_from_ready_and_sigterm_ends_it() {
    let mut process = start(&[]).await;
    assert_eq!(process.get("/healthz").await, (200, "ok".into()));
    assert_eq!(process.get("/ready").await, (200, "ready".into()));
    process.stop_executors.cancel();
    loop {
        let (status, text) = process.get("/ready").await;
        if status == 503 && text.lines().count() == 2 {
            assert!(text.starts_with("executor tesseract at 127.0.0.1:"), "{text}");
            break;
        }
    }
    assert_eq!(process.get("/healthz").await.0, 200);
    process.terminate();
    assert!(process.child.wait().await.unwrap().success());
}

#[tokio::test]
async fn without_its_scheduler_a_worker_is_alive_and_not_ready() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{closed}");
    let mut process = start(&[
        ("SCHEDULER_URL", &url),
        ("SCHEDULER_APPLICATION", "app"),
        ("SCHEDULER_PIPELINE", "ocr"),
    ])
    .await;
    assert_eq!(process.get("/healthz").await.0, 200);
    assert_eq!(
        process.get("/ready").await,
        (503, "no session with the scheduler".into())
    );
    process.terminate();
    assert!(process.child.wait().await.unwrap().success());
}

//! The agent with real command executors and a real shell.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use command_executor::{Config, serve};
use scheduler_proto::exec::exec_service_server::{ExecService, ExecServiceServer};
use scheduler_proto::exec::{ExecCommands, ExecEvent, ExecResult};
use scheduler_sdk::testing::{Trial, Tried};
use scheduler_sdk::{TaskError, TaskService, service};
use scheduler_worker::{Agent, Executors, Workspace};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

struct World {
    service: TaskService,
    directory: TempDir,
    _stop: DropGuard,
}

/// Executors `a` and `b`, and `gone` that nobody serves.
async fn world(concurrency: u32) -> World {
    let stop = CancellationToken::new();
    let mut executors = Vec::new();
    for name in ["a", "b"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        executors.push((name.to_owned(), listener.local_addr().unwrap().to_string()));
        let config = Config {
            kill_grace: Duration::from_millis(100),
            ..Config::default()
        };
        tokio::spawn(serve(listener, config, stop.clone()));
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    executors.push(("gone".to_owned(), closed.to_string()));

    let directory = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(Some(directory.path().join("pipe")), concurrency).unwrap();
    let agent = Agent::new(Executors::new(executors).unwrap(), workspace);
    let service = service(move |params, context| {
        let agent = agent.clone();
        async move { agent.run(params, context).await }
    });
    World {
        service,
        directory,
        _stop: stop.drop_guard(),
    }
}

impl World {
    async fn run(&self, steps: &Value, params: &Value) -> Tried {
        let trial = Trial::new(params).definition(json!({ "pipeline": steps }).to_string());
        trial.run(self.service.clone()).await
    }

    async fn output(&self, steps: &Value, params: &Value) -> Result<Value, TaskError> {
        self.run(steps, params).await.output()
    }

    async fn error(&self, steps: &Value, params: &Value) -> TaskError {
        self.output(steps, params).await.unwrap_err()
    }
}

#[tokio::test]
async fn steps_share_files_and_their_outputs_are_gathered() {
    let world = world(1).await;
    let steps = json!([
        {"executor": "a", "commands": ["printf '%s' {{text}} >{{pipe}}/text"]},
        {"executor": "b", "commands": ["cat \"$PIPE_DIR/text\"", "ls {{pipe}}"]},
        {"executor": "a", "commands": ["wc -c <{{pipe}}/text"]},
    ]);
    let text = "it's $(id) `id` \"quoted\"\n; exit 1";
    let output = world.output(&steps, &json!({ "text": text })).await.unwrap();
    let length = format!("{}\n", text.len());
    assert_eq!(
        output,
        json!({"1:a": [""], "2:b": [text, "text\n"], "3:a": [length]})
    );

    // The next task finds nothing of it.
    let steps = json!([{"executor": "b", "commands": ["ls {{pipe}}"]}]);
    assert_eq!(
        world.output(&steps, &json!({})).await.unwrap(),
        json!({"1:b": [""]})
    );
}

#[tokio::test]
async fn tasks_at_once_do_not_see_each_other() {
    let world = world(2).await;
    let steps = json!([{"executor": "a", "commands": [
        "echo {{n}} >{{pipe}}/mine; touch {{pipe}}/../met-{{n}}; until [ -e {{pipe}}/../met-{{other}} ]; do sleep 0.01; done",
        "cat {{pipe}}/*",
    ]}]);
    let (one, two) = (json!({"n": 1, "other": 2}), json!({"n": 2, "other": 1}));
    let definition = json!({ "pipeline": steps }).to_string();
    let (one, two) = tokio::join!(
        Trial::new(&one)
            .definition(definition.clone())
            .run(world.service.clone()),
        Trial::new(&two)
            .definition(definition)
            .attempt(2)
            .run(world.service.clone()),
    );
    assert_eq!(one.output().unwrap(), json!({"1:a": ["", "1\n"]}));
    assert_eq!(two.output().unwrap(), json!({"1:a": ["", "2\n"]}));
}

#[tokio::test]
async fn the_scheduler_hears_where_each_step_is() {
    let world = world(1).await;
    let steps = json!([
        {"executor": "a", "commands": ["true", "true"]},
        {"executor": "b", "commands": ["exit 3"]},
        {"executor": "a", "commands": ["true"]},
    ]);
    let tried = world.run(&steps, &json!({})).await;
    let states: Vec<_> = tried
        .progress
        .iter()
        .map(|progress| {
            let steps = progress["steps"].as_array().unwrap();
            steps
                .iter()
                .map(|step| &step["state"].as_str().unwrap()[..1])
                .collect::<String>()
        })
        .collect();
    let mut distinct = states.clone();
    distinct.dedup();
    assert_eq!(distinct, ["rww", "sww", "srw", "sfw"]);
    assert_eq!(
        tried.progress.last().unwrap()["steps"][0],
        json!({"step": "1:a", "state": "succeeded", "commands": 2, "commandsEnded": 2})
    );
}

#[tokio::test]
async fn failures_say_where_and_whether_to_try_again() {
    let world = world(1).await;
    let failing = json!([
        {"executor": "a", "commands": ["true"]},
        {"executor": "b", "commands": ["echo fine", "echo 'no such picture' >&2; exit 4"]},
    ]);
    let error = world.error(&failing, &json!({})).await;
    assert_eq!(
        error.to_string(),
        "step 2 (executor b): command 2 of 2 (`echo 'no such picture' >&2; exit 4`) ended with exit code 4: no such picture"
    );
    assert!(!error.is_permanent());

    let echo = json!([{"executor": "a", "commands": ["echo {{x}}"]}]);
    for (params, text) in [
        (json!({}), "param `x` is missing"),
        (json!({"x": "a\0"}), "param `x` holds a NUL"),
        (json!({"x": "-n"}), "param `x` begins with `-`"),
        (json!([1]), "params: invalid type"),
    ] {
        let error = world.error(&echo, &params).await;
        assert!(
            error.is_permanent() && error.to_string().starts_with(text),
            "{error}"
        );
    }

    for (steps, text) in [
        (
            json!([{"executor": "gone", "commands": ["true"]}]),
            "step 1 (executor gone): executor at 127.0.0.1:",
        ),
        (
            json!([{"executor": "mc", "commands": ["true"]}]),
            "step 1 (executor mc): this worker has no executor of that name (it has: a, b, gone)",
        ),
        (json!([]), "the pipeline's definition: pipeline: is empty"),
        (
            json!([{"executor": "a", "commands": ["sleep 1000"], "timeoutSeconds": 0.1}]),
            "step 1 (executor a): command 1 of 1 (`sleep 1000`) was stopped: its time was over",
        ),
    ] {
        let error = world.error(&steps, &json!({})).await;
        assert!(
            !error.is_permanent() && error.to_string().starts_with(text),
            "{error}"
        );
    }
    let error = Trial::new(&json!({}))
        .run(world.service.clone())
        .await
        .output()
        .unwrap_err();
    assert!(
        !error.is_permanent() && error.to_string().contains("has no definition"),
        "{error}"
    );
}

fn runs(id: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", id.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stopped_task_leaves_no_process_and_no_file() {
    let world = world(1).await;
    let stop = CancellationToken::new();
    let ids = world.directory.path().join("ids");
    let command = format!(
        "sleep 1000 & touch {{{{pipe}}}}/file; echo $$ $! >{0}.new; mv {0}.new {0}; wait",
        ids.display()
    );
    let trial = Trial::new(&json!({}))
        .definition(json!({"pipeline": [{"executor": "a", "commands": [command]}]}).to_string())
        .cancelled_by(stop.clone());
    let run = tokio::spawn(trial.run(world.service.clone()));
    eventually(|| ids.exists()).await;
    assert!(world.directory.path().join("pipe/file").exists());
    stop.cancel();
    assert!(run.await.unwrap().output().is_err());
    let ids = fs::read_to_string(ids).unwrap();
    eventually(|| !ids.split_whitespace().any(runs)).await;
    eventually(|| !world.directory.path().join("pipe/file").exists()).await;
}

/// An executor as it was before streaming: unknown fields unread, on after a failure.
struct OlderExecutor;

#[tonic::async_trait]
impl ExecService for OlderExecutor {
    async fn execute_commands(&self, request: Request<ExecCommands>) -> Result<Response<ExecResult>, Status> {
        let commands = request.into_inner().commands;
        let bad = commands.iter().any(|command| command == "bad");
        let error_message = if bad { "exit status 1" } else { "" }.to_owned();
        Ok(Response::new(ExecResult {
            result: !bad,
            error_message,
            output: commands,
            failure: None,
        }))
    }

    type ExecuteStreamStream = tokio_stream::Empty<Result<ExecEvent, Status>>;

    async fn execute_stream(
        &self,
        _: Request<ExecCommands>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        Err(Status::unimplemented("unknown method ExecuteStream"))
    }
}

#[tokio::test]
async fn older_executors_work() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder().add_service(ExecServiceServer::new(OlderExecutor));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let executors = Executors::new([("old".to_owned(), target)]).unwrap();
    let root = tempfile::tempdir().unwrap();
    let agent = Agent::new(executors, Workspace::open(Some(root.path().into()), 1).unwrap());
    let service = service(move |params, context| {
        let agent = agent.clone();
        async move { agent.run(params, context).await }
    });
    let run = async |commands: Value| {
        let definition = json!({"pipeline": [{"executor": "old", "commands": commands, "timeout": "1m"}]});
        Trial::new(&json!({}))
            .definition(definition.to_string())
            .run(service.clone())
            .await
            .output()
    };
    assert_eq!(
        run(json!(["one", "two"])).await.unwrap(),
        json!({"1:old": ["one", "two"]})
    );
    let error = run(json!(["bad", "two"])).await.unwrap_err();
    assert_eq!(error.to_string(), "step 1 (executor old): exit status 1");
}

#[tokio::test]
async fn executors_that_cannot_be_are_refused() {
    let error = |executors: &[(&str, &str)]| {
        let executors = executors
            .iter()
            .map(|&(name, target)| (name.to_owned(), target.to_owned()));
        Executors::new(executors).unwrap_err().to_string()
    };
    assert_eq!(
        error(&[("a", "here")]),
        "executor a: `here` is no target; use one like 127.0.0.1:50051"
    );
    assert_eq!(error(&[("a", "h:1"), ("a", "h:2")]), "executor a is given twice");
    assert!(
        Path::new("/proc").exists(),
        "the tests look at processes through /proc"
    );
}

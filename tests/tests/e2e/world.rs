//! Servers of a test's own, and what is done with them all the time.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use scheduler_examples::{Api, Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::storage::Storage;

/// A test is stuck when it has taken so long, and fails with all logs.
const STUCK: Duration = Duration::from_mins(4);

/// Runs a test.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut test = std::pin::pin!(test);
        tokio::select! {
            () = &mut test => (),
            // The test is still there and shows its logs as the panic takes it down.
            () = tokio::time::sleep(STUCK) => panic!("stuck"),
        }
    });
}

/// Servers over one storage, and a directory for everything.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    directory: TempDir,
    // The last to go: it is cleared when nobody uses it any more.
    pub(crate) storage: Storage,
}

/// A server, and how it is started.
pub(crate) struct Node {
    options: ServerOptions,
    pub(crate) server: Option<Server>,
}

impl World {
    /// As many nodes as the storage is for.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(arguments: &[&str]) -> Self {
        Self::of(Storage::NODES, arguments).await
    }

    /// One node, whatever the storage: for what is told of a node that others would take over from.
    pub(crate) async fn start_alone() -> Self {
        Self::of(1, &[]).await
    }

    async fn of(count: usize, arguments: &[&str]) -> Self {
        let mut world = Self {
            nodes: Vec::new(),
            directory: tempfile::tempdir().unwrap(),
            storage: Storage::new().await,
        };
        for _ in 0..count {
            world.add_node(arguments);
        }
        world.restart().await;
        world
    }

    /// Another node, which does not run yet.
    pub(crate) fn add_node(&mut self, arguments: &[&str]) {
        let place = self.path().join(format!("node-{}", self.nodes.len()));
        std::fs::create_dir(&place).unwrap();
        let own = arguments.iter().map(ToString::to_string);
        let options = ServerOptions {
            data: place.join("data"),
            log: place.join("server.log"),
            arguments: self.storage.arguments().into_iter().chain(own).collect(),
        };
        self.nodes.push(Node {
            options,
            server: None,
        });
    }

    /// From the next start on servers are given these values of a flag, and no others.
    pub(crate) fn give(&mut self, flag: &str, values: &[&str]) {
        for node in &mut self.nodes {
            let arguments = &mut node.options.arguments;
            while let Some(at) = arguments.iter().position(|argument| argument == flag) {
                arguments.drain(at..at + 2);
            }
            arguments.extend(values.iter().flat_map(|value| [flag, value]).map(str::to_owned));
        }
    }

    /// Starts the servers again, in the same places.
    pub(crate) async fn restart(&mut self) {
        join_all(self.nodes.iter_mut().map(Node::start)).await;
    }

    /// Where the gRPC API is served, by the last node.
    pub(crate) fn grpc(&self) -> &str {
        self.nodes.last().unwrap().server().grpc()
    }

    /// The HTTP API; requests go to the nodes in turn.
    pub(crate) fn api(&self) -> Api {
        Api::over(self.nodes.iter().map(|node| node.server().http().to_owned()))
    }

    /// A directory for the test's files.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// As a power cut would, all of them.
    pub(crate) async fn kill(&mut self) {
        for node in &mut self.nodes {
            node.server.take().unwrap().kill().await.unwrap();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        for node in &self.nodes {
            node.server().signal(signal).unwrap();
        }
    }

    /// Lets the servers end in order, and looks for what must never be in their logs.
    pub(crate) async fn stop(&mut self) {
        join_all(self.nodes.iter_mut().map(Node::stop)).await;
    }

    /// Creates a pipeline whose workers come by themselves, or as `more` says.
    pub(crate) async fn pipeline(&self, name: &str, more: Value) -> Pipeline {
        Pipeline::create(&self.api(), name, more).await
    }

    /// A chart with one executor, `shell`, for pipelines that say their steps.
    pub(crate) fn shell_chart(&self) -> String {
        let chart = self.path().join("shell-chart");
        if !chart.exists() {
            std::fs::create_dir(&chart).unwrap();
            let about = "apiVersion: v2\nname: shell\nversion: 0.1.0\n";
            std::fs::write(chart.join("Chart.yaml"), about).unwrap();
            let values = "executors: [shell]\nreplicas: {min: 1, max: 1}\n";
            std::fs::write(chart.join("values.yaml"), values).unwrap();
        }
        chart.to_str().unwrap().to_owned()
    }

    /// Creates a pipeline of one step of these commands, with a worker.
    pub(crate) async fn shell(&self, name: &str, commands: &[&str], more: Value) -> Pipeline {
        let mut new = json!({
            "chart": self.shell_chart(),
            "pipeline": [{"executor": "shell", "commands": commands}],
        });
        new.as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap_or_default());
        self.pipeline(name, new).await
    }

    /// Processes of the local deployer's workers that run: their ids and programs.
    pub(crate) fn worker_processes(&self) -> Vec<(i32, String)> {
        processes_of(self.path())
    }
}

impl Node {
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub(crate) async fn start(&mut self) {
        assert!(self.server.is_none(), "it runs");
        let server = Server::start(&self.options).await.unwrap();
        // From now on it comes back where its workers look for it.
        for (flag, url) in [("--http", server.http()), ("--grpc", server.grpc())] {
            if !self.options.arguments.iter().any(|argument| argument == flag) {
                let address = url.trim_start_matches("http://").to_owned();
                self.options.arguments.extend([flag.to_owned(), address]);
            }
        }
        self.server = Some(server);
    }

    pub(crate) async fn stop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.stop().await.unwrap();
        let log = std::fs::read_to_string(&self.options.log).unwrap();
        assert!(!log.contains("panicked"), "something panicked:\n{log}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in logs_below(self.path()) {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            if !lines.is_empty() {
                let last = lines[lines.len().saturating_sub(60)..].join("\n");
                eprintln!("---- {}\n{last}", log.display());
            }
        }
    }
}

/// What servers and their workers logged.
fn logs_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = directory.read_dir() else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files.extend(logs_below(&path));
        } else if path
            .extension()
            .is_some_and(|extension| extension == "err" || extension == "log")
        {
            files.push(path);
        }
    }
    files
}

/// Processes that run and have been told, by their environment, of a replica below `data`.
fn processes_of(data: &Path) -> Vec<(i32, String)> {
    let place = format!("SCHEDULER_REPLICA={}", data.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|&byte| byte == 0);
        if variables.any(|variable| variable.starts_with(place.as_bytes())) {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}

/// Waits for what nobody announces, such as the end of another's process.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    assert!(waited.is_ok(), "never came: {what}");
}

/// A pipeline, by its HTTP API.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) api: Api,
    pub(crate) path: String,
    pub(crate) name: String,
}

/// The application of all pipelines.
pub(crate) const APPLICATION: &str = "myname";

impl Pipeline {
    pub(crate) async fn create(api: &Api, name: &str, more: Value) -> Self {
        let mut new = json!({"name": name});
        new.as_object_mut()
            .unwrap()
            .extend(more.as_object().cloned().unwrap_or_default());
        let pipelines = format!("/api/applications/{APPLICATION}/pipelines");
        let answer = api.post(&pipelines, &new).await.unwrap();
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.body);
        Self {
            api: api.clone(),
            path: format!("{pipelines}/{name}"),
            name: name.to_owned(),
        }
    }

    /// Submits a task; its id.
    pub(crate) async fn submit(&self, params: Value) -> String {
        self.submit_with("", params).await
    }

    pub(crate) async fn submit_with(&self, query: &str, params: Value) -> String {
        let answer = self
            .api
            .post(&format!("{}{query}", self.path), &params)
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        let id = answer.body["id"].as_str().unwrap().to_owned();
        assert_eq!(answer.location, format!("{}/tasks/{id}", self.path));
        id
    }

    /// Submits lines; the answer's lines.
    pub(crate) async fn bulk(&self, query: &str, lines: Vec<String>) -> Vec<Value> {
        let request = self
            .api
            .request(Method::POST, &format!("{}/tasks/bulk{query}", self.path));
        let chunks: Vec<Result<String, std::io::Error>> = lines
            .chunks(1_000)
            .map(|chunk| Ok(chunk.join("\n") + "\n"))
            .collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let response = request
            .header("content-type", "application/x-ndjson")
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let text = response.text().await.unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Submits many tasks; their ids.
    pub(crate) async fn submit_all(&self, params: impl IntoIterator<Item = Value>) -> Vec<String> {
        let lines = params.into_iter().map(|params| params.to_string()).collect();
        let answers = self.bulk("", lines).await;
        answers
            .iter()
            .map(|answer| {
                answer["id"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{answer}"))
                    .to_owned()
            })
            .collect()
    }

    pub(crate) fn task_path(&self, id: &str) -> String {
        format!("{}/tasks/{id}", self.path)
    }

    pub(crate) async fn task(&self, id: &str) -> Value {
        self.api.get(&self.task_path(id)).await.unwrap().ok().unwrap()
    }

    /// The task when it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        loop {
            let answer = self
                .api
                .get(&format!("{}?wait=60s", self.task_path(id)))
                .await
                .unwrap();
            if answer.status == StatusCode::OK {
                return answer.body;
            }
            assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.body);
        }
    }

    /// The output of a task, which must succeed.
    pub(crate) async fn output(&self, id: &str) -> Value {
        let mut task = self.ended(id).await;
        assert_eq!(task["state"], "succeeded", "{task}");
        task["output"].take()
    }

    /// Waits, by the task's events, until this is true of it.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut events = self
            .api
            .events(&format!("{}/events", self.task_path(id)))
            .await
            .unwrap();
        let mut last = Value::Null;
        while let Some(event) = events.next().await.unwrap() {
            if event.name == "task" && wanted(&event.data) {
                return event.data;
            }
            last = event.data;
        }
        panic!("it never came to that, but to {last}");
    }

    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(id, |task| task["state"] == state).await
    }

    pub(crate) async fn view(&self) -> Value {
        self.api.get(&self.path).await.unwrap().ok().unwrap()
    }

    /// Waits until this is true of the pipeline.
    pub(crate) async fn until_view(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waiting = async {
            loop {
                last = self.view().await;
                if wanted(&last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), waiting).await;
        assert!(waited.is_ok(), "never came: {what}, but {last}");
        last
    }

    /// Posts to a path below the pipeline, which must answer with a success.
    pub(crate) async fn post(&self, below: &str, body: &Value) -> Value {
        let answer = self
            .api
            .post(&format!("{}{below}", self.path), body)
            .await
            .unwrap();
        answer.ok().unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// All tasks in these states, page by page.
    pub(crate) async fn list(&self, states: &str, limit: usize) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("{}/tasks?limit={limit}{states}{cursor}", self.path);
            let mut page = self.api.get(&path).await.unwrap().ok().unwrap();
            let Value::Array(more) = page["items"].take() else {
                panic!("{page}")
            };
            assert!(more.len() <= limit);
            items.extend(more);
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }
}

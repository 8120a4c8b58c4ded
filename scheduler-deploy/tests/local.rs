//! The local deployer with real processes: small shell scripts in the place of worker and executor.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::{BusyWorker, DeployError, Deployer as _, Rollout, RolloutPhase, Wanted};
use scheduler_deploy::local::{LocalConfig, LocalDeployer};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe;

const ID: PipelineId = PipelineId(1);

/// Says what happens to it on a pipe, then waits to be told to end, as a worker does. What it starts would outlive it.
const PATIENT: &str = r#"#!/bin/sh
say() { echo "${COMMAND_EXECUTOR_NAME:-worker} $*" > "$EVENTS"; }
trap 'say end; exit 0' TERM
sleep 1000 &
say start $$ $PIPELINE_AGENT__EXECUTORS__0__NAME $PIPELINE_AGENT__EXECUTORS__0__TARGET $COMMAND_EXECUTOR_SERVER_GRPC_PORT
while :; do wait; done
"#;

/// Does not end when it is told to.
const STUBBORN: &str = r#"#!/bin/sh
trap '' TERM
echo "worker start $$" > "$EVENTS"
while :; do sleep 1000; done
"#;

/// Dies at once, with last words.
const DYING: &str = r#"#!/bin/sh
echo "worker start $$" > "$EVENTS"
echo "no such config" >&2
exit 3
"#;

struct World {
    directory: tempfile::TempDir,
    events: Lines<BufReader<pipe::Receiver>>,
    deployer: LocalDeployer,
}

fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn config(directory: &Path) -> LocalConfig {
    LocalConfig {
        ready_after: Duration::from_millis(10),
        initial_backoff: Duration::from_millis(10),
        max_backoff: Duration::from_millis(50),
        ..LocalConfig::new(directory.join("state"), "http://127.0.0.1:1")
    }
}

impl World {
    async fn new(worker: &str) -> Self {
        Self::with(worker, "executors: []", |_| {}).await
    }

    async fn with(worker: &str, executors: &str, set: impl FnOnce(&mut LocalConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let events = directory.path().join("events");
        nix::unistd::mkfifo(&events, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let chart = directory.path().join("chart");
        std::fs::create_dir(&chart).unwrap();
        std::fs::write(chart.join("Chart.yaml"), "name: example").unwrap();
        let values = format!(
            "{}\npipeline_agent: {{env: {{EVENTS: {}}}}}\n",
            executors.replace("$EVENTS", events.to_str().unwrap()),
            events.display()
        );
        std::fs::write(chart.join("values.yaml"), values).unwrap();
        let mut config = config(directory.path());
        config.worker_program = script(directory.path(), "worker", worker);
        config.executor_program = script(directory.path(), "executor", PATIENT);
        set(&mut config);
        // Open for writing as well: so it does not end when the last script does.
        let receiver = pipe::OpenOptions::new()
            .read_write(true)
            .open_receiver(&events)
            .unwrap();
        Self {
            events: BufReader::new(receiver).lines(),
            deployer: LocalDeployer::open(config).await.unwrap(),
            directory,
        }
    }

    fn path() -> PipelinePath {
        let name = |text: &str| text.parse::<Name>().unwrap();
        PipelinePath {
            client: name("default"),
            application: name("myname"),
            pipeline: name("ocr"),
        }
    }

    async fn remove(&self) -> Result<(), DeployError> {
        self.deployer.remove(ID, &Self::path()).await
    }

    fn wanted(&self, min: u32, max: u32) -> Wanted {
        Wanted {
            pipeline: ID,
            path: Self::path(),
            version: 1,
            deployment: Deployment {
                chart: self.directory.path().join("chart").to_str().unwrap().to_owned(),
                values: "".into(),
                replicas: Replicas { min, max },
            },
            definition: "".into(),
        }
    }

    async fn apply(&self, min: u32, max: u32) {
        self.deployer.apply(self.wanted(min, max)).await.unwrap();
    }

    /// The next thing that a script says.
    async fn said(&mut self) -> String {
        self.events.next_line().await.unwrap().unwrap()
    }

    /// The process that says next that it has started.
    async fn started(&mut self) -> Pid {
        let line = self.said().await;
        let mut words = line.split(' ').skip_while(|&word| word != "start");
        Pid::from_raw(words.nth(1).unwrap_or_else(|| panic!("{line}")).parse().unwrap())
    }

    async fn rollout(&self) -> Rollout {
        self.deployer.rollout(ID).await.unwrap().unwrap()
    }

    /// Waits for a phase; the test's time limit is the bound.
    async fn phase(&self, phase: RolloutPhase) -> Rollout {
        loop {
            let rollout = self.rollout().await;
            if rollout.phase == phase {
                return rollout;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What is left of workers, in the process table.
    fn processes(&self) -> usize {
        let state = format!(
            "SCHEDULER_REPLICA={}",
            self.directory.path().join("state").display()
        );
        std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read(entry.path().join("environ")).ok())
            .filter(|environment| {
                environment
                    .split(|&b| b == 0)
                    .any(|e| e.starts_with(state.as_bytes()))
            })
            .count()
    }
}

#[tokio::test]
async fn workers_start_scale_and_end() {
    let mut world = World::new(PATIENT).await;
    assert_eq!(world.deployer.rollout(ID).await.unwrap(), None);
    world.apply(1, 3).await;
    world.started().await;
    let rollout = world.phase(RolloutPhase::Ready).await;
    assert_eq!(
        (rollout.wanted, rollout.ready, rollout.problem.as_str()),
        (1, 1, "")
    );

    world.deployer.scale(ID, 3).await.unwrap();
    world.started().await;
    world.started().await;
    assert_eq!(world.phase(RolloutPhase::Ready).await.ready, 3);
    // Beyond its bounds it does not go.
    world.deployer.scale(ID, 9).await.unwrap();
    assert_eq!(world.rollout().await.wanted, 3);
    world.deployer.scale(ID, 0).await.unwrap();
    assert_eq!(world.said().await, "worker end");
    assert_eq!(world.said().await, "worker end");
    assert_eq!(world.rollout().await.wanted, 1);

    world.remove().await.unwrap();
    assert_eq!(world.said().await, "worker end");
    assert_eq!(world.processes(), 0);
    assert_eq!(world.deployer.rollout(ID).await.unwrap(), None);
    world.remove().await.unwrap();
    let unknown = world.deployer.scale(ID, 1).await.unwrap_err();
    assert!(matches!(unknown, DeployError::Invalid { field, .. } if field == "pipeline"));
    // Only logs are left.
    let workspaces = glob_workspaces(world.directory.path());
    assert_eq!(workspaces, 0);
}

#[tokio::test]
async fn those_that_are_busy_go_last() {
    let mut world = World::new(&PATIENT.replace("say end;", "say $PIPELINE_AGENT__NAME;")).await;
    world.apply(3, 3).await;
    for _ in 0..3 {
        world.started().await;
    }
    world.phase(RolloutPhase::Ready).await;
    let busy = |name: &str, tasks| BusyWorker {
        name: name.to_owned(),
        tasks,
    };
    let fewer = async |world: &mut World, workers, busy: &[BusyWorker]| {
        world.deployer.spare(ID, workers, busy).await.unwrap();
        let mut wanted = world.wanted(workers, workers);
        wanted.version = 5 - u64::from(workers);
        world.deployer.apply(wanted).await.unwrap();
        world.said().await
    };
    let all = [busy("p1-2", 1), busy("p1-3", 2), busy("p2-1", 9)];
    assert_eq!(fewer(&mut world, 2, &all).await, "worker p1-1");
    assert_eq!(fewer(&mut world, 1, &all).await, "worker p1-2");
    world.remove().await.unwrap();
    assert_eq!(world.said().await, "worker p1-3");
}

fn glob_workspaces(directory: &Path) -> usize {
    let replicas = std::fs::read_dir(directory.join("state")).unwrap().flatten();
    replicas
        .filter(|replica| replica.path().join("workspace").exists())
        .count()
}

#[tokio::test]
async fn each_worker_has_its_executors_and_ends_before_them() {
    let executors = "executors: [{name: wget, env: {EVENTS: $EVENTS}}]";
    let mut world = World::with(PATIENT, executors, |_| {}).await;
    world.apply(1, 1).await;
    let mut said = [world.said().await, world.said().await];
    said.sort();
    // wget start PID 127.0.0.1:PORT, and worker start PID wget 127.0.0.1:PORT
    let executor: Vec<&str> = said[0].split(' ').collect();
    let worker: Vec<&str> = said[1].split(' ').collect();
    assert_eq!((executor[0], worker[0], worker[3]), ("wget", "worker", "wget"));
    assert_eq!(executor[3], worker[4]);
    assert!(worker[4].starts_with("127.0.0.1:"), "{said:?}");

    world.deployer.shutdown().await;
    assert_eq!(world.said().await, "worker end");
    assert_eq!(world.said().await, "wget end");
    assert_eq!(world.processes(), 0);
    let closed = world.deployer.apply(world.wanted(1, 1)).await.unwrap_err();
    assert!(matches!(closed, DeployError::Unavailable(_)));
}

#[tokio::test]
async fn a_worker_that_dies_is_started_again() {
    let mut world = World::new(PATIENT).await;
    world.apply(1, 1).await;
    let first = world.started().await;
    kill(first, Signal::SIGKILL).unwrap();
    let second = world.started().await;
    assert_ne!(first, second);
    let rollout = world.phase(RolloutPhase::Ready).await;
    assert_eq!((rollout.wanted, rollout.ready), (1, 1));
    world.deployer.shutdown().await;
}

#[tokio::test]
async fn an_executor_that_dies_takes_its_replica_along() {
    let executors = "executors: [{name: wget, env: {EVENTS: $EVENTS}}]";
    let mut world = World::with(PATIENT, executors, |_| {}).await;
    world.apply(1, 1).await;
    let mut said = [world.said().await, world.said().await];
    said.sort();
    let executor = said[0].split(' ').nth(2).unwrap().parse().unwrap();
    kill(Pid::from_raw(executor), Signal::SIGKILL).unwrap();
    assert_eq!(world.said().await, "worker end");
    let mut again = [world.said().await, world.said().await];
    again.sort();
    assert!(
        again[0].starts_with("wget start ") && again[1].starts_with("worker start "),
        "{again:?}"
    );
    world.deployer.shutdown().await;
}

#[tokio::test]
async fn a_crash_loop_is_a_failure_with_its_reason_and_goes_on() {
    let mut world = World::new(DYING).await;
    world.apply(1, 1).await;
    for _ in 0..4 {
        world.started().await;
    }
    let rollout = world.phase(RolloutPhase::Failed).await;
    assert_eq!((rollout.wanted, rollout.ready), (1, 0));
    assert!(
        rollout
            .problem
            .contains("worker ended (exit status: 3): no such config"),
        "{}",
        rollout.problem
    );
    world.started().await;
    world.deployer.shutdown().await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_failure_that_names_it() {
    let world = World::with("", "executors: []", |config| {
        config.worker_program = "/nowhere/scheduler-worker".into();
    })
    .await;
    world.apply(1, 1).await;
    let rollout = world.phase(RolloutPhase::Failed).await;
    assert!(
        rollout.problem.contains("/nowhere/scheduler-worker"),
        "{}",
        rollout.problem
    );
    world.deployer.shutdown().await;
}

#[tokio::test]
async fn a_worker_that_does_not_end_is_killed() {
    let set = |config: &mut LocalConfig| config.drain_grace = Duration::from_millis(50);
    let mut world = World::with(STUBBORN, "executors: []", set).await;
    world.apply(1, 1).await;
    world.started().await;
    world.remove().await.unwrap();
    assert_eq!(world.processes(), 0);
}

#[tokio::test]
async fn only_another_environment_needs_other_processes() {
    let mut world = World::new(PATIENT).await;
    world.apply(1, 3).await;
    world.started().await;
    let mut wanted = world.wanted(2, 3);
    wanted.version = 2;
    world.deployer.apply(wanted.clone()).await.unwrap();
    // One more, and the first stays.
    world.started().await;
    assert_eq!(world.rollout().await.wanted, 2);

    // An older version changes nothing.
    let mut older = world.wanted(3, 3);
    older.version = 1;
    world.deployer.apply(older).await.unwrap();
    assert_eq!(world.rollout().await.wanted, 2);

    wanted.version = 3;
    wanted.deployment.values = r#"{"pipeline_agent": {"env": {"MORE": "1"}}}"#.into();
    world.deployer.apply(wanted).await.unwrap();
    let mut said = [
        world.said().await,
        world.said().await,
        world.said().await,
        world.said().await,
    ];
    said.sort();
    assert_eq!(said[..2], ["worker end", "worker end"]);
    assert!(
        said[2].starts_with("worker start") && said[3].starts_with("worker start"),
        "{said:?}"
    );
    world.deployer.shutdown().await;
}

#[tokio::test]
async fn what_a_killed_scheduler_left_running_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let replica = state.canonicalize().unwrap().join("p1-7");
    std::fs::create_dir_all(replica.join("workspace/files")).unwrap();
    let sleep = |replica: &Path| {
        tokio::process::Command::new("sleep")
            .arg("1000")
            .env("SCHEDULER_REPLICA", replica)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    let mut left = sleep(&replica);
    let mut other = sleep(Path::new("/somewhere/else/p1-7"));
    let deployer = LocalDeployer::open(config(directory.path())).await.unwrap();
    assert_eq!(left.wait().await.unwrap().signal(), Some(9));
    assert!(other.try_wait().unwrap().is_none());
    other.kill().await.unwrap();
    assert_eq!(glob_workspaces(directory.path()), 0);
    drop(deployer);
}

#[tokio::test]
async fn one_directory_has_one_deployer() {
    let directory = tempfile::tempdir().unwrap();
    let first = LocalDeployer::open(config(directory.path())).await.unwrap();
    let second = LocalDeployer::open(config(directory.path())).await.unwrap_err();
    let DeployError::Unavailable(cause) = second else {
        panic!()
    };
    assert!(cause.to_string().contains("another scheduler"), "{cause}");
    drop(first);
    LocalDeployer::open(config(directory.path())).await.unwrap();
}

#[tokio::test]
async fn a_chart_is_looked_at_without_deploying_it() {
    let world = World::new(PATIENT).await;
    let wanted = world.wanted(1, 1);
    let facts = world
        .deployer
        .inspect(&wanted.path, &wanted.deployment.clone().into())
        .await
        .unwrap();
    assert_eq!(facts.definition, None);
    let missing = Deployment {
        chart: "/nowhere".into(),
        ..wanted.deployment
    };
    let error = world
        .deployer
        .inspect(&wanted.path, &missing.into())
        .await
        .unwrap_err();
    assert!(matches!(error, DeployError::Invalid { field, .. } if field == "chart"));
    assert_eq!(world.processes(), 0);
}

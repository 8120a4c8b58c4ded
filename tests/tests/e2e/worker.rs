//! Worker processes that write down what they ran.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use scheduler_core::id::TaskId;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use crate::world::{APPLICATION, Pipeline, World};

/// A `ledger-worker` process. It is killed when this is dropped.
pub(crate) struct LedgerWorker {
    child: Child,
    stdin: ChildStdin,
    said: mpsc::UnboundedReceiver<String>,
    ledger: PathBuf,
}

impl LedgerWorker {
    pub(crate) fn start(world: &World, pipeline: &Pipeline, name: &str, concurrency: u32) -> Self {
        Self::start_with(world, pipeline, name, concurrency, &[])
    }

    pub(crate) fn start_with(
        world: &World,
        pipeline: &Pipeline,
        name: &str,
        concurrency: u32,
        arguments: &[&str],
    ) -> Self {
        let ledger = world.path().join(format!("{name}.ledger"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_ledger-worker"))
            .args(["--server", world.grpc()])
            .args(["--application", APPLICATION, "--pipeline", &pipeline.name])
            .args(["--concurrency", &concurrency.to_string()])
            .arg("--ledger")
            .arg(&ledger)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        // Read always, lest the worker waits for somebody to listen.
        let (tell, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                let _ = tell.send(line);
            }
        });
        Self {
            child,
            stdin,
            said,
            ledger,
        }
    }

    /// Waits until it says a line that begins so.
    pub(crate) async fn says(&mut self, beginning: &str) -> String {
        while let Some(line) = self.said.recv().await {
            if line.starts_with(beginning) {
                return line;
            }
        }
        panic!("the worker ended before it said {beginning}");
    }

    /// Tasks that hold go on, and later ones do not hold.
    pub(crate) async fn release(&mut self) {
        self.stdin.write_all(b"release\n").await.unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap());
        kill(pid, signal).unwrap();
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// What it wrote down so far.
    pub(crate) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for line in std::fs::read_to_string(&self.ledger).unwrap().lines() {
            let (what, attempt) = line.split_once(' ').unwrap();
            let mut words = attempt.split(' ').map(|word| word.parse::<u64>().unwrap());
            let task = (words.next().unwrap(), words.next().unwrap());
            match what {
                "start" => *ledger.started.entry(task).or_default() += 1,
                "end" => *ledger.ended.entry(task).or_default() += 1,
                _ => (),
            }
        }
        ledger
    }
}

/// How often each task, by partition and offset, was begun and ended.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) started: BTreeMap<(u64, u64), u32>,
    pub(crate) ended: BTreeMap<(u64, u64), u32>,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: Self) {
        for (task, count) in other.started {
            *self.started.entry(task).or_default() += count;
        }
        for (task, count) in other.ended {
            *self.ended.entry(task).or_default() += count;
        }
    }

    /// Tasks that were begun more than once.
    pub(crate) fn repeated(&self) -> Vec<(u64, u64)> {
        self.started
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(task, _)| *task)
            .collect()
    }
}

/// The partition and offset that an id names.
pub(crate) fn place_of(id: &str) -> (u64, u64) {
    let id: TaskId = id.parse().unwrap();
    (id.shard.partition.0.into(), id.offset.0)
}

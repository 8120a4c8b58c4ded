//! Services of one command alone, with fresh data, which end with it however it ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::options::{Action, Options, Service};
use super::process::Record;
use super::{addresses, down, helm, up};
use crate::Failed;
use crate::run::{own, root};
use crate::tools;

/// Leads tests to Kafka: `host:port,...`.
pub(crate) const KAFKA: &str = "SCHEDULER_TEST_KAFKA";
/// Leads tests to the same with TLS: `host:port,...`.
pub(crate) const KAFKA_TLS: &str = "SCHEDULER_TEST_KAFKA_TLS";
/// Leads tests to the same with TLS where a password is asked for: `host:port,...`.
pub(crate) const KAFKA_PASSWORD: &str = "SCHEDULER_TEST_KAFKA_SASL";
/// The certificate by which both are trusted: a file.
pub(crate) const KAFKA_CA: &str = "SCHEDULER_TEST_KAFKA_CA";
/// Leads tests to TiDB: `mysql://user@host:port`.
pub(crate) const TIDB: &str = "SCHEDULER_TEST_TIDB";
/// Leads tests to a TiDB that has TLS, in the same form.
pub(crate) const TIDB_TLS: &str = "SCHEDULER_TEST_TIDB_TLS";
/// The certificate by which it is trusted: a file.
pub(crate) const TIDB_CA: &str = "SCHEDULER_TEST_TIDB_CA";
/// Leads tests to a cluster of Kubernetes, as one who may do everything there: a file.
pub(crate) const KUBECONFIG: &str = "SCHEDULER_TEST_KUBECONFIG";
/// Leads tests to the helm CLI.
pub(crate) const HELM: &str = "SCHEDULER_TEST_HELM";
/// Leads tests to Prometheus: a program, which each test starts for itself.
pub(crate) const PROMETHEUS: &str = "SCHEDULER_TEST_PROMETHEUS";
/// This machine's address as pods reach it, where there is a node that runs them.
pub(crate) const NODE: &str = "SCHEDULER_TEST_NODE";
/// Leads tests to a registry: `host:port`.
pub(crate) const REGISTRY: &str = "SCHEDULER_TEST_REGISTRY";

/// What runs until this is dropped.
///
/// Another process watches over it: it holds the end of a pipe from us, which the system closes also when we are killed.
#[derive(Debug)]
pub(crate) struct Private {
    guard: Option<Child>,
    run: PathBuf,
    addresses: Vec<(&'static str, String)>,
}

impl Private {
    /// Starts those services to which no variable leads.
    pub(crate) fn start(services: &[Service]) -> Result<Self, Failed> {
        let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let is_missing = |service: &Service| match service {
            Service::Kafka => [KAFKA, KAFKA_TLS, KAFKA_PASSWORD, KAFKA_CA]
                .into_iter()
                .any(unset),
            Service::Tidb => [TIDB, TIDB_TLS, TIDB_CA].into_iter().any(unset),
            Service::Kube | Service::Nodes | Service::Kubelet | Service::Keda => unset(KUBECONFIG),
            Service::Registry => unset(REGISTRY),
        };
        let run = root().join(format!("target/services-of-tests-{}", std::process::id()));
        let missing: BTreeSet<Service> = services.iter().copied().filter(is_missing).collect();
        let mut found = Vec::new();
        if services.contains(&Service::Kube) && !missing.contains(&Service::Kube) && unset(HELM) {
            tools::ensure_for_services(&[Service::Kube].into())?;
            found.push((HELM, helm::binary()?.display().to_string()));
        }
        if missing.is_empty() {
            return Ok(Self {
                guard: None,
                run,
                addresses: found,
            });
        }
        let options = Options {
            tls: true,
            ..Options::new(Action::Up, run, missing)
        };
        forget_older(&options.run);
        let guard = watch_over(&options.run)?;
        let mut private = Self {
            guard: Some(guard),
            run: options.run.clone(),
            addresses: Vec::new(),
        };
        up(&options)?;
        private.addresses = addresses(&options.run)?;
        // Who has a server without TLS keeps it, and is led to ours for TLS alone.
        private.addresses.retain(|(variable, _)| unset(variable));
        private.addresses.extend(found);
        for (variable, value) in &private.addresses {
            println!("{variable}={value}");
        }
        Ok(private)
    }

    /// Their run directory.
    pub(crate) fn run(&self) -> &Path {
        &self.run
    }

    /// The variables that lead to them, for tests.
    pub(crate) fn addresses(&self) -> &[(&'static str, String)] {
        &self.addresses
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// Starts the process that ends the services of a run directory when we end.
fn watch_over(run: &Path) -> Result<Child, Failed> {
    use std::os::unix::process::CommandExt as _;
    Command::new(own()?)
        .args(["services", "guard", "--dir"])
        .arg(run)
        .stdin(Stdio::piped())
        // Ctrl-C ends us, and it has work to do then.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("the guard of the services did not start: {error}"))
}

/// What that process does.
pub(crate) fn guard(options: &Options) -> Result<(), Failed> {
    // Nobody writes; it ends when the other end is closed.
    let mut nothing = [0; 64];
    while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
    // Their data is deleted: they need no time to save it.
    let options = Options {
        wipe: true,
        ..options.clone()
    };
    down(&options, true).map(drop)
}

/// Logs of earlier runs are kept until the next one.
fn forget_older(run: &Path) {
    let prefix = "services-of-tests-";
    let older = run.parent().and_then(|parent| fs::read_dir(parent).ok());
    let older = older.into_iter().flatten().flatten();
    let older = older.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    for path in older
        .map(|entry| entry.path())
        .filter(|path: &PathBuf| path != run)
    {
        if Record::all(&path).iter().all(|record| record.running().is_none()) && !is_locked(&path) {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn is_locked(run: &Path) -> bool {
    fs::File::open(run.join("lock")).is_ok_and(|file| file.try_lock().is_err())
}

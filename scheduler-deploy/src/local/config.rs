//! What the local deployer can be told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use scheduler_core::name::Name;

/// Where things are and how long they may take.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// A directory of this deployer alone: workspaces and logs of the replicas.
    pub directory: PathBuf,
    /// Where workers find the scheduler's gRPC endpoint, `http://host:port`.
    pub scheduler_url: String,
    /// The worker's program. Default `scheduler-worker`, beside this program or in `PATH`.
    pub worker_program: PathBuf,
    /// The executor's program. Default `command-executor`, beside this program or in `PATH`.
    pub executor_program: PathBuf,
    /// The API key that the workers of a client get, where the node wants keys. Default none.
    pub api_keys: BTreeMap<Name, String>,
    /// Charts must lie below one of these. Default none: anywhere, which is for those who trust every client.
    pub chart_roots: Vec<PathBuf>,
    /// Workers of one pipeline, at most, whatever its bounds say. Default 64.
    pub max_workers: u32,
    /// Names of the variables of this process's environment that workers and executors get.
    pub inherited_environment: Vec<String>,
    /// A replica whose processes have lived so long counts as running. Default 500 ms.
    pub ready_after: Duration,
    /// A replica that has lived so long was well: its next failure counts as the first. Default 30 s.
    pub stable_after: Duration,
    /// Wait before the first restart; it doubles for each further one. Default 500 ms.
    pub initial_backoff: Duration,
    /// The longest wait before a restart. Default 30 s.
    pub max_backoff: Duration,
    /// After so many failures in a row the deployment counts as failed; it goes on trying. Default 3.
    pub failures_until_failed: u32,
    /// What a worker has between SIGTERM and SIGKILL to end its tasks. Default 30 s.
    pub drain_grace: Duration,
    /// What executors have between SIGTERM and SIGKILL, after their worker has ended. Default 8 s.
    pub executor_grace: Duration,
    /// Bytes of one log file; there are two for each process, the current and the one before. Default 1 MiB.
    pub log_bytes: u64,
}

impl LocalConfig {
    /// With the defaults.
    pub fn new(directory: impl Into<PathBuf>, scheduler_url: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            scheduler_url: scheduler_url.into(),
            worker_program: program("scheduler-worker"),
            executor_program: program("command-executor"),
            api_keys: BTreeMap::new(),
            chart_roots: Vec::new(),
            max_workers: 64,
            inherited_environment: INHERITED.iter().map(|&name| name.to_owned()).collect(),
            ready_after: Duration::from_millis(500),
            stable_after: Duration::from_secs(30),
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            failures_until_failed: 3,
            drain_grace: Duration::from_secs(30),
            executor_grace: Duration::from_secs(8),
            log_bytes: 1 << 20,
        }
    }
}

/// What programs need to find their way, and no secrets of the scheduler.
const INHERITED: [&str; 20] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "TESSDATA_PREFIX",
    "OMP_THREAD_LIMIT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "NO_COLOR",
];

/// A program of ours: beside the running one if it is there, otherwise wherever `PATH` has it.
fn program(name: &str) -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|own| Some(own.parent()?.join(name)))
        .filter(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

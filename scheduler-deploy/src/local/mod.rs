//! Workers as processes of this machine.
//!
//! A **replica** is what a pod is elsewhere: one `scheduler-worker` and, for each executor of the pipeline, one `command-executor` on a
//! loopback port. It lives and dies as a whole: when one process ends, the others are ended and the replica starts anew, later and later.
//!
//! | environment | of | value |
//! | --- | --- | --- |
//! | `PIPELINE_AGENT__NAME` | worker | the replica's name |
//! | `PIPELINE_AGENT__EXECUTORS__<n>__NAME`, `…__TARGET` | worker | an executor, and `127.0.0.1:<port>` |
//! | `SCHEDULER_URL`, `SCHEDULER_APPLICATION`, `SCHEDULER_PIPELINE`, `SCHEDULER_API_KEY` | worker | where its tasks come from |
//! | `SCHEDULER_WORKER_HTTP`, `SCHEDULER_DRAIN_SECONDS` | worker | `off`, and a little less than [`LocalConfig::drain_grace`] |
//! | `SCHEDULER_WORKSPACE` | both | the replica's own directory for tasks, in the place of `/mnt/pipe` |
//! | `COMMAND_EXECUTOR_NAME`, `COMMAND_EXECUTOR_SERVER_GRPC_PORT` | executor | its name, and `127.0.0.1:<port>` |
//! | `COMMAND_EXECUTOR_DRAIN_IDLE_MS` | executor | `50`: when it is told to end, its worker has ended |
//! | `EXIT_WITH_STDIN` | both | `1`: end when standard input ends, which it does when this process dies, however it dies |
//! | `SCHEDULER_REPLICA` | both, and what they start | the replica's directory: by it what is left over is found and ended |
//!
//! Workers run as the user of this process, with nothing between them but their directories: what a chart says is done. That is for one
//! machine whose clients trust each other; [`LocalConfig::chart_roots`] says whose charts are taken.
//!
//! Of this process's own environment they get [`LocalConfig::inherited_environment`] alone. Nothing here polls: a replica waits for its
//! processes, for its timer, or to be told to end.

mod config;
mod deployer;
mod launch;
mod log;
mod process;
mod replica;

pub use config::LocalConfig;
pub use deployer::LocalDeployer;

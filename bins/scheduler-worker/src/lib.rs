//! The pipeline agent: takes tasks of one pipeline from the scheduler and runs its steps through command executors.
//!
//! For each task it fills the params into the commands of the steps, calls the executor of one step after the other over
//! gRPC, tells the scheduler which step is where, and returns what the commands wrote:
//! `{"1:wget": ["…"], "2:tesseract": ["…", "…"]}`. The pipeline's definition comes from the scheduler.
//!
//! ```
//! use scheduler_worker::{Executors, NoWatcher, Workspace, run_pipeline};
//! use scheduler_pipeline::{Params, PipelineDefinition};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let target = listener.local_addr()?.to_string();
//! # let stop = tokio_util::sync::CancellationToken::new();
//! # tokio::spawn(command_executor::serve(listener, Default::default(), stop.clone()));
//! let executors = Executors::new([("shell".to_owned(), target)])?;
//! let pipeline = PipelineDefinition::from_yaml(r#"pipeline: [{executor: shell, commands: ["echo Hello {{name}}"]}]"#)?;
//! let params = Params::from_json(br#"{"name": "$(whoami)"}"#)?;
//! let outputs = run_pipeline(&pipeline, &params, "/tmp", &executors, &NoWatcher).await?;
//! assert_eq!(serde_json::to_string(&outputs)?, r#"{"1:shell":["Hello $(whoami)\n"]}"#);
//! # Ok(())
//! # }
//! ```
//!
//! # The workspace
//!
//! The steps of a task share a directory, [`Workspace`]: `{{pipe}}` in commands, `$PIPE_DIR` in the environment of
//! executors that take one. With a concurrency of 1 it is the workspace directory itself (`/mnt/pipe`), emptied before
//! and after each task, so commands that name it in full work as ever; with more, each task has a directory of its own in
//! it.

mod agent;
mod config;
mod executor;
mod http;
mod run;
mod workspace;

pub use agent::Agent;
pub use config::{Arguments, ExecutorArgument, HttpAddress, executors_from_environment};
pub use executor::{ConfigError, Executors, StepError};
pub use http::serve;
pub use run::{NoWatcher, Outputs, RunError, StepState, StepStatus, Watcher, run_pipeline};
pub use workspace::{Workspace, WorkspaceError};

//! Write workers for the workload scheduler: typed async handlers, everything else done.
//!
//! ```no_run
//! use scheduler_sdk::{Context, TaskError, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Picture {
//!     url: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Text {
//!     length: usize,
//! }
//!
//! async fn read(picture: Picture, ctx: Context) -> Result<Text, TaskError> {
//!     if picture.url.is_empty() {
//!         return Err(TaskError::permanent("no url")); // never tried again
//!     }
//!     ctx.progress(&"downloading").await;
//!     let text = std::fs::read_to_string(&picture.url)?; // any error: tried again
//!     Ok(Text { length: text.len() })
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! Worker::builder()
//!     .server("http://127.0.0.1:50050")
//!     .application("myname")
//!     .pipeline("ocr")
//!     .concurrency(8)
//!     .handler(read)
//!     .build()?
//!     .with_shutdown(scheduler_sdk::terminated())
//!     .run()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! Each task is a task of the runtime's, so many run at once on all its threads. As long as handlers end within microseconds and wait for nothing, some of
//! them go one after the other, which takes a third of the time; the first that waits, or takes longer, ends that, and those that stand
//! behind one that blocks its thread are taken away from it after 10 ms. Work that blocks for long belongs on `tokio::task::spawn_blocking`, as everywhere.
//!
//! A worker keeps each report until the scheduler has made it durable, and after a loss of the connection shows what it
//! holds and what it reported: a crash of the scheduler alone repeats nothing. On shutdown it drains.
//!
//! [`testing`] runs a handler without a scheduler; [`session`] is the protocol as a pure machine.

mod context;
mod driver;
mod error;
mod handler;
mod link;
pub mod session;
mod shutdown;
mod status;
mod tasks;
pub mod testing;
mod worker;

pub use context::Context;
pub use error::TaskError;
pub use handler::{Attempt, TaskFailure, TaskService, service};
pub use shutdown::terminated;
pub use status::WorkerStatus;
pub use worker::{BuildError, RunError, Worker, WorkerBuilder};

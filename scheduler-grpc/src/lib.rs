//! The scheduler's gRPC API: its services over the [`Gateway`](scheduler_core::port::gateway::Gateway) port, and a client.
//!
//! | module | feature | what |
//! | --- | --- | --- |
//! | [`server`] | `server` | `WorkerService`, `TaskService`, `AdminService`, health and reflection, on one listener |
//! | [`node`] | `server` | the nodes of a cluster among each other |
//! | [`client`] | `client` | tasks and administration from Rust; workers use the SDK instead |
//!
//! Both features are on by default; a program that only submits tasks can do with `client`.
//!
//! ```no_run
//! use scheduler_grpc::client::{Client, ClientConfig, NewTask, PipelineRef, is_final};
//! use std::time::Duration;
//!
//! # async fn run() -> Result<(), scheduler_grpc::client::ClientError> {
//! let client = Client::connect("http://127.0.0.1:50050", ClientConfig::default()).await?;
//! let ocr = PipelineRef { application: "myname".into(), pipeline: "ocr".into() };
//! let id = client.submit(&ocr, NewTask::json(r#"{"url": "http://127.0.0.1/picture.png"}"#)).await?;
//! let task = client.wait(&ocr, &id, Duration::from_secs(30)).await?;
//! assert!(is_final(task.state()));
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod server;

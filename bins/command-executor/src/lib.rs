//! The command executor: a small gRPC server that stands beside one command-line tool and runs shell commands there.
//!
//! Each command runs in a process group of its own, which is gone when its call is: at its end, its timeout, when the client
//! leaves, and when the executor is asked to stop. Only an executor that is itself killed by SIGKILL leaves commands behind,
//! unless its container ends with it.
//!
//! It speaks `exec.ExecService` of `exec.proto`. The binary is configured by environment, as its image's users know
//! it; see [`Config`]. As a library it serves any [`TcpListener`](tokio::net::TcpListener):
//!
//! ```
//! use command_executor::{Config, serve};
//! use scheduler_proto::exec::{ExecCommands, exec_service_client::ExecServiceClient};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let stop = CancellationToken::new();
//! let server = tokio::spawn(serve(listener, Config::default(), stop.clone()));
//!
//! let mut client = ExecServiceClient::connect(format!("http://{address}")).await?;
//! let request = ExecCommands { commands: vec!["echo one".into(), "exit 7".into()], ..Default::default() };
//! let answer = client.execute_commands(request).await?.into_inner();
//! assert_eq!(answer.output, ["one\n", ""]);
//! assert_eq!(answer.failure.unwrap().exit_code, 7);
//!
//! stop.cancel();
//! server.await??;
//! # Ok(())
//! # }
//! ```

mod arguments;
mod config;
mod output;
mod process;
mod server;
mod service;

pub use arguments::Arguments;
pub use config::{Config, ListenAddress};
pub use server::serve;

//! Faults on real processes: a server and workers are killed, stopped, restarted and cut off while tasks are submitted without a pause.
//! At the end a ledger of what was accepted and what each worker ran proves that nothing was lost, and names what ran twice, and why.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use scheduler_chaos::{Options, run};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! let options = Options {
//!     seed: 7,
//!     length: Duration::from_secs(60),
//!     ..Options::default()
//! };
//! let report = run(&options).await?;
//! assert_eq!(report.problems(), Vec::<String>::new(), "{report}");
//! # Ok(())
//! # }
//! ```
//!
//! The faults and their times are drawn from the seed ([`plan`]); what the processes make of them is not repeated to the millisecond.
//! It runs one server with its embedded log and store. See `docs/chaos.md`.

mod cast;
mod clients;
pub mod ledger;
pub mod plan;
mod proxy;
mod report;
mod run;

pub use report::Report;
pub use run::{Options, run};

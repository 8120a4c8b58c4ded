//! Faults on real processes: servers, workers, Kafka and TiDB are killed, stopped, restarted and cut off while tasks are submitted without a
//! pause. At the end the ledgers of what was accepted and what each worker ran prove that nothing was lost, and name what ran twice, and why.
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
//! See `docs/chaos.md`.

mod cast;
mod clients;
pub mod excuse;
pub mod figures;
mod guard;
pub mod journal;
pub mod ledger;
mod node;
mod observer;
mod options;
pub mod plan;
mod producer;
mod proxy;
mod report;
mod run;
mod scene;
mod services;
mod settle;
mod worker;

pub use guard::guard;
pub use options::{Options, Stage};
pub use report::Report;
pub use run::run;
pub use settle::Audit;

/// Tells whoever watches how far the run is.
fn say(what: &str) {
    use std::io::Write as _;
    let at = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    // Nobody watches any more.
    let _ = writeln!(std::io::stderr(), "{at} {what}");
}

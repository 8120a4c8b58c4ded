//! Where the workers of a pipeline come from.
//!
//! | module | what |
//! | --- | --- |
//! | [`chart`] | reads a chart directory: pipeline definition, bounds on the number of workers, executors |
//! | [`local`] | a [`Deployer`](scheduler_core::port::deploy::Deployer) that runs workers as processes of this machine |
//! | [`helm`] | one that deploys charts into a Kubernetes cluster |
//!
//! How many workers are wanted for the work that waits is [`scheduler_core::scaling`]'s to say.
//!
//! ```no_run
//! use scheduler_core::port::deploy::Deployer as _;
//! use scheduler_deploy::local::{LocalConfig, LocalDeployer};
//!
//! # async fn run(wanted: scheduler_core::port::deploy::Wanted) -> Result<(), Box<dyn std::error::Error>> {
//! let config = LocalConfig::new("/var/lib/scheduler/workers", "http://127.0.0.1:50050");
//! let deployer = LocalDeployer::open(config).await?;
//! let pipeline = wanted.pipeline;
//! deployer.apply(wanted).await?;
//! deployer.scale(pipeline, 3).await?;
//! println!("{:?}", deployer.rollout(pipeline).await?);
//! deployer.shutdown().await;
//! # Ok(())
//! # }
//! ```

pub mod chart;
pub mod helm;
mod leftover;
pub mod local;
mod lock;

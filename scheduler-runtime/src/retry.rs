//! Trying again what an adapter could not do now.

use std::error::Error;

use scheduler_core::port::catalog::CatalogError;
use scheduler_core::port::deploy::DeployError;
use scheduler_core::port::log::LogError;
use scheduler_core::port::placement::PlacementError;
use scheduler_core::port::store::StoreError;
use scheduler_core::retry::Backoff;
use tracing::warn;

/// An error of which it is known whether time heals it.
pub(crate) trait Failure: Error + 'static {
    /// Whether the same call may succeed later.
    fn passes(&self) -> bool;
}

impl Failure for StoreError {
    fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Failure for LogError {
    fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Overloaded)
    }
}

impl Failure for CatalogError {
    fn passes(&self) -> bool {
        matches!(self, Self::Store(error) if error.passes())
    }
}

impl Failure for DeployError {
    fn passes(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Failure for PlacementError {
    fn passes(&self) -> bool {
        true
    }
}

/// Does `work` until it succeeds, with growing pauses; nothing else can go on without it. An error is one that does not pass.
pub(crate) async fn until_done<T, E: Failure, F>(what: &str, mut work: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::default();
    loop {
        match work().await {
            Err(error) if error.passes() => {
                let pause = backoff.pause();
                warn!(
                    error = &error as &dyn Error,
                    "{what} failed; trying again in {pause:?}"
                );
                tokio::time::sleep(pause).await;
            }
            answer => return answer,
        }
    }
}

/// An error with its causes, in one line for people.
pub(crate) fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

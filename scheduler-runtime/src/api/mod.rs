//! The gateway: what transports call, carried out by the actors, the catalog, the log and the store.

mod access;
mod admin;
mod change;
mod error;
mod find;
mod list;
mod tasks;
pub(crate) mod view;
mod workers;

pub(crate) use self::access::hash;
pub(crate) use self::admin::finish_deletion;

use std::time::Duration;

use scheduler_core::port::gateway::ApiError;

use crate::actor::Durable;

/// Longest wait for a change to be saved; what was done stays done, and is saved when the store is back.
const LONGEST_SAVE: Duration = Duration::from_secs(15);

/// Waits until a change is saved; the inner error says that its shard has left this node before.
async fn saved(durable: Durable) -> Result<Result<(), Left>, ApiError> {
    match tokio::time::timeout(LONGEST_SAVE, durable).await {
        Ok(Ok(())) => Ok(Ok(())),
        Ok(Err(_)) => Ok(Err(Left)),
        Err(_) => Err(error::unavailable(
            "the store does not answer: what was asked for is done, and not saved yet",
        )),
    }
}

/// A shard has left this node.
struct Left;

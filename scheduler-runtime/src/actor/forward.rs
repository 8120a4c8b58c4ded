//! The forwarder: reads from a partition's log what its shard is to get.

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::host::Word;
use scheduler_core::id::{Offset, ShardId};
use scheduler_core::port::log::{LogError, LogReader, ReadLimit, TaskLog};
use scheduler_core::task::Record;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{error, warn};

use super::Line;
use crate::retry::{Failure as _, in_full};

/// What is to be read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) from: Offset,
    pub(super) limit: ReadLimit,
    /// How long to leave the log alone before.
    pub(super) pause: Duration,
}

/// The actor's end of a forwarder, which ends with it.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) reads: mpsc::Sender<Read>,
    pub(super) task: AbortHandle,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads what it is told to until nobody is left to tell it.
pub(super) async fn forward(
    log: Arc<dyn TaskLog>,
    shard: ShardId,
    mut reads: mpsc::Receiver<Read>,
    line: Line,
) {
    let mut reader = None;
    while let Some(Read { from, limit, pause }) = reads.recv().await {
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
        let word = match read(&*log, shard, &mut reader, from, limit).await {
            Ok(records) => Word::Records(records),
            Err(LogError::Truncated { start, .. }) => {
                error!(%shard, from = from.0, to = start.0, "the log has lost records before their time");
                Word::Truncated(start)
            }
            Err(error) if error.passes() => {
                warn!(%shard, error = &error as &dyn std::error::Error, "reading the log again");
                Word::ReadLater
            }
            Err(error) => Word::ReadFailed(in_full(&error)),
        };
        if !line.tell(word).await {
            return;
        }
    }
}

/// Reads at least one record, by the reader that is there if it is at the right place. One that has failed is not used again.
async fn read(
    log: &dyn TaskLog,
    shard: ShardId,
    reader: &mut Option<(Offset, Box<dyn LogReader>)>,
    from: Offset,
    limit: ReadLimit,
) -> Result<Vec<Record>, LogError> {
    let mut at = match reader.take() {
        Some((next, at)) if next == from => at,
        _ => log.read(shard, from).await?,
    };
    let mut records = Vec::new();
    while records.is_empty() {
        at.next(limit, &mut records).await?;
    }
    let next = records.last().map_or(from, |record| record.offset.next());
    *reader = Some((next, at));
    Ok(records)
}

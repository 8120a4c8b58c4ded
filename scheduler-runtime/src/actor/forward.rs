//! The forwarder: moves records from a partition into its shard, as many as the shard has room for.

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{Offset, ShardId};
use scheduler_core::pipeline::Event;
use scheduler_core::port::log::{LogError, LogReader, ReadLimit, TaskLog};
use scheduler_core::shard::Input;
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{error, warn};

use super::{Line, Partition, PipelineActor, Word};
use crate::retry::Failure as _;

/// Most records in one message to the actor: more would make it deaf for too long.
const MOST_RECORDS: usize = 1_024;
const MOST_BYTES: usize = 1 << 20;
/// How long the log is left alone after it failed.
const PAUSE: Duration = Duration::from_millis(500);

/// The actor's end of a forwarder, which ends with it.
#[derive(Debug)]
pub(super) struct Forwarder {
    limits: mpsc::Sender<ReadLimit>,
    /// Whether it was told to read and has not answered.
    reading: bool,
    task: AbortHandle,
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forwarder {
    pub(super) fn spawn(
        tasks: &tokio_util::task::TaskTracker,
        log: Arc<dyn TaskLog>,
        shard: ShardId,
        from: Offset,
        line: Line,
    ) -> Self {
        let (limits, receive) = mpsc::channel(1);
        let task = tasks.spawn(async move {
            if let Err(error) = forward(&*log, shard, from, receive, &line).await {
                line.tell(Word::ReadFailed(error)).await;
            }
        });
        Self {
            limits,
            reading: false,
            task: task.abort_handle(),
        }
    }
}

async fn forward(
    log: &dyn TaskLog,
    shard: ShardId,
    from: Offset,
    mut limits: mpsc::Receiver<ReadLimit>,
    line: &Line,
) -> Result<(), LogError> {
    let mut next = from;
    let mut reader: Option<Box<dyn LogReader>> = None;
    while let Some(limit) = limits.recv().await {
        let mut records = Vec::new();
        while records.is_empty() {
            let attempt = async {
                let reader = match &mut reader {
                    Some(reader) => reader,
                    none => none.insert(log.read(shard, next).await?),
                };
                reader.next(limit, &mut records).await
            };
            match attempt.await {
                Ok(()) => (),
                Err(LogError::Truncated { start, .. }) if start > next => {
                    error!(%shard, from = next.0, to = start.0, "the log has lost records before their time");
                    line.tell(Word::Missing(start.0 - next.0, start)).await;
                    (next, reader) = (start, None);
                    records.clear();
                }
                Err(error) if error.passes() => {
                    warn!(%shard, error = &error as &dyn std::error::Error, "reading the log again");
                    records.clear();
                    reader = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        next = records.last().map_or(next, |record| record.offset.next());
        if !line.tell(Word::Records(records)).await {
            break;
        }
    }
    Ok(())
}

impl PipelineActor {
    pub(super) fn records(&mut self, now: Timestamp, partition: Partition, records: Vec<Record>) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let Some(forwarder) = &mut hosted.forwarder else {
            return;
        };
        forwarder.reading = false;
        let is_first = !std::mem::replace(&mut hosted.has_records, true);
        self.event(now, Event::Arrive(partition, records));
        if is_first {
            // The store is to know soon that this owner has survived the tasks that it found.
            self.input(now, partition, Input::Flush);
        }
        self.watch_arrived(now, partition);
    }

    /// Lets each forwarder read on whose shard has room.
    pub(super) fn read_on(&mut self) {
        for (partition, hosted) in &mut self.hosted {
            let Some(forwarder) = hosted.forwarder.as_mut().filter(|forwarder| !forwarder.reading) else {
                continue;
            };
            let Some(shard) = self.machine.shard(*partition) else {
                continue;
            };
            let (records, bytes) = shard.room();
            if records > 0 && bytes > 0 {
                let limit = ReadLimit {
                    records: records.min(MOST_RECORDS),
                    bytes: bytes.min(MOST_BYTES),
                };
                // It has answered the last one, so there is room for this.
                forwarder.reading = forwarder.limits.try_send(limit).is_ok();
            }
        }
    }
}

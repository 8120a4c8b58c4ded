//! The forwarder: moves records from a partition into its shard, as many as the shard has room for.

use std::sync::Arc;

use scheduler_core::id::{Offset, ShardId};
use scheduler_core::port::log::{LogError, LogReader, ReadLimit, TaskLog};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::warn;

use super::{Event, Input, Mailbox, Message, Partition, PipelineActor, Record, Timestamp};

/// Most records in one message to the actor: more would make it deaf for too long.
const MOST_RECORDS: usize = 1_024;
const MOST_BYTES: usize = 1 << 20;

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
    pub(super) fn spawn(log: Arc<dyn TaskLog>, shard: ShardId, from: Offset, mailbox: Mailbox) -> Self {
        let (limits, receive) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            if let Err(error) = forward(&*log, shard, from, receive, &mailbox).await {
                mailbox.tell(Message::ReadFailed(shard.partition, error)).await;
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
    mailbox: &Mailbox,
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
                Err(error @ (LogError::Unavailable(_) | LogError::Overloaded)) => {
                    warn!(%shard, error = &error as &dyn std::error::Error, "reading the log again");
                    records.clear();
                    reader = None;
                    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                }
                Err(error) => return Err(error),
            }
        }
        next = records.last().map_or(next, |record| record.offset.next());
        if !mailbox.tell(Message::Records(shard.partition, records)).await {
            break;
        }
    }
    Ok(())
}

impl PipelineActor {
    pub(super) fn records(&mut self, now: Timestamp, partition: Partition, records: Vec<Record>) {
        let Some(forwarder) = self
            .hosted
            .get_mut(&partition)
            .and_then(|hosted| hosted.forwarder.as_mut())
        else {
            return;
        };
        forwarder.reading = false;
        for record in records {
            self.event(now, Event::Shard(partition, Input::Arrive(record)));
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

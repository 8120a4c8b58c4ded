//! Reads one partition in order.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::Message;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use scheduler_core::id::{Offset, ShardId};
use scheduler_core::port::log::{Bounds, LogError, LogReader, ReadLimit};
use scheduler_core::task::{Record, RecordBody};
use tokio::time::Instant;

use super::pool::{Lane, Pool, Tap};
use crate::error::{Problem, blocking, is_missing, unavailable};
use crate::log::record::decode;
use crate::log::topics::Topics;

/// A partition that had no backlog for so long is read patiently again.
const COOL: Duration = Duration::from_secs(5);

/// A reader of one partition.
pub(crate) struct KafkaReader {
    topics: Arc<Topics>,
    pool: Arc<Pool>,
    shard: ShardId,
    name: Arc<str>,
    /// None if it has to be opened again.
    tap: Option<Tap>,
    next: Offset,
    /// A record that found no room.
    held: Option<Record>,
    /// How many records, and bytes of them, have come since there was none to take.
    run: (usize, usize),
    /// When it last ran out of records after a backlog.
    busy_at: Instant,
    /// What the brokers said that has to be looked into before reading goes on.
    doubt: Option<Code>,
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader")
            .field("shard", &self.shard)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl KafkaReader {
    pub(crate) async fn open(
        topics: Arc<Topics>,
        pool: Arc<Pool>,
        shard: ShardId,
        from: Offset,
    ) -> Result<Self, LogError> {
        let name = topics.locate(shard).await?;
        let bounds = topics.bounds(shard, name.clone()).await?;
        check(shard, from, bounds)?;
        let mut reader = Self {
            topics,
            pool,
            shard,
            name,
            tap: None,
            next: from,
            held: None,
            run: (0, 0),
            busy_at: Instant::now(),
            doubt: None,
        };
        reader.tap(Lane::Patient).await?;
        Ok(reader)
    }

    /// Begins to read at the next record.
    async fn tap(&mut self, lane: Lane) -> Result<(), LogError> {
        let (pool, name) = (self.pool.clone(), self.name.clone());
        let (shard, next) = (self.shard, self.next);
        let used = self.tap.take();
        let used = used.filter(|tap| tap.lane() == lane && !tap.is_broken());
        let tap = blocking(move || match used {
            Some(mut tap) => tap.start(next).map(|()| tap),
            None => pool.tap(shard, &name, next, lane),
        });
        self.tap = Some(tap.await??);
        Ok(())
    }

    /// The lane that it is in, or was last asked for.
    fn lane(&self) -> Lane {
        self.tap.as_ref().map_or(Lane::Patient, Tap::lane)
    }

    /// Waits until there may be a record to take. It has run out of them, so it can change its lane at no cost.
    async fn wait(&mut self) -> Result<(), LogError> {
        let (records, bytes) = std::mem::take(&mut self.run);
        let was_burst = self.pool.is_burst(records, bytes);
        if was_burst {
            self.busy_at = Instant::now();
        }
        let Some(tap) = &self.tap else { return Ok(()) };
        match tap.lane() {
            Lane::Patient if was_burst && self.pool.has_eager_room() => self.tap(Lane::Eager).await,
            Lane::Patient => {
                tap.bell.rung.notified().await;
                Ok(())
            }
            Lane::Eager => {
                tokio::select! {
                    () = tap.bell.rung.notified() => return Ok(()),
                    () = tokio::time::sleep_until(self.busy_at + COOL) => {}
                }
                self.tap(Lane::Patient).await
            }
        }
    }

    /// Moves what is ready into `into`, as much as `limit` allows.
    fn take(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError> {
        let Some(queue) = self.tap.as_ref().and_then(Tap::queue) else {
            return Ok(());
        };
        let (mut records, mut bytes) = (0, 0usize);
        while records < limit.records.max(1) {
            let record = match self.held.take() {
                Some(record) => record,
                None => match queue.poll(Duration::ZERO) {
                    None => return Ok(()),
                    Some(Ok(message)) => {
                        let offset = u64::try_from(message.offset()).map(Offset);
                        match offset {
                            Ok(offset) if offset >= self.next => {
                                self.next = offset.next();
                                decode(&message, offset)
                            }
                            // Was read before the reading was started again.
                            _ => continue,
                        }
                    }
                    Some(Err(error)) => {
                        self.doubt = self.meet(error)?;
                        if self.doubt.is_some() {
                            return Ok(());
                        }
                        continue;
                    }
                },
            };
            let weight = match &record.body {
                RecordBody::Task(task) => task.params.len(),
                RecordBody::Undecodable { raw, .. } => raw.len(),
            };
            if records > 0 && bytes + weight > limit.bytes {
                self.held = Some(record);
                return Ok(());
            }
            records += 1;
            bytes += weight;
            self.run.0 += 1;
            self.run.1 += weight;
            into.push(record);
        }
        Ok(())
    }

    /// Decides whether an error concerns the reader, and has to be looked into. Most do not: librdkafka goes on by itself.
    fn meet(&self, error: KafkaError) -> Result<Option<Code>, LogError> {
        match error.rdkafka_error_code() {
            Some(
                code @ (Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::TopicAuthorizationFailed),
            ) => Ok(Some(code)),
            Some(code) if is_missing(code) => Ok(Some(code)),
            Some(
                Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::InvalidMessageSize,
            ) => Err(LogError::Damaged {
                shard: self.shard,
                offset: self.next,
                source: Box::new(error),
            }),
            _ => Ok(None),
        }
    }

    /// Looks into what the brokers said: reading goes on if it is not so.
    async fn look_into(&mut self, code: Code) -> Result<(), LogError> {
        if code == Code::TopicAuthorizationFailed {
            // Said again by the brokers as long as it is so.
            self.doubt = None;
            return Err(unavailable(Problem(format!(
                "reading topic `{}` is not permitted; grant the scheduler READ on it",
                self.name
            ))));
        }
        if !self.topics.exists(self.shard, &self.name).await? {
            return Err(LogError::NotFound(self.shard));
        }
        let bounds = self.topics.bounds(self.shard, self.name.clone()).await?;
        check(self.shard, self.next, bounds)?;
        self.tap(self.lane()).await?;
        self.doubt = None;
        Ok(())
    }
}

/// Whether what is asked for is there.
fn check(shard: ShardId, asked: Offset, bounds: Bounds) -> Result<(), LogError> {
    if asked < bounds.start {
        return Err(LogError::Truncated {
            shard,
            asked,
            start: bounds.start,
        });
    }
    if asked > bounds.end {
        let lost = asked.0 - bounds.end.0;
        let problem = format!(
            "the topic ends at {}, {lost} offsets before what was read or saved: it was made anew, or its brokers have lost records",
            bounds.end.0
        );
        return Err(LogError::Damaged {
            shard,
            offset: bounds.end,
            source: Box::new(Problem(problem)),
        });
    }
    Ok(())
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn next(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError> {
        loop {
            if let Some(code) = self.doubt {
                self.look_into(code).await?;
            }
            if self.tap.as_ref().is_none_or(Tap::is_broken) {
                self.tap(self.lane()).await?;
            }
            let before = into.len();
            self.take(limit, into)?;
            if into.len() > before {
                return Ok(());
            }
            if self.doubt.is_some() {
                continue;
            }
            let Some(tap) = &self.tap else { continue };
            if tap.bell.deleted.load(Ordering::Acquire) {
                return Err(LogError::NotFound(self.shard));
            }
            self.wait().await?;
        }
    }
}

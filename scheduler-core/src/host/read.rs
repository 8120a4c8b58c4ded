//! From the log into shards, as much as they have room for.

use std::time::Duration;

use super::{Effect, Effects, Host, Stay, Trouble, Waiter};
use crate::id::{Offset, Partition};
use crate::pipeline::Event;
use crate::port::log::ReadLimit;
use crate::shard::Input;
use crate::task::Record;
use crate::time::Timestamp;

/// Most records in one read: more would make the pipeline deaf for too long.
pub const MOST_RECORDS: usize = 1_024;
/// Most bytes in one read.
pub const MOST_BYTES: usize = 1 << 20;
/// How long the log is left alone after it failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the reading of a log is.
#[derive(Debug)]
pub(super) struct Reader {
    next: Offset,
    /// How much the last read was to bring.
    limit: ReadLimit,
    /// Whether a read has not been answered.
    is_reading: bool,
}

impl Reader {
    pub(super) fn new(from: Offset) -> Self {
        Self {
            next: from,
            limit: ReadLimit { records: 1, bytes: 1 },
            is_reading: false,
        }
    }

    fn read<W, R>(&self, stay: Stay, pause: Duration) -> Effect<W, R> {
        Effect::Read {
            stay,
            from: self.next,
            limit: self.limit,
            pause,
        }
    }
}

impl<W: Waiter, R: Clone> Host<W, R> {
    /// Reads on for each shard that has room; to be called at the end of a turn.
    pub fn read_on(&mut self, effects: &mut Effects<W, R>) {
        for (partition, hosted) in &mut self.hosted {
            let Some(reader) = hosted.reader.as_mut().filter(|reader| !reader.is_reading) else {
                continue;
            };
            let Some(shard) = self.pipeline.shard(*partition) else {
                continue;
            };
            let (records, bytes) = shard.room();
            if records > 0 && bytes > 0 {
                reader.limit = ReadLimit {
                    records: records.min(MOST_RECORDS),
                    bytes: bytes.min(MOST_BYTES),
                };
                reader.is_reading = true;
                effects.host.push(reader.read(hosted.stay, Duration::ZERO));
            }
        }
    }

    pub(super) fn records(
        &mut self,
        now: Timestamp,
        partition: Partition,
        records: Vec<Record>,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let Some(reader) = &mut hosted.reader else {
            return;
        };
        reader.next = records.last().map_or(reader.next, |record| record.offset.next());
        reader.is_reading = false;
        let is_first = !std::mem::replace(&mut hosted.has_records, true);
        self.event(now, Event::Arrive(partition, records), effects);
        if is_first {
            // The store is to know soon that this owner has survived the tasks that it found.
            self.tell(now, partition, Input::Flush, effects);
        }
    }

    /// The log has lost what was to be read: the shard counts it, and the reading goes on where the log begins.
    pub(super) fn truncated(
        &mut self,
        now: Timestamp,
        partition: Partition,
        start: Offset,
        effects: &mut Effects<W, R>,
    ) {
        let Some(hosted) = self.hosted.get_mut(&partition) else {
            return;
        };
        let Some(reader) = &mut hosted.reader else {
            return;
        };
        let missing = start.0.saturating_sub(reader.next.0);
        if missing == 0 {
            let problem = format!(
                "it says that records before {} are gone, and has not {}",
                start.0, reader.next.0
            );
            return self.read_failed(partition, problem, effects);
        }
        reader.next = start;
        effects.host.push(reader.read(hosted.stay, Duration::ZERO));
        self.tell(now, partition, Input::Lost(start), effects);
        self.trouble_with(partition, Trouble::LostRecords(missing), effects);
    }

    pub(super) fn read_later(&mut self, partition: Partition, effects: &mut Effects<W, R>) {
        if let Some(hosted) = self.hosted.get(&partition)
            && let Some(reader) = &hosted.reader
        {
            effects.host.push(reader.read(hosted.stay, PAUSE));
        }
    }

    pub(super) fn read_failed(&mut self, partition: Partition, problem: String, effects: &mut Effects<W, R>) {
        self.stop_reading(partition, effects);
        self.trouble_with(partition, Trouble::ReadFailed(problem), effects);
    }

    pub(super) fn stop_reading(&mut self, partition: Partition, effects: &mut Effects<W, R>) {
        if let Some(hosted) = self.hosted.get_mut(&partition)
            && hosted.reader.take().is_some()
        {
            effects.host.push(Effect::StopReading(hosted.stay));
        }
    }
}

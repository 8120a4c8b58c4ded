//! The forwarder: moves records from a partition into its shard, as many as the shard has room for. The runtime's `actor/forward.rs`.

use scheduler_core::id::Partition;
use scheduler_core::pipeline::Event;
use scheduler_core::port::log::ReadLimit;
use scheduler_core::shard::Input;
use scheduler_core::task::Record;
use scheduler_core::time::Timestamp;

use super::{Mail, ReadError};
use crate::calls::LogCall;
use crate::coverage::Point;
use crate::world::{Happening, World};

/// Most records in one message.
pub(crate) const MOST_RECORDS: usize = 1_024;
const MOST_BYTES: usize = 1 << 20;
/// How long the log is left alone after it failed.
const PAUSE: u64 = 500;

impl World {
    /// Lets each forwarder read on whose shard has room.
    pub(super) fn read_on(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let mut calls = Vec::new();
        for (partition, hosted) in &mut node.hosted {
            let Some(forwarder) = hosted.forwarder.as_mut().filter(|forwarder| !forwarder.reading) else {
                continue;
            };
            let Some(shard) = node.machine.shard(*partition) else {
                continue;
            };
            let (records, bytes) = shard.room();
            if records > 0 && bytes > 0 {
                let limit = ReadLimit {
                    records: records.min(MOST_RECORDS),
                    bytes: bytes.min(MOST_BYTES),
                };
                forwarder.reading = true;
                forwarder.limit = limit;
                calls.push(LogCall::Read {
                    partition: *partition,
                    forwarder: forwarder.id,
                    from: forwarder.next,
                    limit,
                });
            }
        }
        for call in calls {
            self.call_log(index, call);
        }
    }

    pub(super) fn read_again(&mut self, index: usize, partition: Partition, forwarder: u64) {
        let Some(hosted) = self.nodes[index].hosted.get(&partition) else {
            return;
        };
        let Some(found) = hosted.forwarder.as_ref().filter(|found| found.id == forwarder) else {
            return;
        };
        let call = LogCall::Read {
            partition,
            forwarder,
            from: found.next,
            limit: found.limit,
        };
        self.call_log(index, call);
    }

    pub(super) fn records(
        &mut self,
        index: usize,
        now: Timestamp,
        partition: Partition,
        forwarder: u64,
        records: Result<Vec<Record>, ReadError>,
    ) {
        let node = &mut self.nodes[index];
        let life = node.life;
        let Some(hosted) = node.hosted.get_mut(&partition) else {
            return;
        };
        let Some(found) = hosted.forwarder.as_mut().filter(|found| found.id == forwarder) else {
            return;
        };
        match records {
            Ok(records) => {
                found.next = records.last().map_or(found.next, |record| record.offset.next());
                found.reading = false;
                let is_first = !std::mem::replace(&mut hosted.has_records, true);
                self.event(index, now, Event::Arrive(partition, records));
                if is_first {
                    self.event(index, now, Event::Shard(partition, Input::Flush));
                }
            }
            Err(ReadError::Unavailable) => {
                let mail = Mail::ReadAgain(partition, forwarder);
                self.queue.push(
                    self.now + PAUSE,
                    Happening::Mail {
                        node: index,
                        life,
                        mail,
                    },
                );
            }
            Err(ReadError::Truncated { start }) => {
                let (from, tenure) = (found.next, hosted.activation.tenure());
                if self.oracle.are_lost(partition, start) {
                    found.next = start;
                    self.coverage.hit(Point::Missing);
                    self.event(index, now, Event::Shard(partition, Input::Lost(start)));
                    return self.read_again(index, partition, forwarder);
                }
                hosted.forwarder = None;
                self.oracle.log_lost(&self.store, partition, from, start, tenure);
            }
        }
    }
}

//! The task log: partitions of records that stay until they are truncated.

use std::collections::BTreeMap;

use scheduler_core::id::{Offset, Partition};
use scheduler_core::port::log::{Bounds, ReadLimit};
use scheduler_core::task::{Record, RecordBody};
use scheduler_core::time::Timestamp;

/// Everything in the log. No fault happens here: calls reach it late, twice or not at all.
#[derive(Debug, Default)]
pub(crate) struct Log {
    partitions: BTreeMap<Partition, Part>,
}

#[derive(Debug, Default)]
struct Part {
    start: Offset,
    end: Offset,
    records: BTreeMap<Offset, Record>,
}

impl Log {
    pub(crate) fn append(
        &mut self,
        partition: Partition,
        appended_at: Timestamp,
        body: RecordBody,
    ) -> Offset {
        let part = self.partitions.entry(partition).or_default();
        let offset = part.end;
        part.end = offset.next();
        part.records.insert(
            offset,
            Record {
                offset,
                appended_at,
                body,
            },
        );
        offset
    }

    /// Leaves out offsets, as a log does that keeps marks of its own among the records.
    pub(crate) fn skip(&mut self, partition: Partition, offsets: u64) {
        self.partitions.entry(partition).or_default().end.0 += offsets;
    }

    pub(crate) fn bounds(&self, partition: Partition) -> Bounds {
        self.partitions.get(&partition).map_or(
            Bounds {
                start: Offset::ZERO,
                end: Offset::ZERO,
            },
            |part| Bounds {
                start: part.start,
                end: part.end,
            },
        )
    }

    /// Records from `from` on; `Err` with the first there is if those wanted are gone.
    pub(crate) fn read(
        &self,
        partition: Partition,
        from: Offset,
        limit: ReadLimit,
    ) -> Result<Vec<Record>, Offset> {
        let Some(part) = self.partitions.get(&partition) else {
            return Ok(Vec::new());
        };
        if from < part.start {
            return Err(part.start);
        }
        let mut bytes = 0;
        let mut records = Vec::new();
        for record in part.records.range(from..).map(|(_, record)| record) {
            bytes += match &record.body {
                RecordBody::Task(spec) => spec.params.len(),
                RecordBody::Undecodable { raw, .. } => raw.len(),
            };
            if records.len() == limit.records || bytes > limit.bytes && !records.is_empty() {
                break;
            }
            records.push(record.clone());
        }
        Ok(records)
    }

    pub(crate) fn truncate(&mut self, partition: Partition, before: Offset) {
        if let Some(part) = self.partitions.get_mut(&partition)
            && before > part.start
        {
            part.start = before.min(part.end);
            part.records = part.records.split_off(&part.start);
        }
    }
}

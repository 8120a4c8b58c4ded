//! The state that a checkpoint carries: what a replay of the log from the resume offset does not tell by itself.
//!
//! ```text
//! version (4)
//! totals:   see `shard/account.rs`: tail, absent, lost, succeeded, cancelled, died, revived
//! unsure:   below which offset; 0 if nothing is
//! workers:  count, then 16 bytes each
//! ended:    count of runs, then (gap since the last run's end, length) each
//! tasks:    count, then (distance from the last task's offset, attempts, forgiven, kind and flags, ...) each, by offset
//! ```

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, put_varint};
use crate::id::WorkerId;
use crate::shard::Totals;

const VERSION: u8 = 4;
const READY: u8 = 0;
const DELAYED: u8 = 1;
const LEASED: u8 = 2;
const CANCEL: u8 = 1 << 4;

/// A live task that a replay would not bring back as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TaskState {
    pub(crate) offset: u64,
    pub(crate) attempts: u32,
    pub(crate) forgiven: u16,
    /// Somebody cancelled it while it ran.
    pub(crate) cancel: bool,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Ready,
    Delayed {
        until: u64,
    },
    Leased {
        /// An index into [`Snapshot::workers`].
        worker: u32,
        epoch: u32,
        started_at: u64,
    },
}

/// See the module.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Snapshot {
    /// What has become of the offsets up to now.
    pub(crate) totals: Totals,
    /// Below it, workers of a vanished owner may say more of tasks than was saved: they had not had the time to, and have it with the next owner.
    pub(crate) unsure_below: u64,
    pub(crate) workers: Vec<WorkerId>,
    /// Runs of offsets that have ended, as `(first, one past the last)`, rising and apart.
    pub(crate) ended: Vec<(u64, u64)>,
    /// By offset, rising.
    pub(crate) tasks: Vec<TaskState>,
}

impl Snapshot {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        let Totals {
            tail,
            absent,
            lost,
            succeeded,
            cancelled,
            died,
            revived,
        } = self.totals;
        for total in [tail, absent, lost, succeeded, cancelled, died, revived] {
            put_varint(&mut out, total);
        }
        put_varint(&mut out, self.unsure_below);
        put_varint(&mut out, self.workers.len() as u64);
        for worker in &self.workers {
            out.extend_from_slice(&worker.0.to_le_bytes());
        }
        put_varint(&mut out, self.ended.len() as u64);
        let mut last = 0;
        for (first, end) in &self.ended {
            put_varint(&mut out, first - last);
            put_varint(&mut out, end - first);
            last = *end;
        }
        put_varint(&mut out, self.tasks.len() as u64);
        let mut last = 0;
        for task in &self.tasks {
            put_varint(&mut out, task.offset - last);
            last = task.offset;
            put_varint(&mut out, task.attempts.into());
            put_varint(&mut out, task.forgiven.into());
            let flags = if task.cancel { CANCEL } else { 0 };
            match task.phase {
                Phase::Ready => out.push(READY | flags),
                Phase::Delayed { until } => {
                    out.push(DELAYED | flags);
                    put_varint(&mut out, until);
                }
                Phase::Leased {
                    worker,
                    epoch,
                    started_at,
                } => {
                    out.push(LEASED | flags);
                    put_varint(&mut out, worker.into());
                    put_varint(&mut out, epoch.into());
                    put_varint(&mut out, started_at);
                }
            }
        }
        out.into()
    }

    /// The inverse of [`encode`](Self::encode). No bytes at all are the state of a new shard.
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut snapshot = Self::default();
        if bytes.is_empty() {
            return Ok(snapshot);
        }
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(reader.error("the state was written by another version"));
        }
        let totals = Totals {
            tail: reader.varint()?,
            absent: reader.varint()?,
            lost: reader.varint()?,
            succeeded: reader.varint()?,
            cancelled: reader.varint()?,
            died: reader.varint()?,
            revived: reader.varint()?,
        };
        if totals.revived > totals.died {
            return Err(reader.error("more tasks live again than have died"));
        }
        snapshot.totals = totals;
        snapshot.unsure_below = reader.varint()?;
        for _ in 0..reader.varint()? {
            let id = reader.take(16)?;
            let id = id[..]
                .try_into()
                .map_err(|_| reader.error("a worker's id is not 16 bytes"))?;
            snapshot.workers.push(WorkerId(u128::from_le_bytes(id)));
        }
        let mut last = 0u64;
        let overflow = |reader: &Reader| reader.error("an offset is too large");
        for _ in 0..reader.varint()? {
            let first = last
                .checked_add(reader.varint()?)
                .ok_or_else(|| overflow(&reader))?;
            last = first
                .checked_add(reader.varint()?)
                .ok_or_else(|| overflow(&reader))?;
            snapshot.ended.push((first, last));
        }
        let mut last = 0u64;
        for _ in 0..reader.varint()? {
            last = last
                .checked_add(reader.varint()?)
                .ok_or_else(|| overflow(&reader))?;
            let attempts = reader.number()?;
            let forgiven = reader.number()?;
            let kind = reader.byte()?;
            let phase = match kind & !CANCEL {
                READY => Phase::Ready,
                DELAYED => Phase::Delayed {
                    until: reader.varint()?,
                },
                LEASED => {
                    let worker: u32 = reader.number()?;
                    if worker as usize >= snapshot.workers.len() {
                        return Err(reader.error("a lease names a worker that is not listed"));
                    }
                    Phase::Leased {
                        worker,
                        epoch: reader.number()?,
                        started_at: reader.varint()?,
                    }
                }
                _ => return Err(reader.error("a task's kind is unknown")),
            };
            let cancel = kind & CANCEL != 0;
            snapshot.tasks.push(TaskState {
                offset: last,
                attempts,
                forgiven,
                cancel,
                phase,
            });
        }
        if !reader.is_empty() {
            return Err(reader.error("there are bytes after the end"));
        }
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        let phase = prop_oneof![
            Just(Phase::Ready),
            any::<u64>().prop_map(|until| Phase::Delayed { until }),
            (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(worker, epoch, started_at)| {
                Phase::Leased {
                    worker,
                    epoch,
                    started_at,
                }
            }),
        ];
        let task = (1..1_000u64, any::<u32>(), any::<u16>(), any::<bool>(), phase);
        (
            (1..u64::MAX, any::<u64>()),
            vec(any::<u128>(), 1..5),
            vec((1..100u64, 1..100u64), 0..20),
            vec(task, 0..20),
        )
            .prop_map(|((total, unsure_below), workers, runs, tasks)| {
                let (mut end, mut offset) = (0, 0);
                let ended = runs.into_iter().map(|(gap, len)| {
                    let first = end + gap;
                    end = first + len;
                    (first, end)
                });
                let tasks = tasks
                    .into_iter()
                    .map(|(ahead, attempts, forgiven, cancel, mut phase)| {
                        offset += ahead;
                        if let Phase::Leased { worker, .. } = &mut phase {
                            *worker %= u32::try_from(workers.len()).expect("few");
                        }
                        TaskState {
                            offset,
                            attempts,
                            forgiven,
                            cancel,
                            phase,
                        }
                    });
                Snapshot {
                    totals: Totals {
                        tail: total,
                        absent: unsure_below,
                        lost: total,
                        succeeded: unsure_below,
                        cancelled: total,
                        died: total,
                        revived: total / 2,
                    },
                    unsure_below,
                    ended: ended.collect(),
                    tasks: tasks.collect(),
                    workers: workers.iter().map(|id| WorkerId(*id)).collect(),
                }
            })
    }

    proptest! {
        #[test]
        fn a_state_survives_its_bytes(snapshot in snapshots()) {
            prop_assert_eq!(Snapshot::decode(snapshot.encode()), Ok(snapshot));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in vec(any::<u8>(), 0..200)) {
            let _ = Snapshot::decode(bytes.clone().into());
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            let _ = Snapshot::decode(bytes.into());
        }

        #[test]
        fn a_torn_state_is_an_error(snapshot in snapshots(), cut in 1..20usize) {
            let bytes = snapshot.encode();
            let torn = bytes.slice(..bytes.len().saturating_sub(cut).max(1));
            prop_assert!(Snapshot::decode(torn).is_err() || bytes.len() == 1);
        }
    }
}

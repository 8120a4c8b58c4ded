//! Inputs as bytes.

use std::sync::Arc;

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::encoding::{self, flag, put_timestamp, timestamp};
use crate::id::{Attempt, CheckpointId, Epoch, LeaseToken, Offset, WorkerId};
use crate::key::{KeyHash, SeenKey};
use crate::outcome::AttemptOutcome;
use crate::shard::{Input, PageId};
use crate::task::{Record, RecordBody};

const ARRIVE: u8 = 0;
const UNPARK: u8 = 1;
const KEYS: u8 = 2;
const FETCH: u8 = 3;
const REVIVE: u8 = 4;
const ASK: u8 = 5;
const REPORT: u8 = 6;
const ATTACH: u8 = 7;
const DETACH: u8 = 8;
const ALIVE: u8 = 9;
const EXTEND: u8 = 10;
const CANCEL: u8 = 11;
const HASTEN: u8 = 12;
const WATCH: u8 = 13;
const WATCH_ALL: u8 = 14;
const POLICY: u8 = 15;
const SAVED: u8 = 16;
const FLUSH: u8 = 17;
const TICK: u8 = 18;
const LEAVE: u8 = 19;
const LOST: u8 = 20;

pub(super) fn put(out: &mut Vec<u8>, input: &Input) {
    match input {
        Input::Arrive(record) => {
            out.push(ARRIVE);
            put_record(out, record);
        }
        Input::Unpark {
            page,
            tasks,
            next_wake,
        } => {
            out.push(UNPARK);
            put_varint(out, page.0);
            put_all(out, tasks, encoding::put_parked_task);
            put_timestamp(out, *next_wake);
        }
        Input::Keys(keys) => {
            out.push(KEYS);
            put_all(out, keys, |out, key| {
                out.extend_from_slice(&key.hash.0.to_le_bytes());
                put_varint(out, key.offset.0);
                put_timestamp(out, key.expires_at);
            });
        }
        Input::Fetch(task) => {
            out.push(FETCH);
            encoding::put_parked_task(out, task);
        }
        Input::Revive(task) => {
            out.push(REVIVE);
            encoding::put_dead_task(out, task);
        }
        Input::Ask { worker, limit } => {
            out.push(ASK);
            put_worker(out, *worker);
            put_varint(out, (*limit).into());
        }
        Input::Report {
            worker,
            offset,
            token,
            outcome,
        } => {
            out.push(REPORT);
            put_worker(out, *worker);
            put_lease(out, *offset, *token);
            put_outcome(out, outcome);
        }
        Input::Attach {
            worker,
            held,
            reported,
        } => {
            out.push(ATTACH);
            put_worker(out, *worker);
            put_all(out, held, |out, (offset, token)| put_lease(out, *offset, *token));
            put_all(out, reported, |out, (offset, token, outcome)| {
                put_lease(out, *offset, *token);
                put_outcome(out, outcome);
            });
        }
        Input::Detach { worker } => {
            out.push(DETACH);
            put_worker(out, *worker);
        }
        Input::Alive { worker } => {
            out.push(ALIVE);
            put_worker(out, *worker);
        }
        Input::Extend {
            worker,
            offset,
            token,
            progress,
        } => {
            out.push(EXTEND);
            put_worker(out, *worker);
            put_lease(out, *offset, *token);
            encoding::put_option(out, progress.as_ref());
        }
        Input::Cancel(offset) => put_offset(out, CANCEL, *offset),
        Input::Hasten(offset) => put_offset(out, HASTEN, *offset),
        Input::Lost(start) => put_offset(out, LOST, *start),
        Input::Watch(offset) => put_offset(out, WATCH, *offset),
        Input::WatchAll(all) => out.extend([WATCH_ALL, (*all).into()]),
        Input::Policy(policy) => {
            out.push(POLICY);
            let mut bytes = Vec::new();
            encoding::put_policy(&mut bytes, policy);
            put_bytes(out, &bytes);
        }
        Input::Saved(id) => {
            out.push(SAVED);
            put_varint(out, id.0);
        }
        Input::Flush => out.push(FLUSH),
        Input::Tick => out.push(TICK),
        Input::Leave => out.push(LEAVE),
    }
}

pub(super) fn take(from: &mut Reader) -> Result<Input, DecodeError> {
    Ok(match from.byte()? {
        ARRIVE => Input::Arrive(take_record(from)?),
        UNPARK => Input::Unpark {
            page: PageId(from.varint()?),
            tasks: take_all(from, encoding::parked_task)?,
            next_wake: timestamp(from)?,
        },
        KEYS => Input::Keys(take_all(from, |from| {
            Ok(SeenKey {
                hash: KeyHash(take_u128(from)?),
                offset: Offset(from.varint()?),
                expires_at: timestamp(from)?,
            })
        })?),
        FETCH => Input::Fetch(encoding::parked_task(from)?),
        REVIVE => Input::Revive(encoding::dead_task(from)?),
        ASK => Input::Ask {
            worker: take_worker(from)?,
            limit: from.number()?,
        },
        REPORT => {
            let worker = take_worker(from)?;
            let (offset, token) = take_lease(from)?;
            Input::Report {
                worker,
                offset,
                token,
                outcome: take_outcome(from)?,
            }
        }
        ATTACH => Input::Attach {
            worker: take_worker(from)?,
            held: take_all(from, take_lease)?,
            reported: take_all(from, |from| {
                let (offset, token) = take_lease(from)?;
                Ok((offset, token, take_outcome(from)?))
            })?,
        },
        DETACH => Input::Detach {
            worker: take_worker(from)?,
        },
        ALIVE => Input::Alive {
            worker: take_worker(from)?,
        },
        EXTEND => {
            let worker = take_worker(from)?;
            let (offset, token) = take_lease(from)?;
            Input::Extend {
                worker,
                offset,
                token,
                progress: encoding::option(from)?,
            }
        }
        CANCEL => Input::Cancel(Offset(from.varint()?)),
        HASTEN => Input::Hasten(Offset(from.varint()?)),
        LOST => Input::Lost(Offset(from.varint()?)),
        WATCH => Input::Watch(Offset(from.varint()?)),
        WATCH_ALL => Input::WatchAll(flag(from)?),
        POLICY => Input::Policy(Arc::new(encoding::policy(from.bytes()?)?)),
        SAVED => Input::Saved(CheckpointId(from.varint()?)),
        FLUSH => Input::Flush,
        TICK => Input::Tick,
        LEAVE => Input::Leave,
        _ => return Err(from.error("an input of an unknown kind")),
    })
}

fn put_offset(out: &mut Vec<u8>, kind: u8, offset: Offset) {
    out.push(kind);
    put_varint(out, offset.0);
}

fn put_worker(out: &mut Vec<u8>, worker: WorkerId) {
    out.extend_from_slice(&worker.0.to_le_bytes());
}

fn take_worker(from: &mut Reader) -> Result<WorkerId, DecodeError> {
    take_u128(from).map(WorkerId)
}

fn take_u128(from: &mut Reader) -> Result<u128, DecodeError> {
    let bytes = from.take(16)?;
    let bytes = bytes
        .first_chunk()
        .ok_or_else(|| from.error("a number of 128 bits is too short"))?;
    Ok(u128::from_le_bytes(*bytes))
}

fn put_lease(out: &mut Vec<u8>, offset: Offset, token: LeaseToken) {
    put_varint(out, offset.0);
    put_varint(out, token.epoch.0.into());
    put_varint(out, token.attempt.0.into());
}

fn take_lease(from: &mut Reader) -> Result<(Offset, LeaseToken), DecodeError> {
    let offset = Offset(from.varint()?);
    let token = LeaseToken {
        epoch: Epoch(from.number()?),
        attempt: Attempt(from.number()?),
    };
    Ok((offset, token))
}

fn put_outcome(out: &mut Vec<u8>, outcome: &AttemptOutcome) {
    let (kind, text): (u8, &[u8]) = match outcome {
        AttemptOutcome::Succeeded { output } => (0, output),
        AttemptOutcome::Failed { error } => (1, error.as_bytes()),
        AttemptOutcome::Rejected { error } => (2, error.as_bytes()),
        AttemptOutcome::Returned => (3, &[]),
        AttemptOutcome::Stopped => (4, &[]),
    };
    out.push(kind);
    put_bytes(out, text);
}

fn take_outcome(from: &mut Reader) -> Result<AttemptOutcome, DecodeError> {
    Ok(match from.byte()? {
        0 => AttemptOutcome::Succeeded {
            output: from.bytes()?,
        },
        1 => AttemptOutcome::Failed { error: from.text()? },
        2 => AttemptOutcome::Rejected { error: from.text()? },
        kind @ (3 | 4) => {
            if !from.bytes()?.is_empty() {
                return Err(from.error("an outcome that says nothing says something"));
            }
            if kind == 3 {
                AttemptOutcome::Returned
            } else {
                AttemptOutcome::Stopped
            }
        }
        _ => return Err(from.error("an outcome of an unknown kind")),
    })
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    put_varint(out, record.offset.0);
    put_timestamp(out, record.appended_at);
    match &record.body {
        RecordBody::Task(spec) => {
            out.push(0);
            encoding::put_spec(out, spec);
        }
        RecordBody::Undecodable { raw, problem } => {
            out.push(1);
            put_bytes(out, raw);
            put_bytes(out, problem.as_bytes());
        }
    }
}

fn take_record(from: &mut Reader) -> Result<Record, DecodeError> {
    Ok(Record {
        offset: Offset(from.varint()?),
        appended_at: timestamp(from)?,
        body: if flag(from)? {
            RecordBody::Undecodable {
                raw: from.bytes()?,
                problem: from.text()?,
            }
        } else {
            RecordBody::Task(encoding::spec(from)?)
        },
    })
}

fn put_all<T>(out: &mut Vec<u8>, all: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_varint(out, all.len() as u64);
    for one in all {
        put(out, one);
    }
}

fn take_all<T>(
    from: &mut Reader,
    take: impl Fn(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // The count is not believed: each takes at least a byte of what is there.
    let count = from.varint()?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(take(from)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert!(take(&mut Reader::new(Bytes::from_static(&[99]))).is_err());
        assert!(take(&mut Reader::new(Bytes::from_static(&[WATCH_ALL, 2]))).is_err());
        assert!(take(&mut Reader::new(Bytes::new())).is_err());
    }
}

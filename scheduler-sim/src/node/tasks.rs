//! Requests that change a task. The runtime's `api/tasks.rs`, each await a step.

use scheduler_core::id::{Offset, Partition};
use scheduler_core::outcome::{DeadReason, DeadTask, ParkedTask};
use scheduler_core::pipeline::Event;
use scheduler_core::shard::{Answer, Input};
use scheduler_core::time::Timestamp;

use super::Mail;
use super::host::Waiter;
use crate::calls::StoreOp;
use crate::coverage::Point;
use crate::world::{Happening, World};

/// What somebody wants of a task.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    Cancel,
    Hasten,
    Redrive,
}

/// A request, and how far it is.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    pub(crate) change: Change,
    pub(crate) stage: Stage,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stage {
    /// The shard is told.
    First,
    /// The store is read, when the shard's mark was this; for the so manieth time.
    Read(u64, u32),
    /// What was read then is handed in.
    Parked(ParkedTask, u64, u32),
    /// What was read then is handed in.
    Dead(DeadTask, u64, u32),
    /// The change is saved.
    Done,
}

/// How often the store is read for one request.
const MOST_READS: u32 = 5;

impl Request {
    fn input(&self) -> Input {
        match self.change {
            Change::Cancel => Input::Cancel(self.offset),
            Change::Hasten => Input::Hasten(self.offset),
            Change::Redrive => Input::Flush,
        }
    }

    pub(super) fn at(&self, stage: Stage) -> Self {
        Self {
            stage,
            ..self.clone()
        }
    }
}

impl World {
    pub(super) fn change(&mut self, index: usize, now: Timestamp, mut request: Request) {
        let (partition, offset) = (request.partition, request.offset);
        let mark = self.nodes[index]
            .hosted
            .get(&partition)
            .map_or(0, |hosted| hosted.mark);
        self.trace.note(&[14, partition.0.into(), offset.0, mark], || {
            format!(
                "node {index} is to {:?} {partition:?} {offset:?}: {:?}",
                request.change, request.stage
            )
        });
        match std::mem::replace(&mut request.stage, Stage::Done) {
            Stage::First if request.change == Change::Redrive => self.read_row(index, &request, mark, 1),
            Stage::First => {
                let answer = self.tell_shard(index, now, partition, request.input());
                match answer {
                    Answer::Done => self.change_is_made(index, now, request),
                    Answer::Elsewhere => self.read_row(index, &request, mark, 1),
                    Answer::Late | Answer::Full => (),
                }
            }
            Stage::Parked(_, read_at, reads) | Stage::Dead(_, read_at, reads) if read_at != mark => {
                self.coverage.hit(Point::FetchAgain);
                if reads < MOST_READS {
                    self.read_row(index, &request, mark, reads + 1);
                }
            }
            Stage::Parked(row, ..) => {
                let fetched = self.tell_shard(index, now, partition, Input::Fetch(row));
                match fetched {
                    Answer::Done => self.coverage.hit(Point::Fetched),
                    Answer::Full => self.coverage.hit(Point::WindowFull),
                    Answer::Late | Answer::Elsewhere => (),
                }
                let changed = self.tell_shard(index, now, partition, request.input());
                if changed == Answer::Done {
                    self.change_is_made(index, now, request);
                } else if fetched == Answer::Done {
                    self.event(index, now, Event::Shard(partition, Input::Flush));
                }
            }
            Stage::Dead(row, ..) => match self.tell_shard(index, now, partition, Input::Revive(row)) {
                Answer::Done => {
                    self.coverage.hit(Point::Revived);
                    self.oracle.revived(partition, offset);
                    self.durable(index, now, partition, Waiter::Change(request));
                }
                Answer::Full => self.coverage.hit(Point::WindowFull),
                Answer::Late | Answer::Elsewhere => (),
            },
            Stage::Read(..) | Stage::Done => (),
        }
    }

    /// The shard has done as somebody wanted, who is told when that is saved.
    fn change_is_made(&mut self, index: usize, now: Timestamp, request: Request) {
        let (partition, offset) = (request.partition, request.offset);
        let Some(shard) = self.nodes[index].machine.shard(partition) else {
            return;
        };
        match request.change {
            Change::Cancel => self
                .oracle
                .cancel_is_told(partition, offset, shard.tenure().epoch),
            Change::Hasten => self.coverage.hit(Point::Hastened),
            Change::Redrive => (),
        }
        if shard.is_saved() {
            return self.change_is_saved(index, &request);
        }
        self.durable(index, now, partition, Waiter::Change(request));
    }

    pub(super) fn change_is_saved(&mut self, index: usize, request: &Request) {
        let shard = self.nodes[index].machine.shard(request.partition);
        if request.change == Change::Cancel
            && let Some(shard) = shard
        {
            let epoch = shard.tenure().epoch;
            self.oracle
                .cancel_is_saved(request.partition, request.offset, epoch);
        }
    }

    fn read_row(&mut self, index: usize, request: &Request, mark: u64, reads: u32) {
        let request = request.at(Stage::Read(mark, reads));
        let op = if request.change == Change::Redrive {
            StoreOp::Dead(request)
        } else {
            StoreOp::Row(request)
        };
        self.new_store_call(index, 0, op);
    }

    pub(super) fn row_read(&mut self, index: usize, request: &Request, row: Option<ParkedTask>) {
        if let (Some(row), Stage::Read(mark, reads)) = (row, &request.stage) {
            self.change_later(index, request.at(Stage::Parked(row, *mark, *reads)));
        }
    }

    pub(super) fn dead_read(&mut self, index: usize, request: &Request, row: Option<DeadTask>) {
        let row = row.filter(|row| row.reason != DeadReason::Undecodable);
        if let (Some(row), Stage::Read(mark, reads)) = (row, &request.stage) {
            self.change_later(index, request.at(Stage::Dead(row, *mark, *reads)));
        }
    }

    /// The request's next word to the mailbox.
    fn change_later(&mut self, index: usize, request: Request) {
        let life = self.nodes[index].life;
        let at = self.now + self.rng.range(0, 2);
        let mail = Mail::Change(request);
        self.queue.push(
            at,
            Happening::Mail {
                node: index,
                life,
                mail,
            },
        );
    }

    pub(super) fn tell_shard(
        &mut self,
        index: usize,
        now: Timestamp,
        partition: Partition,
        input: Input,
    ) -> Answer {
        let node = &mut self.nodes[index];
        node.machine
            .handle(now, Event::Shard(partition, input), &mut node.effects)
    }
}

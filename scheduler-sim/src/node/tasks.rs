//! Requests that change a task. The runtime's `api/tasks.rs`, each await a step.

use scheduler_core::host::{Mark, ReadAt};
use scheduler_core::id::{Epoch, Offset, Partition};
use scheduler_core::outcome::{DeadReason, DeadTask, ParkedTask};
use scheduler_core::shard::{Answer, Input};
use scheduler_core::time::Timestamp;

use super::Mail;
use super::host::Waiter;
use crate::calls::StoreOp;
use crate::coverage::Point;
use crate::world::World;

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
    Read(Mark, u32),
    /// What was read then is handed in.
    Parked(ParkedTask, ReadAt, u32),
    /// What was read then is handed in.
    Dead(DeadTask, ReadAt, u32),
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
        self.trace.note(&[14, partition.0.into(), offset.0], || {
            format!(
                "node {index} is to {:?} {partition:?} {offset:?}: {:?}",
                request.change, request.stage
            )
        });
        let (inputs, read_at, reads) = match std::mem::replace(&mut request.stage, Stage::Done) {
            Stage::First if request.change == Change::Redrive => {
                let mark = self.nodes[index].host.mark_of(partition);
                return self.read_row(index, &request, mark, 1);
            }
            Stage::First => (vec![request.input()], None, 0),
            Stage::Parked(row, read_at, reads) => {
                (vec![Input::Fetch(row), request.input()], Some(read_at), reads)
            }
            Stage::Dead(row, read_at, reads) => (vec![Input::Revive(row)], Some(read_at), reads),
            Stage::Read(..) | Stage::Done => return,
        };
        let successor = read_at.map(|read_at| read_at.epoch);
        let successor = successor.filter(|epoch| self.is_over(index, partition, *epoch));
        let node = &mut self.nodes[index];
        let shard = node.host.pipeline().shard(partition);
        let epoch = shard.map(|shard| shard.tenure().epoch).unwrap_or_default();
        let waiter = |answers: &[Answer]| match answers.last() {
            Some(Answer::Done) => Waiter::Change(request.clone(), epoch),
            _ => Waiter::Nobody,
        };
        let changed = node
            .host
            .change(now, partition, inputs, read_at, waiter, &mut node.effects);
        if let Some(epoch) = successor {
            self.coverage.hit(Point::RowsOfAnother);
            if changed.answers.is_some() {
                self.oracle.goes_on(index, partition, epoch);
            }
        }
        match (changed.answers.as_deref(), read_at) {
            (Some([Answer::Elsewhere]), None) => self.read_row(index, &request, changed.mark, 1),
            (Some(answers), _) => self.is_changed(&request, epoch, answers),
            (None, _) => {
                self.coverage.hit(Point::FetchAgain);
                if reads < MOST_READS {
                    self.read_row(index, &request, changed.mark, reads + 1);
                }
            }
        }
        self.obey(index, now);
    }

    /// Takes note of what came of a change.
    fn is_changed(&mut self, request: &Request, epoch: Epoch, answers: &[Answer]) {
        let (partition, offset) = (request.partition, request.offset);
        if let [fetched, _] = answers {
            match fetched {
                Answer::Done => self.coverage.hit(Point::Fetched),
                Answer::Full => self.coverage.hit(Point::WindowFull),
                Answer::Late | Answer::Elsewhere => (),
            }
        }
        match (request.change, answers.last()) {
            (Change::Cancel, Some(Answer::Done)) => self.oracle.cancel_is_told(partition, offset, epoch),
            (Change::Hasten, Some(Answer::Done)) => self.coverage.hit(Point::Hastened),
            (Change::Redrive, Some(Answer::Done)) => {
                self.coverage.hit(Point::Revived);
                self.oracle.revived(partition, offset);
            }
            (Change::Redrive, Some(Answer::Full)) => self.coverage.hit(Point::WindowFull),
            _ => (),
        }
    }

    /// The store has what the shard has done as somebody wanted, in this epoch.
    pub(super) fn change_is_saved(&mut self, request: &Request, epoch: Epoch) {
        if request.change == Change::Cancel {
            self.oracle
                .cancel_is_saved(request.partition, request.offset, epoch);
        }
    }

    fn read_row(&mut self, index: usize, request: &Request, mark: Mark, reads: u32) {
        let request = request.at(Stage::Read(mark, reads));
        let op = if request.change == Change::Redrive {
            StoreOp::Dead(request)
        } else {
            StoreOp::Row(request)
        };
        self.new_store_call(index, op);
    }

    pub(super) fn row_read(
        &mut self,
        index: usize,
        request: &Request,
        row: Option<ParkedTask>,
        epoch: Epoch,
    ) {
        if let (Some(row), Stage::Read(mark, reads)) = (row, &request.stage) {
            let read_at = ReadAt { mark: *mark, epoch };
            self.change_later(index, request.at(Stage::Parked(row, read_at, *reads)));
        }
    }

    pub(super) fn dead_read(&mut self, index: usize, request: &Request, row: Option<DeadTask>, epoch: Epoch) {
        let row = row.filter(|row| row.reason != DeadReason::Undecodable);
        if let (Some(row), Stage::Read(mark, reads)) = (row, &request.stage) {
            let read_at = ReadAt { mark: *mark, epoch };
            self.change_later(index, request.at(Stage::Dead(row, read_at, *reads)));
        }
    }

    /// The request's next word to the mailbox.
    fn change_later(&mut self, index: usize, request: Request) {
        let at = self.now + self.rng.range(0, 2);
        self.mail_at(index, at, Mail::Change(request));
    }

    pub(super) fn tell_shard(
        &mut self,
        index: usize,
        now: Timestamp,
        partition: Partition,
        input: Input,
    ) -> Answer {
        let node = &mut self.nodes[index];
        node.host.tell(now, partition, input, &mut node.effects)
    }
}

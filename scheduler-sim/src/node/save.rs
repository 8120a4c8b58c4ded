//! The checkpointer and everything else that is asked of the store. The runtime's `saver.rs` and `retry.rs`.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, Partition};
use scheduler_core::pipeline::Event;
use scheduler_core::port::store::Saved;
use scheduler_core::shard::Input;
use scheduler_core::time::Timestamp;

use super::Mail;
use crate::calls::{StoreAnswer, StoreCall, StoreOp};
use crate::coverage::Point;
use crate::world::{Happening, World};

const FIRST_PAUSE: u64 = 50;
const LONGEST_PAUSE: u64 = 5_000;

/// Checkpoints that wait, and whether a transaction is under way.
#[derive(Debug, Default)]
pub(crate) struct Saver {
    orders: Vec<(Arc<Checkpoint>, u64)>,
    is_busy: bool,
}

impl Saver {
    pub(super) fn is_idle(&self) -> bool {
        self.orders.is_empty() && !self.is_busy
    }
}

impl World {
    pub(super) fn order_save(&mut self, index: usize, checkpoint: Arc<Checkpoint>) {
        let partition = checkpoint.tenure.shard.partition;
        let Some(hosted) = self.nodes[index].hosted.get(&partition) else {
            return;
        };
        let stay = hosted.stay;
        self.nodes[index].saver.orders.push((checkpoint, stay));
        self.save_next(index);
    }

    fn save_next(&mut self, index: usize) {
        let saver = &mut self.nodes[index].saver;
        if saver.is_busy || saver.orders.is_empty() {
            return;
        }
        saver.is_busy = true;
        let orders = std::mem::take(&mut saver.orders);
        self.new_store_call(index, 0, StoreOp::Save(orders));
    }

    pub(super) fn new_store_call(&mut self, index: usize, stay: u64, op: StoreOp) {
        self.call_store(StoreCall {
            node: index,
            life: self.nodes[index].life,
            stay,
            pause: FIRST_PAUSE,
            is_late: false,
            op,
        });
    }

    /// Whether the store knows a later epoch of a shard than that of the shard here.
    fn is_over(&self, index: usize, partition: Partition, stored: Epoch) -> bool {
        let shard = self.nodes[index].machine.shard(partition);
        shard.is_some_and(|shard| shard.tenure().epoch < stored)
    }

    /// Takes the store's answer.
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of call")]
    pub(super) fn stored(
        &mut self,
        index: usize,
        now: Timestamp,
        mut call: StoreCall,
        answer: Option<StoreAnswer>,
    ) {
        let Some(answer) = answer else {
            if let StoreOp::Row(_) | StoreOp::Dead(_) = call.op {
                // Whoever asked is told that the store is away.
                return;
            }
            let pause = call.pause;
            call.pause = (pause * 2).min(LONGEST_PAUSE);
            let (life, mail) = (call.life, Mail::Again(call));
            let at = self.now + pause;
            return self.queue.push(
                at,
                Happening::Mail {
                    node: index,
                    life,
                    mail,
                },
            );
        };
        match (call.op, answer) {
            (StoreOp::Claim(partition, _), StoreAnswer::Claimed(claimed)) => {
                if self.stays(index, partition, call.stay) {
                    self.claimed(index, partition, claimed);
                }
            }
            (StoreOp::Keys(partition, bounds), StoreAnswer::Keys(keys)) => {
                if self.stays(index, partition, call.stay) {
                    self.measured(index, now, partition, bounds, keys);
                }
            }
            (StoreOp::Save(checkpoints), StoreAnswer::Saved(answers)) => {
                for ((checkpoint, stay), saved) in checkpoints.into_iter().zip(answers) {
                    let partition = checkpoint.tenure.shard.partition;
                    let id = checkpoint.id;
                    drop(checkpoint);
                    if !self.stays(index, partition, stay) {
                        continue;
                    }
                    match saved {
                        Saved::Done => self.saved(index, now, partition, id),
                        Saved::Fenced { .. } => self.fenced(index, now, partition),
                    }
                }
                self.nodes[index].saver.is_busy = false;
                self.save_next(index);
            }
            (StoreOp::Release(tenure, is_revoked), StoreAnswer::Done) => {
                if is_revoked {
                    self.released(index, tenure.shard.partition);
                }
            }
            (
                StoreOp::Page {
                    partition,
                    number,
                    after,
                    ..
                },
                StoreAnswer::Rows(rows),
            ) => {
                let rows = Arc::new(rows);
                let last = rows.last().map(|task| (task.wake_at, task.offset)).or(after);
                let op = StoreOp::Next {
                    partition,
                    number,
                    last,
                    page: rows,
                };
                self.call_store(StoreCall {
                    node: index,
                    life: call.life,
                    stay: call.stay,
                    pause: call.pause,
                    is_late: false,
                    op,
                });
            }
            (
                StoreOp::Next {
                    partition,
                    number,
                    page,
                    ..
                },
                StoreAnswer::Next(next, epoch),
            ) => {
                if !self.stays(index, partition, call.stay) {
                    return;
                }
                if self.is_over(index, partition, epoch) {
                    self.coverage.hit(Point::RowsOfAnother);
                    return self.fenced(index, now, partition);
                }
                let next_wake = next.first().map_or(Timestamp::MAX, |task| task.wake_at);
                let tasks = Arc::unwrap_or_clone(page);
                if let Some(hosted) = self.nodes[index].hosted.get_mut(&partition) {
                    if hosted.inherited_until.is_none_or(|until| next_wake > until) {
                        hosted.recovered = true;
                    } else {
                        self.coverage.hit(Point::NextPage);
                    }
                }
                let input = Input::Unpark {
                    page: number,
                    tasks,
                    next_wake,
                };
                self.event(index, now, Event::Shard(partition, input));
            }
            (StoreOp::Row(request), StoreAnswer::Row(_, epoch))
            | (StoreOp::Dead(request), StoreAnswer::Dead(_, epoch))
                if self.is_over(index, request.partition, epoch) =>
            {
                self.coverage.hit(Point::RowsOfAnother);
                self.fenced(index, now, request.partition);
            }
            (StoreOp::Row(request), StoreAnswer::Row(row, _)) => self.row_read(index, &request, row),
            (StoreOp::Dead(request), StoreAnswer::Dead(row, _)) => self.dead_read(index, &request, row),
            (op, answer) => unreachable!("{answer:?} is no answer to {op:?}"),
        }
    }
}

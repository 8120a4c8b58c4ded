//! The checkpointer and everything else that is asked of the store. The runtime's `saver.rs` and `retry.rs`.

use std::sync::Arc;

use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::host::{Stay, Word};
use scheduler_core::id::{Epoch, Partition};
use scheduler_core::port::store::Saved;
use scheduler_core::retry::Backoff;
use scheduler_core::time::{Timestamp, millis};

use super::Mail;
use crate::calls::{StoreAnswer, StoreCall, StoreOp};
use crate::coverage::Point;
use crate::world::World;

impl World {
    pub(super) fn order_save(&mut self, index: usize, checkpoint: Arc<Checkpoint>) {
        let node = &mut self.nodes[index];
        if let Some(stay) = node.host.stay_of(checkpoint.tenure.shard.partition) {
            node.saver.order((checkpoint, stay));
            self.save_next(index);
        }
    }

    fn save_next(&mut self, index: usize) {
        if let Some(orders) = self.nodes[index].saver.begin() {
            self.new_store_call(index, StoreOp::Save(orders));
        }
    }

    pub(super) fn new_store_call(&mut self, index: usize, op: StoreOp) {
        self.call_store(StoreCall {
            node: index,
            life: self.nodes[index].life,
            backoff: Backoff::default(),
            is_late: false,
            op,
        });
    }

    /// Whether the store knows a later epoch of a shard than that of the shard here.
    pub(super) fn is_over(&self, index: usize, partition: Partition, stored: Epoch) -> bool {
        let shard = self.nodes[index].host.pipeline().shard(partition);
        shard.is_some_and(|shard| shard.tenure().epoch < stored)
    }

    /// Takes the store's answer.
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
            let at = self.now + millis(call.backoff.pause());
            return self.mail_at(index, at, Mail::Again(call));
        };
        match (call.op, answer) {
            (StoreOp::Claim(stay, _), StoreAnswer::Claimed(claimed)) => {
                self.claimed(index, now, stay, claimed);
            }
            (StoreOp::Keys(stay, bounds), StoreAnswer::Keys(keys)) => {
                self.measured(index, now, stay, bounds, keys);
            }
            (StoreOp::Save(orders), StoreAnswer::Saved(answers)) => {
                for ((checkpoint, stay), saved) in orders.into_iter().zip(answers) {
                    let id = checkpoint.id;
                    drop(checkpoint);
                    match saved {
                        Saved::Done => {
                            self.tell_stay(index, now, stay, Word::Saved(id));
                        }
                        Saved::Fenced { stored } => {
                            if self.tell_stay(index, now, stay, Word::Fenced(stored)) {
                                self.coverage.hit(Point::ZombieFenced);
                            }
                        }
                    }
                }
                self.nodes[index].saver.done();
                self.save_next(index);
            }
            (StoreOp::Save(orders), StoreAnswer::Damaged) => {
                if let Some((checkpoint, stay)) = self.nodes[index].saver.failed(orders) {
                    drop(checkpoint);
                    let problem = "its rows are damaged".to_owned();
                    if self.tell_stay(index, now, stay, Word::Broken(problem)) {
                        self.coverage.hit(Point::Damaged);
                    }
                } else {
                    self.coverage.hit(Point::SavedApart);
                }
                self.save_next(index);
            }
            (StoreOp::Release(tenure, is_awaited), StoreAnswer::Done) => {
                let partition = tenure.shard.partition;
                self.oracle.is_released(index, partition, self.now);
                if is_awaited {
                    self.released(index, partition);
                }
            }
            (
                StoreOp::Page {
                    stay, number, after, ..
                },
                StoreAnswer::Rows(rows),
            ) => {
                let rows = Arc::new(rows);
                let last = rows.last().map(|task| (task.wake_at, task.offset)).or(after);
                let op = StoreOp::Next {
                    stay,
                    number,
                    last,
                    page: rows,
                };
                self.call_store(StoreCall {
                    node: index,
                    life: call.life,
                    backoff: call.backoff,
                    is_late: false,
                    op,
                });
            }
            (
                StoreOp::Next {
                    stay, number, page, ..
                },
                StoreAnswer::Next(next, epoch),
            ) => {
                let next_wake = next.first().map_or(Timestamp::MAX, |task| task.wake_at);
                let is_over = self.page_is_read(index, stay, next_wake, epoch);
                let word = Word::Unpark {
                    page: number,
                    tasks: Arc::unwrap_or_clone(page),
                    next_wake,
                    epoch,
                };
                self.tell_stay(index, now, stay, word);
                if is_over && self.nodes[index].host.is_here(stay) {
                    self.oracle.goes_on(index, stay.partition, epoch);
                }
            }
            (StoreOp::Row(request), StoreAnswer::Row(row, epoch)) => {
                self.row_read(index, &request, row, epoch);
            }
            (StoreOp::Dead(request), StoreAnswer::Dead(row, epoch)) => {
                self.dead_read(index, &request, row, epoch);
            }
            (op, answer) => unreachable!("{answer:?} is no answer to {op:?}"),
        }
    }

    /// Takes note of how much of what the last owner had in memory is loaded. Answers whether the rows are another owner's by now.
    fn page_is_read(&mut self, index: usize, stay: Stay, next_wake: Timestamp, epoch: Epoch) -> bool {
        if !self.nodes[index].host.is_here(stay) {
            return false;
        }
        if self.is_over(index, stay.partition, epoch) {
            self.coverage.hit(Point::RowsOfAnother);
            return true;
        }
        if let Some(seen) = self.nodes[index].seen.get_mut(&stay.partition) {
            if seen.inherited_until.is_none_or(|until| next_wake > until) {
                seen.recovered = true;
            } else {
                self.coverage.hit(Point::NextPage);
            }
        }
        false
    }
}

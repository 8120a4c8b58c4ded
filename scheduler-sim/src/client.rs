//! Clients: they submit and try again until they are told that it is done, and change their minds about tasks.

use bytes::Bytes;
use scheduler_core::id::Partition;
use scheduler_core::task::{Priority, RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

use crate::coverage::Point;
use crate::node::{Change, Mail, Request};
use crate::worker::kind;
use crate::world::{Happening, World};

/// A submission, the same at each try.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    partition: Partition,
    bodies: Vec<RecordBody>,
}

impl World {
    /// Arranges for all that is submitted in this history.
    pub(crate) fn arrange_submissions(&mut self) {
        for _ in 0..self.plan.batches {
            let at = self.rng.range(0, self.plan.heal_at);
            self.queue.push(at, Happening::Compose);
        }
    }

    pub(crate) fn compose(&mut self) {
        let is_hot = self.rng.chance(self.plan.tasks.hot);
        if is_hot {
            self.coverage.hit(Point::HotPartition);
        }
        let partition =
            Partition(u32::try_from(self.rng.range(0, u64::from(self.partitions) - 1)).unwrap_or(0));
        let partition = if is_hot { Partition(0) } else { partition };
        let is_burst = self.plan.burst > 0 && self.rng.chance(100);
        let most = if is_burst {
            self.plan.burst
        } else {
            self.plan.batch
        };
        let tasks = self.rng.range(1, most);
        let bodies = (0..tasks).map(|_| self.compose_task()).collect();
        self.submissions_open += 1;
        let at = self.now + self.rng.range(1, self.plan.log.latency.max(1));
        let submission = Submission { partition, bodies };
        self.queue.push(at, Happening::Append(submission));
    }

    fn compose_task(&mut self) -> RecordBody {
        let mix = self.plan.tasks.clone();
        if self.rng.chance(mix.nonsense) {
            self.coverage.hit(Point::Nonsense);
            return RecordBody::Undecodable {
                raw: Bytes::from_static(b"?"),
                problem: "params: not JSON".into(),
            };
        }
        let shares = [
            (mix.long, kind::LONG),
            (mix.flaky, kind::FLAKY),
            (mix.failing, kind::FAILING),
            (mix.rejecting, kind::REJECTING),
            (mix.poison, kind::POISON),
            (mix.hanging, kind::HANGING),
            (mix.deaf, kind::DEAF),
        ];
        let drawn = shares.into_iter().find(|(share, _)| self.rng.chance(*share));
        let what = drawn.map_or(kind::QUICK, |(_, what)| what);
        let mut params = vec![0; usize::try_from(self.rng.skewed(1, mix.max_params)).unwrap_or(1)];
        params[0] = what;
        let after = |at: u64, delay: u64| Timestamp::from_millis(crate::world::BEGINNING + at + delay);
        let not_before = self
            .rng
            .chance(mix.delayed)
            .then(|| after(self.now, self.rng.skewed(1, 60_000)));
        let deadline = self
            .rng
            .chance(mix.deadline)
            .then(|| after(self.now, self.rng.skewed(1, 60_000)));
        let idempotency_key = self
            .rng
            .chance(mix.keyed)
            .then(|| vec![u8::try_from(self.rng.range(0, 20)).unwrap_or(0)].into());
        let options = (not_before.is_some() || deadline.is_some() || idempotency_key.is_some()).then(|| {
            Box::new(TaskOptions {
                not_before,
                deadline,
                idempotency_key,
                ..TaskOptions::default()
            })
        });
        let level = u8::try_from(self.rng.range(0, 9)).unwrap_or(4);
        RecordBody::Task(TaskSpec {
            params: params.into(),
            priority: Priority::new(level).unwrap_or_default(),
            options,
        })
    }

    /// A submission reaches the log.
    pub(crate) fn append(&mut self, submission: Submission) {
        let again = self.now + self.rng.range(50, 2_000);
        let is_away =
            self.now < self.log_away_until || !self.is_healed && self.rng.chance(self.plan.log.unavailable);
        if is_away {
            return self.queue.push(again, Happening::Append(submission));
        }
        let partition = submission.partition;
        let appended_at = Timestamp::from_millis(crate::world::BEGINNING + self.now);
        for body in &submission.bodies {
            if self.rng.chance(self.plan.log.gaps) {
                self.coverage.hit(Point::LogGap);
                let gap = self.rng.skewed(1, self.plan.log.largest_gap);
                self.log.skip(partition, gap);
                self.oracle.log_has_gap();
            }
            let times = if self.rng.chance(self.plan.log.twice) {
                self.coverage.hit(Point::LogTwice);
                2
            } else {
                1
            };
            for _ in 0..times {
                let offset = self.log.append(partition, appended_at, body.clone());
                self.trace.note(&[40, partition.0.into(), offset.0], || {
                    format!("log: {partition:?} {offset:?} {body:?}")
                });
                self.oracle.appended(partition, offset, body);
            }
        }
        self.log_has_grown(partition);
        if !self.is_healed && self.rng.chance(self.plan.log.lost_reply) {
            self.coverage.hit(Point::LogLostReply);
            return self.queue.push(again, Happening::Append(submission));
        }
        self.submissions_open -= 1;
    }

    /// Somebody wants something of a task that was submitted, any of them.
    pub(crate) fn change_something(&mut self, change: Change) {
        let (partition, offset) = match change {
            Change::Redrive => {
                let dead: Vec<_> = self
                    .store
                    .shards
                    .iter()
                    .flat_map(|(partition, rows)| rows.dead.keys().map(|offset| (*partition, *offset)))
                    .collect();
                if dead.is_empty() {
                    return;
                }
                *self.rng.pick(&dead)
            }
            Change::Cancel | Change::Hasten => {
                let Some(task) = self.oracle.some_task(&mut self.rng) else {
                    return;
                };
                task
            }
        };
        if change == Change::Cancel {
            self.oracle.cancel_is_wanted(partition, offset);
        }
        let Some((node, life)) = self.placement.owner(partition) else {
            return;
        };
        let request = Request {
            partition,
            offset,
            change,
            stage: crate::node::Stage::First,
        };
        let at = self.now + self.rng.range(0, self.plan.net.latency);
        let mail = Mail::Change(request);
        self.queue.push(at, Happening::Mail { node, life, mail });
    }
}

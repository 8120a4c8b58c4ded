//! What each operation of a history does in the world, and how all ends when the faults stop.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::{LeaseToken, Offset};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::shard::{Answer, Input, Output};
use scheduler_core::task::{Priority, Record, RecordBody, TaskOptions, TaskSpec};

use crate::common::store::check_recording;
use crate::op::{Op, WORKERS};
use crate::world::{Ghost, World};

impl World {
    pub(crate) fn step(&mut self, op: Op) {
        match op {
            Op::Submit {
                tasks,
                priority,
                delay,
                deadline,
                key,
            } => {
                for _ in 0..tasks {
                    self.submit(priority, delay, deadline, key);
                }
            }
            Op::SubmitNonsense => self.append(RecordBody::Undecodable {
                raw: Bytes::from_static(b"?"),
                problem: "params: not JSON".into(),
            }),
            Op::Gap(offsets) => {
                self.has_gaps = true;
                self.log_end.0 += u64::from(offsets);
            }
            Op::Forward(records) => self.forward(records.into()),
            Op::Ask { worker, limit, lost } => self.ask(usize::from(worker) % WORKERS, limit, lost),
            Op::Report { worker, which, how } => {
                let worker = usize::from(worker) % WORKERS;
                if let Some((offset, _)) = self.pick_held(worker, which) {
                    self.report(worker, offset, how);
                }
            }
            Op::Alive(worker) => self.alive(usize::from(worker) % WORKERS),
            Op::Extend { worker, which } => self.extend(usize::from(worker) % WORKERS, which),
            Op::Attach(worker) => self.attach(usize::from(worker) % WORKERS),
            Op::Detach(worker) => self.detach(usize::from(worker) % WORKERS),
            Op::Die(worker) => {
                let worker = usize::from(worker) % WORKERS;
                self.detach(worker);
                self.workers[worker].held.clear();
                self.workers[worker].unsettled.clear();
            }
            Op::Cancel(which) => self.on_task(which, Input::Cancel),
            Op::Hasten(which) => self.on_task(which, Input::Hasten),
            Op::Redrive(which) => self.redrive(which),
            Op::Advance(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.tick();
            }
            Op::Flush => {
                self.tell(Input::Flush);
            }
            Op::Save { heard } => self.save(heard),
            Op::Load { late } => self.load(late),
            Op::LoadAgain => self.load_again(),
            Op::Crash { saved } => {
                if saved && let Some(checkpoint) = self.saving.clone() {
                    self.apply(&checkpoint);
                }
                self.activate(true);
            }
            Op::Move => self.move_away(),
        }
    }

    fn submit(&mut self, priority: u8, delay: u16, deadline: u16, key: u8) {
        let after = |millis: u16| (millis > 0).then(|| self.now + Duration::from_millis(millis.into()));
        let options = TaskOptions {
            not_before: after(delay),
            deadline: after(deadline),
            idempotency_key: (key > 0).then(|| Bytes::from(vec![key])),
            ..TaskOptions::default()
        };
        let spec = TaskSpec {
            params: Bytes::from(vec![b'x'; usize::from(priority) * 10]),
            priority: Priority::new(priority).expect("0 to 9"),
            options: (options != TaskOptions::default()).then(|| Box::new(options)),
        };
        self.append(RecordBody::Task(spec));
    }

    fn ask(&mut self, worker: usize, limit: u8, lost: bool) {
        if !self.workers[worker].is_attached {
            return;
        }
        self.workers[worker].seen = self.now;
        let before: Vec<Offset> = self.workers[worker].held.keys().copied().collect();
        self.tell(Input::Ask {
            worker: Self::id(worker),
            limit: limit.into(),
        });
        if lost {
            self.workers[worker]
                .held
                .retain(|offset, _| before.contains(offset));
            self.detach(worker);
        }
    }

    fn pick_held(&self, worker: usize, which: u8) -> Option<(Offset, LeaseToken)> {
        let held = &self.workers[worker].held;
        let picked = held.iter().nth(usize::from(which) % held.len().max(1));
        picked.map(|(offset, (token, _))| (*offset, *token))
    }

    fn alive(&mut self, worker: usize) {
        if self.workers[worker].is_attached {
            self.workers[worker].seen = self.now;
            self.tell(Input::Alive {
                worker: Self::id(worker),
            });
        }
    }

    fn extend(&mut self, worker: usize, which: u8) {
        let Some((offset, token)) = self.pick_held(worker, which) else {
            return;
        };
        self.tell(Input::Extend {
            worker: Self::id(worker),
            offset,
            token,
            progress: Some(Bytes::from_static(b"half")),
        });
        if let Some(ghost) = self.ghosts.get_mut(&offset)
            && ghost.token == token
        {
            ghost.mark = self.now;
        }
    }

    fn redrive(&mut self, which: u8) {
        let dead = self.store.dead.values().nth(usize::from(which) % 8).cloned();
        if let Some(task) = dead {
            let offset = task.offset;
            if self.tell(Input::Revive(task)) == Answer::Done {
                self.redriven.insert(offset);
            }
        }
    }

    fn save(&mut self, heard: bool) {
        if let Some(checkpoint) = self.saving.clone() {
            self.apply(&checkpoint);
            if heard {
                self.saving = None;
                self.tell(Input::Saved(checkpoint.id));
            }
        }
    }

    fn load(&mut self, late: bool) {
        let Some(load) = self.load else {
            return;
        };
        let page = self.page.take().unwrap_or_else(|| self.store.page(load));
        if late {
            self.page = Some(page);
        } else {
            self.load = None;
            self.answered = Some(page.clone());
            self.tell(page);
        }
    }

    /// The store's last answer comes once more.
    fn load_again(&mut self) {
        if let Some(page) = self.answered.clone() {
            assert_eq!(self.tell(page), Answer::Late, "a page was taken twice");
        }
    }

    fn move_away(&mut self) {
        for _ in 0..10 {
            self.tell(Input::Flush);
            self.save(true);
            if self.shard.is_saved() {
                return self.activate(false);
            }
        }
        panic!("flushing does not end: {:?}", self.shard);
    }

    fn append(&mut self, body: RecordBody) {
        let offset = self.log_end;
        self.log_end = offset.next();
        self.log.insert(
            offset,
            Record {
                offset,
                appended_at: self.now,
                body,
            },
        );
    }

    fn forward(&mut self, records: usize) {
        for _ in 0..records {
            let (tasks, bytes) = self.shard.room();
            if tasks == 0 || bytes == 0 {
                return;
            }
            let Some((_, record)) = self.log.range(self.shard.tail()..).next() else {
                return;
            };
            assert!(record.offset >= self.truncated, "the log has lost {record:?}");
            let record = record.clone();
            self.tell(Input::Arrive(record));
        }
    }

    fn report(&mut self, index: usize, offset: Offset, how: u8) {
        let (token, _) = self.workers[index].held.remove(&offset).expect("it is held");
        let outcome = match how % 8 {
            0..=3 => AttemptOutcome::Succeeded {
                output: Bytes::from_static(b"done"),
            },
            4 | 5 => AttemptOutcome::Failed {
                error: "no luck".into(),
            },
            6 if how > 128 => AttemptOutcome::Rejected {
                error: "never".into(),
            },
            6 => AttemptOutcome::Stopped,
            _ => AttemptOutcome::Returned,
        };
        let worker = &mut self.workers[index];
        worker.unsettled.push((offset, token, outcome.clone()));
        if worker.is_attached {
            worker.seen = self.now;
            self.void_if_parked(index);
            // The report ends the lease if it counts, and if it does not, the lease was over before.
            self.end_ghost(offset, index, token);
            self.tell(Input::Report {
                worker: Self::id(index),
                offset,
                token,
                outcome,
            });
        }
    }

    fn attach(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.is_attached = true;
        worker.settled = 0;
        worker.seen = self.now;
        let held: Vec<(Offset, LeaseToken)> = worker
            .held
            .iter()
            .map(|(offset, (token, _))| (*offset, *token))
            .collect();
        let reported = worker.unsettled.clone();
        self.void_if_parked(index);
        self.ghosts
            .retain(|offset, ghost| ghost.worker != index || held.contains(&(*offset, ghost.token)));
        let input = Input::Attach {
            worker: Self::id(index),
            held: held.clone(),
            reported,
        };
        let mut outputs = std::mem::take(&mut self.outputs);
        let _ = write!(self.trace, "{:?} {input:?}: ", self.now);
        self.shard.handle(self.now, input, &mut outputs);
        let _ = writeln!(self.trace, "{outputs:?}");
        let stopped: Vec<(Offset, LeaseToken)> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Stop { worker, lease } if *worker == Self::id(index) => {
                    Some((lease.offset, lease.token))
                }
                _ => None,
            })
            .collect();
        for (offset, token) in held {
            if stopped.contains(&(offset, token)) {
                continue;
            }
            let (_, started) = self.workers[index].held[&offset];
            let ghost = Ghost {
                worker: index,
                token,
                started,
                mark: self.now,
            };
            // Of two that say they hold it before its record is there, the later attempt will count.
            if self
                .ghosts
                .get(&offset)
                .is_none_or(|other| other.token.attempt <= token.attempt)
            {
                self.ghosts.insert(offset, ghost);
            }
        }
        for output in outputs.drain(..) {
            self.take(output);
        }
        self.outputs = outputs;
    }

    fn detach(&mut self, worker: usize) {
        if std::mem::take(&mut self.workers[worker].is_attached) {
            self.tell(Input::Detach {
                worker: Self::id(worker),
            });
        }
    }

    /// Does something with a task as the driver does: what is parked is fetched first.
    fn on_task(&mut self, which: u8, input: impl Fn(Offset) -> Input) {
        let all = self.log.len().max(1);
        let Some(offset) = self.log.keys().nth(usize::from(which) % all).copied() else {
            return;
        };
        if self.tell(input(offset)) == Answer::Elsewhere
            && let Some(row) = self.store.parked.get(&offset)
        {
            let row = row.clone();
            if self.tell(Input::Fetch(row)) == Answer::Done {
                self.tell(input(offset));
            }
        }
    }

    /// The faults stop: everything ends, is saved, and is settled.
    pub(crate) fn heal(&mut self) {
        for worker in 0..WORKERS {
            self.attach(worker);
        }
        for round in 0..3_000 {
            self.save(true);
            self.load(false);
            self.forward(8);
            for worker in 0..WORKERS {
                self.alive(worker);
                while let Some(offset) = self.workers[worker].held.keys().next().copied() {
                    self.report(worker, offset, 0);
                }
                self.ask(worker, 4, false);
            }
            self.check();
            let is_idle = self
                .workers
                .iter()
                .all(|w| w.held.is_empty() && w.unsettled.is_empty());
            let has_read = self.log.range(self.shard.tail()..).next().is_none();
            if is_idle && has_read && self.has_all_ended() && self.shard.is_saved() {
                self.check_keys();
                let (_, bytes) = self.shard.room();
                assert_eq!(bytes, self.policy.window.max_bytes, "bytes of nothing are held");
                check_recording(&mut self.shard);
                return;
            }
            if round % 2 == 1 {
                let due = self.shard.next_deadline().unwrap_or(self.now);
                self.now = due.max(self.now + Duration::from_millis(1));
                self.tick();
            }
        }
        panic!("it does not end: {:?}\n{:?}", self.shard, self.store);
    }
}

//! Random histories of one shard, its log, its store and its workers, against what a naive ghost remembers of them.
//!
//! Every promise of the design that one shard can keep is checked at every step; then the faults stop, and all must end.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{LeaseToken, Offset, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{Aging, CheckpointPolicy, PipelinePolicy, RetryPolicy, Timeouts, Window};
use scheduler_core::port::gateway::TaskState;
use scheduler_core::shard::{Answer, Found, Input, Output, Shard};
use scheduler_core::task::{Priority, Record, RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

use common::store::Store;

const WORKERS: usize = 3;
const GRACE: Duration = Duration::from_secs(2);
const MAX_TASKS: u32 = 12;
const MAX_SPAN: u32 = 32;

/// One thing that the world does.
#[derive(Clone, Debug)]
enum Op {
    /// Somebody submits tasks.
    Submit {
        tasks: u8,
        priority: u8,
        delay: u16,
        deadline: u16,
    },
    /// A record that is no task.
    SubmitNonsense,
    /// The log leaves out offsets.
    Gap(u8),
    /// The forwarder delivers up to so many records.
    Forward(u8),
    /// A worker asks; `lost`: its connection breaks before it hears the answer.
    Ask {
        worker: u8,
        limit: u8,
        lost: bool,
    },
    /// A worker reports one of its leases.
    Report {
        worker: u8,
        which: u8,
        how: u8,
    },
    Alive(u8),
    Extend {
        worker: u8,
        which: u8,
    },
    /// A worker connects, again or for the first time.
    Attach(u8),
    /// A worker's connection breaks.
    Detach(u8),
    /// A worker dies with all it knows.
    Die(u8),
    Cancel(u8),
    Hasten(u8),
    Redrive(u8),
    Advance(u16),
    Flush,
    /// The store takes the checkpoint, and we hear of it or not yet.
    Save {
        heard: bool,
    },
    /// The store answers with a page of parked tasks; `late`: as it was read now, heard later.
    Load {
        late: bool,
    },
    /// The shard's process dies; its last checkpoint reached the store or not.
    Crash {
        saved: bool,
    },
    /// The shard is released and taken over.
    Move,
}

fn ops() -> impl Strategy<Value = Op> {
    let delay = prop_oneof![6 => Just(0u16), 1 => 1..2_000u16, 1 => 4_000..20_000u16];
    let deadline = prop_oneof![6 => Just(0u16), 1 => 1..20_000u16];
    let advance = prop_oneof![6 => 0..300u16, 2 => 300..3_000u16, 1 => 3_000..12_000u16];
    prop_oneof![
        10 => (1..6u8, 0..10u8, delay, deadline)
            .prop_map(|(tasks, priority, delay, deadline)| Op::Submit { tasks, priority, delay, deadline }),
        1 => Just(Op::SubmitNonsense),
        1 => prop_oneof![4 => 1..4u8, 1 => 20..80u8].prop_map(Op::Gap),
        14 => (1..9u8).prop_map(Op::Forward),
        14 => (any::<u8>(), 1..6u8, prop::bool::weighted(0.1))
            .prop_map(|(worker, limit, lost)| Op::Ask { worker, limit, lost }),
        20 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(worker, which, how)| Op::Report { worker, which, how }),
        4 => any::<u8>().prop_map(Op::Alive),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(worker, which)| Op::Extend { worker, which }),
        6 => any::<u8>().prop_map(Op::Attach),
        2 => any::<u8>().prop_map(Op::Detach),
        1 => any::<u8>().prop_map(Op::Die),
        2 => any::<u8>().prop_map(Op::Cancel),
        2 => any::<u8>().prop_map(Op::Hasten),
        1 => any::<u8>().prop_map(Op::Redrive),
        12 => advance.prop_map(Op::Advance),
        1 => Just(Op::Flush),
        8 => any::<bool>().prop_map(|heard| Op::Save { heard }),
        6 => any::<bool>().prop_map(|late| Op::Load { late }),
        2 => any::<bool>().prop_map(|saved| Op::Crash { saved }),
        1 => Just(Op::Move),
    ]
}

fn policy() -> PipelinePolicy {
    PipelinePolicy {
        retry: RetryPolicy {
            max_attempts: 3,
            initial_backoff: Duration::from_millis(1_500),
            factor: 3.0,
            max_backoff: Duration::from_secs(9),
            ..RetryPolicy::default()
        },
        timeouts: Timeouts {
            start: None,
            run: Duration::from_secs(10),
            heartbeat: Duration::from_secs(3),
            total: None,
        },
        aging: Aging(Duration::from_secs(1)),
        checkpoint: CheckpointPolicy {
            interval: Duration::from_millis(500),
            max_ended: 6,
        },
        window: Window {
            max_tasks: MAX_TASKS,
            max_bytes: 64 << 10,
            max_span: MAX_SPAN,
            park_after: Duration::from_secs(4),
        },
        ..PipelinePolicy::default()
    }
}

/// What a worker itself knows; it survives the shard.
#[derive(Debug, Default)]
struct Worker {
    is_attached: bool,
    held: BTreeMap<Offset, (LeaseToken, Timestamp)>,
    /// Reports that are not settled, in their order.
    unsettled: Vec<(Offset, LeaseToken, AttemptOutcome)>,
    /// How many reports of this session are settled.
    settled: u64,
    seen: Timestamp,
}

/// A lease that nobody else may have meanwhile.
#[derive(Clone, Copy, Debug)]
struct Ghost {
    worker: usize,
    token: LeaseToken,
    started: Timestamp,
    mark: Timestamp,
}

struct World {
    now: Timestamp,
    policy: Arc<PipelinePolicy>,
    shard: Shard,
    store: Store,
    log: BTreeMap<Offset, Record>,
    log_end: Offset,
    workers: Vec<Worker>,
    /// The checkpoint that is on its way, and whether the store has it.
    saving: Option<Arc<Checkpoint>>,
    load: Option<(Option<(Timestamp, Offset)>, Timestamp, usize)>,
    /// A page that was read and not heard yet.
    page: Option<Input>,
    ghosts: BTreeMap<Offset, Ghost>,
    tokens: BTreeSet<(Offset, LeaseToken)>,
    redriven: BTreeSet<Offset>,
    /// Successes that came when their tasks were the store's alone: nobody has to remember them.
    void: BTreeSet<(Offset, LeaseToken)>,
    activated_at: Timestamp,
    /// Until when, and below which offset, tasks wait for workers.
    unsure: Vec<(Timestamp, Offset)>,
    truncated: Offset,
    has_gaps: bool,
    outputs: Vec<Output>,
    trace: String,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("TRACE").is_some() {
            println!("{}", self.trace);
        }
    }
}

impl World {
    fn new() -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let policy = Arc::new(policy());
        let mut store = Store::default();
        let shard = store.activate(now, policy.clone(), Offset::ZERO, false, GRACE);
        Self {
            now,
            policy,
            shard,
            store,
            log: BTreeMap::new(),
            log_end: Offset::ZERO,
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            saving: None,
            load: None,
            page: None,
            ghosts: BTreeMap::new(),
            tokens: BTreeSet::new(),
            redriven: BTreeSet::new(),
            void: BTreeSet::new(),
            activated_at: now,
            unsure: Vec::new(),
            truncated: Offset::ZERO,
            has_gaps: false,
            outputs: Vec::new(),
            trace: String::new(),
        }
    }

    fn id(worker: usize) -> WorkerId {
        WorkerId(worker as u128 + 1)
    }

    fn tell(&mut self, input: Input) -> Answer {
        let mut outputs = std::mem::take(&mut self.outputs);
        let _ = write!(self.trace, "{:?} {input:?}: ", self.now);
        let answer = self.shard.handle(self.now, input, &mut outputs);
        let _ = writeln!(self.trace, "{answer:?} {outputs:?}");
        for output in outputs.drain(..) {
            self.take(output);
        }
        self.outputs = outputs;
        answer
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Lease { worker, lease } => {
                let worker = worker.0 as usize - 1;
                self.check_lease(lease.offset, lease.token);
                let ghost = Ghost {
                    worker,
                    token: lease.token,
                    started: self.now,
                    mark: self.now,
                };
                self.ghosts.insert(lease.offset, ghost);
                self.workers[worker]
                    .held
                    .insert(lease.offset, (lease.token, self.now));
            }
            Output::Stop { worker, lease } => {
                let worker = worker.0 as usize - 1;
                // A worker stops at once what it is told to stop, and says so when it is asked next.
                if let Some(ghost) = self.ghosts.get(&lease.offset)
                    && (ghost.worker, ghost.token) == (worker, lease.token)
                    && !matches!(self.shard.find(lease.offset), Found::Live(view) if view.state == TaskState::Running)
                {
                    self.ghosts.remove(&lease.offset);
                }
            }
            Output::Settled { worker, count } => self.settle(worker.0 as usize - 1, count),
            Output::Changed(_) => {}
            Output::Save(checkpoint) => {
                assert!(self.saving.is_none(), "a checkpoint was made while one was saved");
                self.saving = Some(checkpoint);
            }
            Output::Truncate(offset) => {
                assert!(offset <= self.store.resume && offset > self.truncated);
                self.truncated = offset;
            }
            Output::LoadParked { after, until, limit } => {
                assert!(self.load.is_none(), "two loads at once");
                assert!(limit > 0);
                self.load = Some((after, until, limit));
            }
        }
    }

    fn check_lease(&mut self, offset: Offset, token: LeaseToken) {
        assert!(
            self.tokens.insert((offset, token)),
            "{token:?} of {offset:?} was given twice"
        );
        assert!(
            !self.store.results.contains_key(&offset) && !self.store.dead.contains_key(&offset),
            "{offset:?} was saved as ended and runs again"
        );
        assert!(
            !self.ghosts.contains_key(&offset),
            "{offset:?} is leased to {:?} and is leased again",
            self.ghosts[&offset]
        );
        for (until, below) in &self.unsure {
            assert!(
                self.now >= *until || offset >= *below,
                "{offset:?} was leased before workers had time to come back"
            );
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let has_succeeded = worker.unsettled.iter().any(|(of, token, outcome)| {
                *of == offset
                    && matches!(outcome, AttemptOutcome::Succeeded { .. })
                    && !self.void.contains(&(offset, *token))
            });
            assert!(
                !(worker.is_attached && has_succeeded) || self.redriven.contains(&offset),
                "worker {index} has said that {offset:?} succeeded, and it runs again"
            );
        }
    }

    fn settle(&mut self, worker: usize, count: u64) {
        let worker = &mut self.workers[worker];
        assert!(
            worker.is_attached,
            "a worker that is gone was told what is settled"
        );
        assert!(count > worker.settled, "settled went back");
        let new = usize::try_from(count - worker.settled).expect("few");
        assert!(
            new <= worker.unsettled.len(),
            "more was settled than was reported"
        );
        worker.settled = count;
        for (offset, token, outcome) in worker.unsettled.drain(..new) {
            if matches!(outcome, AttemptOutcome::Succeeded { .. }) {
                assert!(
                    self.store.results.contains_key(&offset)
                        || self.store.dead.contains_key(&offset)
                        || self.redriven.contains(&offset)
                        || self.void.contains(&(offset, token)),
                    "the success of {offset:?} was settled and is not saved"
                );
            }
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Submit {
                tasks,
                priority,
                delay,
                deadline,
            } => {
                for _ in 0..tasks {
                    let after =
                        |millis: u16| (millis > 0).then(|| self.now + Duration::from_millis(millis.into()));
                    let (not_before, deadline) = (after(delay), after(deadline));
                    let options = (delay > 0 || deadline.is_some()).then(|| {
                        Box::new(TaskOptions {
                            not_before,
                            deadline,
                            ..TaskOptions::default()
                        })
                    });
                    let spec = TaskSpec {
                        params: Bytes::from(vec![b'x'; usize::from(priority) * 10]),
                        priority: Priority::new(priority).expect("0 to 9"),
                        options,
                    };
                    self.append(RecordBody::Task(spec));
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
            Op::Ask { worker, limit, lost } => {
                let worker = usize::from(worker) % WORKERS;
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
            Op::Report { worker, which, how } => {
                let worker = usize::from(worker) % WORKERS;
                let held = &self.workers[worker].held;
                if let Some(offset) = held.keys().nth(usize::from(which) % held.len().max(1)).copied() {
                    self.report(worker, offset, how);
                }
            }
            Op::Alive(worker) => {
                let worker = usize::from(worker) % WORKERS;
                if self.workers[worker].is_attached {
                    self.workers[worker].seen = self.now;
                    self.tell(Input::Alive {
                        worker: Self::id(worker),
                    });
                }
            }
            Op::Extend { worker, which } => {
                let worker = usize::from(worker) % WORKERS;
                let held = &self.workers[worker].held;
                let lease = held.iter().nth(usize::from(which) % held.len().max(1));
                if let Some((offset, (token, _))) = lease.map(|(offset, lease)| (*offset, *lease)) {
                    let answer = self.tell(Input::Extend {
                        offset,
                        token,
                        progress: Some(Bytes::from_static(b"half")),
                    });
                    if let Some(ghost) = self.ghosts.get_mut(&offset)
                        && ghost.token == token
                        && answer == Answer::Done
                    {
                        ghost.mark = self.now;
                    }
                }
            }
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
            Op::Redrive(which) => {
                let dead = self.store.dead.keys().nth(usize::from(which) % 8).copied();
                if let Some(task) = dead.map(|offset| self.store.dead[&offset].clone()) {
                    let offset = task.offset;
                    if self.tell(Input::Revive(task)) == Answer::Done {
                        self.redriven.insert(offset);
                    }
                }
            }
            Op::Advance(millis) => {
                self.now = self.now + Duration::from_millis(millis.into());
                self.tick();
            }
            Op::Flush => {
                self.tell(Input::Flush);
            }
            Op::Save { heard } => {
                if let Some(checkpoint) = self.saving.clone() {
                    self.apply(&checkpoint);
                    if heard {
                        self.saving = None;
                        self.tell(Input::Saved(checkpoint.id));
                    }
                }
            }
            Op::Load { late } => {
                if let Some((after, until, limit)) = self.load {
                    let page = self
                        .page
                        .take()
                        .unwrap_or_else(|| self.store.page(after, until, limit));
                    if late {
                        self.page = Some(page);
                    } else {
                        self.load = None;
                        self.tell(page);
                    }
                }
            }
            Op::Crash { saved } => {
                if saved && let Some(checkpoint) = self.saving.clone() {
                    self.apply(&checkpoint);
                }
                self.activate(true);
            }
            Op::Move => {
                for _ in 0..10 {
                    self.tell(Input::Flush);
                    self.step(Op::Save { heard: true });
                    if self.shard.is_saved() {
                        self.activate(false);
                        return;
                    }
                }
                panic!("flushing does not end: {:?}", self.shard);
            }
        }
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
            self.end_ghost(offset, token);
            self.tell(Input::Report {
                worker: Self::id(index),
                offset,
                token,
                outcome,
            });
        }
    }

    /// Notes which reports of a worker are about tasks that were not in memory when this activation began, nor since.
    fn void_if_parked(&mut self, index: usize) {
        for (offset, token, _) in &self.workers[index].unsettled {
            let is_parked = self
                .store
                .parked
                .get(offset)
                .is_some_and(|row| row.wake_at > self.activated_at);
            if is_parked && !matches!(self.shard.find(*offset), Found::Live(_)) {
                self.void.insert((*offset, *token));
            }
        }
    }

    fn end_ghost(&mut self, offset: Offset, token: LeaseToken) {
        if self.ghosts.get(&offset).is_some_and(|ghost| ghost.token == token) {
            self.ghosts.remove(&offset);
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
            self.ghosts.insert(offset, ghost);
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

    fn apply(&mut self, checkpoint: &Checkpoint) {
        self.store.apply(checkpoint);
        for offset in self.log.range(..self.store.resume).map(|(offset, _)| offset) {
            assert!(
                self.store.results.contains_key(offset)
                    || self.store.dead.contains_key(offset)
                    || self.store.parked.contains_key(offset),
                "{offset:?} is before the resume offset and in no row"
            );
        }
    }

    fn activate(&mut self, unclean: bool) {
        self.shard = self
            .store
            .activate(self.now, self.policy.clone(), self.log_end, unclean, GRACE);
        if unclean {
            self.unsure.push((self.now + GRACE, self.log_end));
        }
        self.activated_at = self.now;
        self.saving = None;
        self.load = None;
        self.page = None;
        self.ghosts.clear();
        for worker in &mut self.workers {
            worker.is_attached = false;
        }
    }

    fn tick(&mut self) {
        let timeouts = &self.policy.timeouts;
        self.ghosts.retain(|_, ghost| {
            let seen = ghost.mark.max(self.workers[ghost.worker].seen);
            self.now < ghost.started + timeouts.run && self.now < seen + timeouts.heartbeat
        });
        for _ in 0..100 {
            self.tell(Input::Tick);
            if self.shard.next_deadline().is_none_or(|due| due > self.now) {
                return;
            }
        }
        panic!(
            "at {:?} the next deadline stays {:?}",
            self.now,
            self.shard.next_deadline()
        );
    }

    /// What must be true whenever the shard rests.
    fn check(&self) {
        let mut seen = [0u64; 3];
        for offset in self.log.keys().copied() {
            match self.shard.find(offset) {
                Found::Live(view) => match view.state {
                    TaskState::Queued => seen[0] += 1,
                    TaskState::Delayed => seen[1] += 1,
                    TaskState::Running => seen[2] += 1,
                    other => panic!("a live task is {other:?}"),
                },
                Found::Finished(_) | Found::Dead(_) => {}
                Found::Ahead => assert!(offset >= self.store.resume, "{offset:?} is lost"),
                Found::Elsewhere => {
                    let is_kept = self.store.results.contains_key(&offset)
                        || self.store.dead.contains_key(&offset)
                        || self.store.parked.contains_key(&offset);
                    assert!(is_kept || offset >= self.store.resume, "{offset:?} is lost");
                }
            }
        }
        let counts = self.shard.counts();
        assert_eq!(
            [counts.ready, counts.delayed, counts.running],
            seen,
            "the counts are off"
        );
        assert!(
            seen.iter().sum::<u64>() <= u64::from(MAX_TASKS),
            "more tasks than the window"
        );
        assert!(
            self.has_gaps || self.shard.tail().0 - self.truncated.0 <= u64::from(MAX_SPAN),
            "wider than the window"
        );
    }

    /// The faults stop: everything ends, is saved, and is settled.
    fn heal(&mut self) {
        for worker in 0..WORKERS {
            self.attach(worker);
        }
        for round in 0..3_000 {
            self.step(Op::Save { heard: true });
            self.step(Op::Load { late: false });
            self.forward(8);
            for worker in 0..WORKERS {
                self.step(Op::Alive(u8::try_from(worker).expect("few")));
                while let Some(offset) = self.workers[worker].held.keys().next().copied() {
                    self.report(worker, offset, 0);
                }
                self.step(Op::Ask {
                    worker: u8::try_from(worker).expect("few"),
                    limit: 4,
                    lost: false,
                });
            }
            self.check();
            let is_idle = self
                .workers
                .iter()
                .all(|w| w.held.is_empty() && w.unsettled.is_empty());
            let has_read = self.log.range(self.shard.tail()..).next().is_none();
            if is_idle && has_read && self.has_all_ended() && self.shard.is_saved() {
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

    fn has_all_ended(&self) -> bool {
        self.log
            .keys()
            .all(|offset| self.store.results.contains_key(offset) || self.store.dead.contains_key(offset))
            && self.store.parked.is_empty()
    }
}

fn run(ops: &[Op]) -> String {
    let mut world = World::new();
    for (index, op) in ops.iter().enumerate() {
        world.step(op.clone());
        if index % 4 == 0 {
            world.check();
        }
    }
    world.heal();
    std::mem::take(&mut world.trace)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_the_promises_hold_and_all_ends(ops in prop::collection::vec(ops(), 1..300)) {
        run(&ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_same_inputs_give_the_same_outputs(ops in prop::collection::vec(ops(), 1..200)) {
        prop_assert_eq!(run(&ops), run(&ops));
    }
}

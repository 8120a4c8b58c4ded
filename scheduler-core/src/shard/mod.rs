//! The scheduler of one partition: a dictionary of its unfinished tasks, and every decision about them.
//!
//! A [`Shard`] is a machine. It has no clock, no IO and no threads: the driver calls [`Shard::handle`] with the time and an [`Input`], does what
//! the [`Output`]s say, and comes back at [`Shard::next_deadline`] at the latest.
//!
//! ```text
//!           Arrive                    Ask                      Report: succeeded
//!  log ───────────────► ready ───────────────► leased ──────────────────────────► ended ──► saved ──► forgotten
//!             │          ▲ ▲                     │ │        rejected, exhausted ──► dead ───►
//!  not-before │   time   │ └───── returned ──────┘ │ failed, lost
//!             └───────► delayed ◄──────────────────┘
//!                        │  ▲ long delays
//!                        ▼  │
//!                       parked (in the store)
//! ```
//!
//! What it promises is said in the crate's documentation; how it is kept, in these files:
//!
//! | file | idea |
//! | --- | --- |
//! | `ring.rs` | offset → slot, in a ring from the resume offset on |
//! | `slab.rs` | slots of live tasks, and lists through them |
//! | `ready.rs` | which ready task is next |
//! | `wheel.rs` | every deadline |
//! | `admit.rs` | how tasks come in, and where recovery puts them |
//! | `recovery.rs` | what is known of tasks before they are there |
//! | `parked.rs` | tasks with rows in the store: parked, carried over, revived |
//! | `relief.rs` | how ready tasks make room for those that workers hold |
//! | `lease.rs` | how they are given out, and come back |
//! | `workers.rs` | who holds what, and what of their reports is saved |
//! | `timers.rs` | what happens when a time is over |
//! | `save.rs` | checkpoints |
//! | `view.rs` | what can be asked |
//! | `account.rs` | what has become of every offset |

mod account;
mod admit;
mod lease;
mod parked;
mod ready;
mod recovery;
mod relief;
mod rest;
mod ring;
mod save;
mod slab;
mod timers;
mod view;
mod wheel;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::parked::Parked;
use self::ready::Ready;
use self::recovery::Recovery;
use self::ring::Ring;
use self::save::{Saving, Unsaved};
use self::slab::{Flags, List, Slab, Slot, State};
use self::wheel::Wheel;
use self::workers::Workers;
use crate::checkpoint::Checkpoint;
use crate::codec::DecodeError;
use crate::id::{CheckpointId, LeaseToken, Offset, Tenure, WorkerId};
use crate::key::{KeyHash, Keys, SeenKey};
use crate::outcome::{AttemptOutcome, DeadTask, FinishedTask, ParkedTask};
use crate::policy::PipelinePolicy;
use crate::port::gateway::{HeldLease, Lease};
use crate::snapshot::Snapshot;
use crate::tape::Tape;
use crate::task::Record;
use crate::time::Timestamp;

pub use self::account::Account;
pub(crate) use self::account::Totals;
pub use self::parked::PageId;
pub use self::view::{Counts, Found};

/// What the world tells a shard.
#[derive(Clone, Debug)]
pub enum Input {
    /// The log's next record. Records that came before are ignored.
    Arrive(Record),
    /// The log begins at this offset: what lay before it and was not read is gone.
    Lost(Offset),
    /// The answer to [`Output::LoadParked`]. `next_wake` is when the first task after these is wanted; [`Timestamp::MAX`] if there is none.
    Unpark {
        /// That of the output. What answers an earlier one, or comes twice, is not taken.
        page: PageId,
        /// In the order of the store.
        tasks: Vec<ParkedTask>,
        /// Of the first task after these.
        next_wake: Timestamp,
    },
    /// Idempotency keys that earlier activations have saved; before the first [`Input::Arrive`].
    Keys(Vec<SeenKey>),
    /// One parked task, because somebody wants to do something with it. It must have been read after the last [`Input::Saved`] was handed
    /// in: what was read before may have ended since.
    Fetch(ParkedTask),
    /// A dead letter is to live again with fresh attempts, once a checkpoint says so. It must have been read as for [`Input::Fetch`].
    Revive(DeadTask),
    /// A worker has room for up to `limit` tasks.
    Ask {
        /// Which.
        worker: WorkerId,
        /// How many.
        limit: u32,
    },
    /// An attempt has ended.
    Report {
        /// Who says so.
        worker: WorkerId,
        /// Of which task.
        offset: Offset,
        /// By what right.
        token: LeaseToken,
        /// How.
        outcome: AttemptOutcome,
    },
    /// A worker begins a session.
    Attach {
        /// Which.
        worker: WorkerId,
        /// The leases it holds. Every other lease of it goes back: at once if this owner granted it, as the stream that it was on has ended;
        /// after the grace if an earlier one did, whose stream may still bring it.
        held: Vec<(Offset, LeaseToken)>,
        /// Its reports that were not settled, in their order; they count as the session's first.
        reported: Vec<(Offset, LeaseToken, AttemptOutcome)>,
    },
    /// A worker's session has ended. Its leases stay until their heartbeat timeout.
    Detach {
        /// Which.
        worker: WorkerId,
    },
    /// A worker is alive, and so are all its leases.
    Alive {
        /// Which.
        worker: WorkerId,
    },
    /// A sign of life for one lease. If an earlier activation gave it out without saving that, it is taken as by [`Input::Attach`].
    Extend {
        /// Whose it is.
        worker: WorkerId,
        /// Of which task.
        offset: Offset,
        /// By what right.
        token: LeaseToken,
        /// How far it is, if that is said.
        progress: Option<Bytes>,
    },
    /// Somebody wants a task not to run, or to stop.
    Cancel(Offset),
    /// Somebody wants a delayed task to be ready now; one that is known to the store, as soon as the next checkpoint says so.
    Hasten(Offset),
    /// Say [`Output::Changed`] for this task from now on.
    Watch(Offset),
    /// Say [`Output::Changed`] for every task, or only for those that are watched.
    WatchAll(bool),
    /// The pipeline's policy has changed.
    Policy(Arc<PipelinePolicy>),
    /// The store has this checkpoint, in whole.
    Saved(CheckpointId),
    /// Make a checkpoint as soon as possible if anything has changed.
    Flush,
    /// The shard is to leave: no task is leased any more, and none comes from the store. What is leased goes on as ever, and what has
    /// changed is saved as soon as possible.
    Leave,
    /// Nothing but time has passed.
    Tick,
}

/// What a shard wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Tell the worker that the task is its own until the lease ends.
    Lease {
        /// Which.
        worker: WorkerId,
        /// What.
        lease: Lease,
    },
    /// Tell the worker that the lease is over.
    Stop {
        /// Which.
        worker: WorkerId,
        /// What.
        lease: HeldLease,
    },
    /// Tell the worker that its first `count` reports since it attached are saved.
    Settled {
        /// Which.
        worker: WorkerId,
        /// How many.
        count: u64,
        /// How many of them it has not been told of.
        more: u64,
    },
    /// A watched task has changed; see [`Shard::find`].
    Changed(Offset),
    /// Save this under our tenure, then answer [`Input::Saved`]. There is no other before that answer.
    Save(Arc<Checkpoint>),
    /// Everything before this offset is in a saved checkpoint: the log may forget it.
    Truncate(Offset),
    /// Read parked tasks that are wanted by `until`, after `after` in the store's order, at most `limit`; answer [`Input::Unpark`].
    LoadParked {
        /// Which page it is.
        page: PageId,
        /// The last one that was read.
        after: Option<(Timestamp, Offset)>,
        /// How far ahead.
        until: Timestamp,
        /// How many.
        limit: usize,
    },
}

/// What is answered to an input at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It is done, or will be.
    Done,
    /// It comes too late: the task has ended, or the lease is another's. Nothing has changed.
    Late,
    /// The task is not in memory: it has not been loaded, is parked, or ended long ago.
    Elsewhere,
    /// The window is full, so the task stays where it is; later the same input may succeed.
    Full,
}

/// How a shard begins.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// By what right it acts.
    pub tenure: Tenure,
    /// What it goes by.
    pub policy: Arc<PipelinePolicy>,
    /// Where the log is read from.
    pub resume: Offset,
    /// The state of the last checkpoint; empty for a new shard.
    pub state: Bytes,
    /// The log's first record now: what was before it and has not been read is lost.
    pub log_start: Offset,
    /// One past the last record of the log now: earlier owners have leased none after it.
    pub log_end: Offset,
    /// Whether the last owner vanished, so that workers alone know what it did after its last checkpoint.
    pub unclean: bool,
    /// How long workers of a vanished owner have to come back, before its tasks are given to others; and how long a lease that an earlier owner
    /// granted may be on its way to a worker that has come back without it.
    pub grace: Duration,
}

/// The scheduler of one partition. See the [module](self).
#[derive(Debug)]
pub struct Shard {
    tenure: Tenure,
    policy: Arc<PipelinePolicy>,
    now: Timestamp,
    ring: Ring,
    slab: Slab,
    /// Live tasks that are older than the ring, by offset.
    carried: BTreeMap<u64, u32>,
    ready: Ready,
    unsure: List,
    wheel: Wheel,
    workers: Workers,
    keys: Keys,
    recovery: Recovery,
    unsaved: Unsaved,
    saving: Option<Saving>,
    /// An empty buffer for what ends.
    spare: Vec<FinishedTask>,
    /// Tasks to be parked with the next checkpoint.
    parking: Vec<u32>,
    /// Ready tasks to be parked with it, so that others have room.
    yielding: Vec<u32>,
    parked: Parked,
    counts: Counts,
    /// Bytes of the params of live tasks.
    live_bytes: usize,
    last_checkpoint: CheckpointId,
    /// When the store last said that it has one of ours; at first, when the shard came up.
    saved_at: Timestamp,
    /// The log is told to forget what is before it.
    truncated: u64,
    watch_all: bool,
    leaving: bool,
    /// How long leases of earlier owners may be on their way.
    grace: Duration,
    tape: Option<Box<Tape>>,
}

impl Shard {
    /// A shard at `now`, as the last checkpoint left it.
    ///
    /// An error means that the state is not one that a shard has saved.
    pub fn new(now: Timestamp, config: ShardConfig) -> Result<Self, DecodeError> {
        let snapshot = Snapshot::decode(config.state)?;
        let resume = config.resume.0;
        let totals = snapshot.totals;
        let mut shard = Self {
            tenure: config.tenure,
            now,
            ring: Ring::new(resume),
            slab: Slab::new(),
            carried: BTreeMap::new(),
            ready: Ready::new(config.policy.aging.0),
            unsure: List::EMPTY,
            wheel: Wheel::new(now),
            workers: Workers::default(),
            keys: Keys::default(),
            recovery: Recovery::new(
                resume,
                snapshot,
                (config.log_start.0, config.log_end.0),
                config.unclean,
                now + config.grace,
            ),
            unsaved: Unsaved::new(totals),
            saving: None,
            spare: Vec::new(),
            parking: Vec::new(),
            yielding: Vec::new(),
            parked: Parked::new(),
            counts: Counts::default(),
            live_bytes: 0,
            last_checkpoint: CheckpointId::default(),
            saved_at: now,
            truncated: resume,
            watch_all: false,
            leaving: false,
            grace: config.grace,
            tape: None,
            policy: config.policy,
        };
        // The first checkpoint says that this activation came up.
        shard.mark_dirty();
        // Nobody has said anything yet of what is gone.
        shard.lose_before(config.log_start.0, &mut Vec::new());
        Ok(shard)
    }

    /// [`new`](Self::new), and records everything that the shard is told, up to `limit` bytes.
    pub fn recorded(now: Timestamp, config: ShardConfig, limit: usize) -> Result<Self, DecodeError> {
        let tape = Tape::new(now, &config, limit);
        let mut shard = Self::new(now, config)?;
        shard.tape = Some(Box::new(tape));
        Ok(shard)
    }

    /// Takes away what was recorded since the last time; `None` if the shard does not record, or no more.
    pub fn take_recorded(&mut self) -> Option<Vec<u8>> {
        let bytes = self.tape.as_mut()?.take();
        if self.tape.as_ref().is_some_and(|tape| tape.is_full()) {
            self.tape = None;
        }
        Some(bytes)
    }

    /// Records no more.
    pub fn stop_recording(&mut self) {
        self.tape = None;
    }

    /// Takes one input at `now` and appends what must follow to `out`, in order.
    ///
    /// # Panics
    ///
    /// If `now` is before that of the last call: the driver's clock must not go back.
    pub fn handle(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) -> Answer {
        if let Some(tape) = &mut self.tape {
            tape.heard(now, &input);
        }
        let before = out.len();
        let answer = self.decide(now, input, out);
        if let Some(tape) = &mut self.tape {
            tape.said(answer, &out[before..]);
        }
        answer
    }

    fn decide(&mut self, now: Timestamp, input: Input, out: &mut Vec<Output>) -> Answer {
        assert!(
            self.now <= now,
            "the driver's clock went back from {:?} to {now:?}",
            self.now
        );
        self.now = now;
        self.fire_timers(out);
        let answer = match input {
            Input::Keys(keys) => {
                for key in keys {
                    self.keys.insert(key, now);
                }
                Answer::Done
            }
            Input::Ask { worker, limit } => self.ask(worker, limit, out),
            Input::Report {
                worker,
                offset,
                token,
                outcome,
            } => self.report(worker, offset.0, token, outcome, out),
            Input::Arrive(record) => self.arrive(record, out),
            Input::Lost(start) => self.lose_before(start.0, out),
            Input::Unpark {
                page,
                tasks,
                next_wake,
            } => self.unpark(page, tasks, next_wake, out),
            Input::Fetch(task) => self.fetch(task, out),
            Input::Revive(task) => self.revive(task, out),
            Input::Attach {
                worker,
                held,
                reported,
            } => self.attach(worker, &held, reported, out),
            Input::Detach { worker } => self.detach(worker),
            Input::Alive { worker } => self.workers.alive(worker, now),
            Input::Extend {
                worker,
                offset,
                token,
                progress,
            } => self.extend(worker, offset.0, token, progress, out),
            Input::Cancel(offset) => self.cancel(offset.0, out),
            Input::Hasten(offset) => self.hasten(offset.0, out),
            Input::Watch(offset) => self.watch(offset.0),
            Input::WatchAll(all) => {
                self.watch_all = all;
                Answer::Done
            }
            Input::Policy(policy) => self.set_policy(policy),
            Input::Saved(id) => self.saved(id, out),
            Input::Flush => self.flush(),
            Input::Leave => self.leave(),
            Input::Tick => self.rest(),
        };
        self.make_room_if_needed(out);
        self.prove_tenure_if_due();
        self.save_if_due(out);
        self.load_parked_if_due(out);
        answer
    }

    /// When to come back at the latest, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let grace = (!self.unsure.is_empty()).then_some(self.recovery.grace_until);
        let parked = self.parked_due();
        [
            self.wheel.next_due(),
            self.save_due(),
            self.doubt_due(),
            self.rest_due(),
            grace,
            parked,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// By what right it acts.
    pub fn tenure(&self) -> Tenure {
        self.tenure
    }

    /// How many tasks are ready to be leased.
    pub fn ready(&self) -> u32 {
        if self.leaving || self.is_congested() {
            0
        } else {
            self.ready.len()
        }
    }

    /// One past the last offset that has arrived: where the log is read on.
    pub fn tail(&self) -> Offset {
        Offset(self.ring.tail())
    }

    /// The task that runs for an idempotency key, if the shard remembers one.
    pub fn task_of_key(&self, hash: KeyHash) -> Option<Offset> {
        self.keys.find(hash, self.now)
    }

    /// How much more the shard takes from the log now: tasks and bytes. While one of them is 0, the forwarder waits.
    pub fn room(&self) -> (usize, usize) {
        let (tasks, bytes) = self.free_room();
        // Workers may be running them: they must not wait until what the log brings has made room.
        let tasks = if self.awaits_rows() { 0 } else { tasks };
        (tasks, bytes)
    }

    /// How much the window has room for: tasks and bytes.
    fn free_room(&self) -> (usize, usize) {
        let window = &self.policy.window;
        let span = u64::from(window.max_span).saturating_sub(self.ring.span());
        let taken = self.slab.live().saturating_add(self.parked.reserved());
        let tasks = u64::from(window.max_tasks.saturating_sub(taken)).min(span);
        let bytes = window
            .max_bytes
            .saturating_sub(self.live_bytes + self.unsaved.bytes + self.saving_bytes());
        (usize::try_from(tasks).unwrap_or(usize::MAX), bytes)
    }

    fn set_policy(&mut self, policy: Arc<PipelinePolicy>) -> Answer {
        self.ready.set_aging(policy.aging.0);
        let is_timed_anew = policy.timeouts != self.policy.timeouts;
        self.policy = policy;
        if is_timed_anew {
            self.arm_all();
        }
        if self.is_too_wide() {
            // A narrower window may leave no room, so that nothing else changes until its oldest task ends.
            self.mark_dirty();
        }
        Answer::Done
    }

    fn leave(&mut self) -> Answer {
        self.leaving = true;
        if self.recovery.spoken_of() > 0 {
            // The next owner is to wait for the workers who said it.
            self.mark_dirty();
        }
        self.flush()
    }

    /// The slot of a live task.
    fn slot_of(&self, offset: u64) -> Option<u32> {
        match self.ring.get(offset) {
            Some(ring::Entry::Live(id)) => Some(id),
            _ => self.carried.get(&offset).copied(),
        }
    }

    fn slot(&self, id: u32) -> &Slot {
        &self.slab.slots[id as usize]
    }

    fn slot_mut(&mut self, id: u32) -> &mut Slot {
        &mut self.slab.slots[id as usize]
    }

    /// Says that a task has changed, to those who watch it.
    fn changed(&self, id: u32, out: &mut Vec<Output>) {
        let slot = self.slot(id);
        if self.watch_all || slot.flags.has(Flags::WATCHED) {
            out.push(Output::Changed(Offset(slot.offset)));
        }
    }

    /// Takes a live task out of whatever list it is in.
    fn leave_list(&mut self, id: u32) {
        let slots = &mut self.slab.slots;
        match slots[id as usize].state {
            State::Ready => self.ready.remove(slots, id),
            State::Unsure => self.unsure.unlink(slots, id),
            State::Leased => {
                let worker = slots[id as usize].worker;
                self.workers.leases(worker).unlink(slots, id);
                self.workers.leave_if_idle(worker);
                self.counts.running -= 1;
            }
            State::Delayed | State::Parked => self.counts.delayed -= 1,
            State::Free => unreachable!("a free slot is in no list"),
        }
    }

    /// Marks a task as one that a replay of the log would not bring back as it is.
    fn touch(&mut self, id: u32) {
        let Slot { offset, flags, .. } = *self.slot(id);
        if !flags.has(Flags::CARRIED) {
            self.ring.touch(offset);
        }
        self.mark_dirty();
    }
}

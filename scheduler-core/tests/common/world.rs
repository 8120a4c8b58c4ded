//! A small world around one shard: a log, a store, workers that do as they are told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{LeaseToken, Offset, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::policy::{PipelinePolicy, RetryPolicy};
use scheduler_core::port::gateway::{HeldLease, Lease, TaskState, TaskView};
use scheduler_core::shard::{Answer, Found, Input, Output, Shard};
use scheduler_core::task::{Priority, Record, RecordBody, TaskOptions, TaskSpec};
use scheduler_core::time::Timestamp;

use super::store::{Load, Store};

pub(crate) const GRACE: Duration = Duration::from_secs(10);
pub(crate) const ANNA: WorkerId = WorkerId(1);
pub(crate) const BERT: WorkerId = WorkerId(2);

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn task() -> TaskSpec {
    TaskSpec::new("{}")
}

pub(crate) fn urgent(level: u8) -> TaskSpec {
    TaskSpec {
        priority: Priority::new(level).expect("0 to 9"),
        ..task()
    }
}

pub(crate) fn with(options: TaskOptions) -> TaskSpec {
    TaskSpec {
        options: Some(Box::new(options)),
        ..task()
    }
}

pub(crate) fn success() -> AttemptOutcome {
    AttemptOutcome::Succeeded {
        output: Bytes::from_static(b"done"),
    }
}

pub(crate) fn failure() -> AttemptOutcome {
    AttemptOutcome::Failed {
        error: "no luck".into(),
    }
}

/// The default policy with delays that are known to the millisecond.
pub(crate) fn policy() -> PipelinePolicy {
    PipelinePolicy {
        retry: RetryPolicy {
            jitter: 0.0,
            ..RetryPolicy::default()
        },
        ..PipelinePolicy::default()
    }
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) policy: Arc<PipelinePolicy>,
    pub(crate) shard: Shard,
    pub(crate) store: Store,
    pub(crate) log: Vec<Record>,
    /// The checkpoint on its way to the store.
    pub(crate) saving: Option<Arc<Checkpoint>>,
    /// Whether [`Output::LoadParked`] is answered at once.
    pub(crate) loads: bool,
    pub(crate) load: Option<Load>,
    pub(crate) stops: Vec<(WorkerId, HeldLease)>,
    pub(crate) settled: Vec<(WorkerId, u64)>,
    pub(crate) changed: Vec<Offset>,
    pub(crate) truncated: Vec<Offset>,
    leases: Vec<Lease>,
}

impl World {
    pub(crate) fn new(policy: PipelinePolicy) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let policy = Arc::new(policy);
        let mut store = Store::default();
        let shard = store.activate(now, policy.clone(), Offset::ZERO, false, GRACE);
        let mut world = Self {
            now,
            policy,
            shard,
            store,
            log: Vec::new(),
            saving: None,
            loads: true,
            load: None,
            stops: Vec::new(),
            settled: Vec::new(),
            changed: Vec::new(),
            truncated: Vec::new(),
            leases: Vec::new(),
        };
        world.tell(Input::Tick);
        world
    }

    pub(crate) fn tell(&mut self, input: Input) -> Answer {
        let mut outputs = Vec::new();
        let answer = self.shard.handle(self.now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Lease { lease, .. } => self.leases.push(lease),
                Output::Stop { worker, lease } => self.stops.push((worker, lease)),
                Output::Settled { worker, count, .. } => self.settled.push((worker, count)),
                Output::Changed(offset) => self.changed.push(offset),
                Output::Save(checkpoint) => self.saving = Some(checkpoint),
                Output::Truncate(offset) => self.truncated.push(offset),
                Output::LoadParked {
                    page,
                    after,
                    until,
                    limit,
                } => self.load = Some((page, after, until, limit)),
            }
        }
        if self.loads {
            self.answer_load();
        }
        answer
    }

    /// Answers [`Output::LoadParked`], if the shard waits for that.
    pub(crate) fn answer_load(&mut self) {
        if let Some(load) = self.load.take() {
            let page = self.store.page(load);
            self.tell(page);
        }
    }

    /// Submits a task, and forwards it.
    pub(crate) fn arrive(&mut self, spec: TaskSpec) -> Offset {
        let offset = self.submit(RecordBody::Task(spec));
        self.forward();
        offset
    }

    pub(crate) fn submit(&mut self, body: RecordBody) -> Offset {
        let offset = self.log.last().map_or(Offset::ZERO, |last| last.offset.next());
        self.submit_at(offset, body);
        offset
    }

    pub(crate) fn submit_at(&mut self, offset: Offset, body: RecordBody) {
        self.log.push(Record {
            offset,
            appended_at: self.now,
            body,
        });
    }

    /// Delivers what the shard has room for.
    pub(crate) fn forward(&mut self) {
        while self.forward_one() {}
    }

    pub(crate) fn forward_one(&mut self) -> bool {
        let (tasks, bytes) = self.shard.room();
        let tail = self.shard.tail();
        let Some(record) = self.log.iter().find(|record| record.offset >= tail) else {
            return false;
        };
        let has_room = tasks > 0 && bytes > 0;
        if has_room {
            let record = record.clone();
            self.tell(Input::Arrive(record));
        }
        has_room
    }

    pub(crate) fn ask(&mut self, worker: WorkerId, limit: u32) -> Vec<Lease> {
        self.tell(Input::Ask { worker, limit });
        std::mem::take(&mut self.leases)
    }

    pub(crate) fn lease(&mut self, worker: WorkerId) -> Lease {
        let mut leases = self.ask(worker, 1);
        assert_eq!(leases.len(), 1, "there is no task to lease");
        leases.remove(0)
    }

    pub(crate) fn is_idle(&mut self, worker: WorkerId) -> bool {
        self.ask(worker, 1).is_empty()
    }

    pub(crate) fn report(&mut self, worker: WorkerId, lease: &Lease, outcome: AttemptOutcome) -> Answer {
        self.tell(Input::Report {
            worker,
            offset: lease.offset,
            token: lease.token,
            outcome,
        })
    }

    pub(crate) fn attach(
        &mut self,
        worker: WorkerId,
        held: &[&Lease],
        reported: &[(&Lease, AttemptOutcome)],
    ) -> Answer {
        let held: Vec<(Offset, LeaseToken)> = held.iter().map(|lease| (lease.offset, lease.token)).collect();
        let reported = reported
            .iter()
            .map(|(lease, outcome)| (lease.offset, lease.token, outcome.clone()))
            .collect();
        self.tell(Input::Attach {
            worker,
            held,
            reported,
        })
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        self.tell(Input::Tick);
    }

    /// The store takes the checkpoint under way, and says so.
    pub(crate) fn answer_save(&mut self) {
        let checkpoint = self.saving.take().expect("no checkpoint is under way");
        self.store.apply(&checkpoint);
        self.tell(Input::Saved(checkpoint.id));
    }

    /// Saves everything up to now.
    pub(crate) fn save(&mut self) {
        self.tell(Input::Flush);
        while self.saving.is_some() {
            self.answer_save();
        }
        assert!(self.shard.is_saved());
    }

    /// Another activation, after the last one vanished or released the shard, without replaying the log.
    pub(crate) fn activate(&mut self, unclean: bool) {
        let end = self.log.last().map_or(Offset::ZERO, |last| last.offset.next());
        self.shard = self
            .store
            .activate(self.now, self.policy.clone(), end, unclean, GRACE);
        self.saving = None;
        self.load = None;
        self.tell(Input::Tick);
    }

    /// The shard dies with all that is not saved, and comes up again.
    pub(crate) fn crash(&mut self) {
        self.activate(true);
        self.tell(Input::Keys(self.store.keys.clone()));
        self.forward();
    }

    /// The shard is released, and comes up again.
    pub(crate) fn move_away(&mut self) {
        self.save();
        self.activate(false);
        self.tell(Input::Keys(self.store.keys.clone()));
        self.forward();
    }

    pub(crate) fn view(&self, offset: Offset) -> TaskView {
        match self.shard.find(offset) {
            Found::Live(view) => view,
            other => panic!("{offset:?} is not live: {other:?}"),
        }
    }

    pub(crate) fn state(&self, offset: Offset) -> TaskState {
        match self.shard.find(offset) {
            Found::Live(view) => view.state,
            Found::Finished(task) => task.ending.into(),
            Found::Dead(_) => TaskState::Dead,
            other => panic!("{offset:?} is not here: {other:?}"),
        }
    }
}

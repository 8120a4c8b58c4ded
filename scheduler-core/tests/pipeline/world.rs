//! A node that is told what happens, and what it wants done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::{Epoch, Offset, Partition, PipelineId, ShardId, Tenure, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::{Effect, Event, PipelineNode};
use scheduler_core::port::gateway::{HeldLease, Lease, Report, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_core::session::SessionId;
use scheduler_core::shard::{Input, Shard, ShardConfig};
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

pub(crate) const ANNA: WorkerId = WorkerId(1);
pub(crate) const BERT: WorkerId = WorkerId(2);

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) node: PipelineNode,
    pub(crate) epoch: u32,
    pub(crate) effects: Vec<Effect>,
}

impl World {
    pub(crate) fn new(partitions: u32) -> Self {
        let mut world = Self {
            now: Timestamp::from_millis(1_000_000),
            node: PipelineNode::new(Arc::default(), false),
            epoch: 0,
            effects: Vec::new(),
        };
        for partition in 0..partitions {
            world.activate(partition);
        }
        world
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.node.handle(self.now, event, &mut self.effects);
        self.node.dispatch(self.now, &mut self.effects);
    }

    pub(crate) fn activate(&mut self, partition: u32) {
        self.epoch += 1;
        let config = ShardConfig {
            tenure: Tenure {
                shard: ShardId::new(PipelineId(1), Partition(partition)),
                epoch: Epoch(self.epoch),
            },
            policy: Arc::default(),
            resume: Offset::ZERO,
            state: Bytes::new(),
            log_start: Offset::ZERO,
            log_end: Offset::ZERO,
            unclean: false,
            grace: Duration::ZERO,
        };
        let shard = Shard::new(self.now, config).unwrap();
        self.event(Event::Activate(Box::new(shard)));
    }

    pub(crate) fn arrive(&mut self, partition: u32, specs: impl IntoIterator<Item = TaskSpec>) {
        let tail = self
            .node
            .shard(Partition(partition))
            .map_or(Offset::ZERO, Shard::tail);
        let records = specs.into_iter().zip(tail.0..).map(|(spec, offset)| Record {
            offset: Offset(offset),
            appended_at: self.now,
            body: RecordBody::Task(spec),
        });
        self.event(Event::Arrive(Partition(partition), records.collect()));
    }

    pub(crate) fn tasks(&mut self, partition: u32, count: usize) {
        self.arrive(partition, (0..count).map(|_| TaskSpec::new("{}")));
    }

    pub(crate) fn open(&mut self, session: u64, worker: WorkerId) {
        self.open_as(session, worker, 0);
    }

    /// With the worker's hello of that number.
    pub(crate) fn open_as(&mut self, session: u64, worker: WorkerId, number: u64) {
        let hello = WorkerHello {
            shares: false,
            number,
            worker,
            name: String::new(),
            held: Vec::new(),
            reported: Vec::new(),
        };
        self.event(Event::Open(SessionId(session), hello));
    }

    pub(crate) fn say(&mut self, session: u64, commands: Vec<WorkerCommand>) {
        self.event(Event::Commands(SessionId(session), commands));
    }

    pub(crate) fn credit(&mut self, session: u64, tasks: u32) {
        self.say(session, vec![WorkerCommand::Credit(tasks)]);
    }

    pub(crate) fn report(&mut self, session: u64, lease: &Lease, outcome: AttemptOutcome) {
        let lease = held(lease);
        self.say(
            session,
            vec![WorkerCommand::Reports(vec![Report { lease, outcome }])],
        );
    }

    /// The effects since the last look, and time has passed.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The leases that a session or poll was told.
    pub(crate) fn leases(&mut self, session: u64) -> Vec<Lease> {
        let of = |effect| match effect {
            Effect::Tell(id, WorkerEvent::Leases(leases)) | Effect::Answer(id, leases)
                if id == SessionId(session) =>
            {
                leases
            }
            _ => Vec::new(),
        };
        self.effects().into_iter().flat_map(of).collect()
    }

    /// Whether a checkpoint of the first shard was made since the last look; the store takes it.
    pub(crate) fn saves(&mut self) -> bool {
        let saved = self.effects().into_iter().find_map(|effect| match effect {
            Effect::Save(checkpoint) => Some(checkpoint.id),
            _ => None,
        });
        if let Some(id) = saved {
            self.event(Event::Shard(Partition(0), Input::Saved(id)));
        }
        saved.is_some()
    }

    pub(crate) fn ended(&mut self) -> Vec<u64> {
        let of = |effect| match effect {
            Effect::End(id) => Some(id.0),
            _ => None,
        };
        self.effects().into_iter().filter_map(of).collect()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.event(Event::Tick);
    }
}

pub(crate) fn held(lease: &Lease) -> HeldLease {
    HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    }
}

pub(crate) fn success(bytes: usize) -> AttemptOutcome {
    AttemptOutcome::Succeeded {
        output: vec![0; bytes].into(),
    }
}

/// What a session was told about waiting and recalled credit, in order.
pub(crate) fn words(world: &mut World, session: u64) -> Vec<WorkerEvent> {
    let of = |effect| match effect {
        Effect::Tell(id, word @ (WorkerEvent::Waiting(_) | WorkerEvent::Recalled(_)))
            if id == SessionId(session) =>
        {
            Some(word)
        }
        _ => None,
    };
    world.effects().into_iter().filter_map(of).collect()
}

//! A host, and what it is told and wants done.

use bytes::Bytes;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::host::{Effect, Effects, Host, HostConfig, Stay, Waiter, Word};
use scheduler_core::id::{Epoch, NodeId, Offset, Partition, PipelineId, WorkerId};
use scheduler_core::pipeline;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::gateway::{WorkerEvent, WorkerHello};
use scheduler_core::port::log::Bounds;
use scheduler_core::port::store::{Claimed, PreviousOwner};
use scheduler_core::session::SessionId;
use scheduler_core::task::{Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const P: Partition = Partition(0);

/// Somebody who waits for a checkpoint.
#[derive(Debug, PartialEq)]
pub(crate) struct Asker {
    pub(crate) name: u32,
    pub(crate) has_gone: bool,
}

impl Waiter for Asker {
    fn has_gone(&self) -> bool {
        self.has_gone
    }
}

pub(crate) fn asker(name: u32) -> Asker {
    Asker {
        name,
        has_gone: false,
    }
}

pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) host: Host<Asker, &'static str>,
    pub(crate) effects: Effects<Asker, &'static str>,
    pub(crate) epoch: u32,
    pub(crate) previous: PreviousOwner,
    pub(crate) barren: u32,
}

impl World {
    pub(crate) fn new() -> Self {
        let config = HostConfig {
            pipeline: PipelineId(1),
            node: NodeId(7),
            grace: Duration::from_secs(5),
        };
        Self {
            now: Timestamp::from_millis(1_000_000),
            host: Host::new(config, Arc::new(PipelinePolicy::default()), false),
            effects: Effects::default(),
            epoch: 0,
            previous: PreviousOwner::Released,
            barren: 0,
        }
    }

    pub(crate) fn with_one_shard() -> (Self, Stay) {
        let mut world = Self::new();
        let stay = world.up(0);
        (world, stay)
    }

    /// What the host wants done since the last look.
    pub(crate) fn done(&mut self) -> Vec<Effect<Asker, &'static str>> {
        std::mem::take(&mut self.effects.host)
    }

    pub(crate) fn assign(&mut self) -> Stay {
        self.host.assign(self.now, &[P], &mut self.effects);
        self.claims()
    }

    pub(crate) fn claims(&mut self) -> Stay {
        match self.done().as_slice() {
            [Effect::Claim(stay)] => *stay,
            other => panic!("{other:?} is no claim"),
        }
    }

    pub(crate) fn hear(&mut self, stay: Stay, word: Word) -> bool {
        self.host.hear(self.now, stay, word, &mut self.effects)
    }

    pub(crate) fn claimed(&mut self, stay: Stay) {
        self.epoch += 1;
        let claimed = Claimed {
            epoch: Epoch(self.epoch),
            previous: self.previous,
            resume: Offset(10),
            state: Bytes::new(),
            barren_epochs: self.barren,
        };
        self.hear(stay, Word::Claimed(claimed));
    }

    pub(crate) fn measured(&mut self, stay: Stay, start: u64, end: u64) {
        let bounds = Bounds {
            start: Offset(start),
            end: Offset(end),
        };
        self.hear(stay, Word::Measured(bounds, Vec::new()));
    }

    /// Brings up the shard, with so many records to replay and no rows.
    pub(crate) fn up(&mut self, records: u64) -> Stay {
        let stay = self.come_up(records);
        self.rows(stay, self.epoch);
        stay
    }

    /// The store's answer to the question for parked tasks: there are none, and this was the shard's epoch.
    pub(crate) fn rows(&mut self, stay: Stay, epoch: u32) {
        let wanted = self.effects.pipeline.iter().find_map(|effect| match effect {
            pipeline::Effect::LoadParked { page, .. } => Some(*page),
            _ => None,
        });
        let rows = Word::Unpark {
            page: wanted.unwrap(),
            tasks: Vec::new(),
            next_wake: Timestamp::MAX,
            epoch: Epoch(epoch),
        };
        self.hear(stay, rows);
    }

    pub(crate) fn come_up(&mut self, records: u64) -> Stay {
        let stay = self.assign();
        self.claimed(stay);
        assert!(matches!(self.done().as_slice(), [Effect::Measure(of)] if *of == stay));
        self.measured(stay, 0, 10 + records);
        assert!(matches!(
            self.done().as_slice(),
            [Effect::Active {
                from: Offset(10),
                missing: 0,
                ..
            }]
        ));
        stay
    }

    /// The read that the host wants.
    pub(crate) fn reads(&mut self) -> (Offset, usize, Duration) {
        self.host.read_on(&mut self.effects);
        match self.done().as_slice() {
            [
                Effect::Read {
                    from, limit, pause, ..
                },
            ] => (*from, limit.records, *pause),
            other => panic!("{other:?} is no read"),
        }
    }

    pub(crate) fn records(&mut self, stay: Stay, from: u64, count: u64) -> bool {
        let records = (from..from + count).map(|offset| Record {
            offset: Offset(offset),
            appended_at: self.now,
            body: RecordBody::Task(TaskSpec::new("{}")),
        });
        let records = records.collect();
        self.hear(stay, Word::Records(records))
    }

    /// The checkpoint that the host wants saved, if it wants one.
    pub(crate) fn save(&mut self) -> Option<Arc<Checkpoint>> {
        let effects = std::mem::take(&mut self.effects.pipeline);
        effects.into_iter().find_map(|effect| match effect {
            pipeline::Effect::Save(checkpoint) => Some(checkpoint),
            _ => None,
        })
    }

    /// Saves what is to be saved.
    pub(crate) fn saved(&mut self, stay: Stay) {
        let id = self.save().unwrap().id;
        self.hear(stay, Word::Saved(id));
    }

    pub(crate) fn revoke(&mut self, who: &'static str) {
        self.host.revoke(self.now, &[P], &who, &mut self.effects);
    }

    pub(crate) fn hello(&mut self, session: u64) -> bool {
        let hello = WorkerHello {
            worker: WorkerId(u128::from(session)),
            name: String::new(),
            held: Vec::new(),
            reported: Vec::new(),
            shares: false,
            number: 0,
        };
        self.host
            .open(self.now, SessionId(session), hello, &mut self.effects)
    }

    pub(crate) fn told(&mut self, wanted: &WorkerEvent) -> usize {
        let effects = std::mem::take(&mut self.effects.pipeline);
        let told = effects
            .iter()
            .filter(|effect| matches!(effect, pipeline::Effect::Tell(_, event) if event == wanted));
        told.count()
    }
}

/// Who is told that something is saved, and who that a shard is let go or released.
pub(crate) fn answered(effects: &[Effect<Asker, &'static str>]) -> (Vec<u32>, Vec<&'static str>) {
    let (mut saved, mut gone) = (Vec::new(), Vec::new());
    for effect in effects {
        match effect {
            Effect::Saved(asker) => saved.push(asker.name),
            Effect::LetGo(_, waiting) | Effect::Release { waiting, .. } => gone.extend(waiting),
            _ => (),
        }
    }
    (saved, gone)
}

//! A pipeline's node: shards, sessions and polls, without a driver.

#![expect(clippy::unwrap_used, reason = "a test panics when what it tests is wrong")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::{Epoch, Offset, Partition, PipelineId, ShardId, Tenure, WorkerId};
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::pipeline::{Effect, Event, MAX_PROGRESS, PipelineNode};
use scheduler_core::policy::{PipelinePolicy, Timeouts};
use scheduler_core::port::gateway::{HeldLease, Lease, Report, WorkerCommand, WorkerEvent, WorkerHello};
use scheduler_core::session::{MAX_DEFERRED, SessionId};
use scheduler_core::shard::{Found, Input, Shard, ShardConfig};
use scheduler_core::task::{Priority, Record, RecordBody, TaskSpec};
use scheduler_core::time::Timestamp;

const ANNA: WorkerId = WorkerId(1);
const BERT: WorkerId = WorkerId(2);

struct World {
    now: Timestamp,
    node: PipelineNode,
    epoch: u32,
    effects: Vec<Effect>,
}

impl World {
    fn new(partitions: u32) -> Self {
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

    fn event(&mut self, event: Event) {
        self.node.handle(self.now, event, &mut self.effects);
        self.node.dispatch(self.now, &mut self.effects);
    }

    fn activate(&mut self, partition: u32) {
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

    fn arrive(&mut self, partition: u32, specs: impl IntoIterator<Item = TaskSpec>) {
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

    fn tasks(&mut self, partition: u32, count: usize) {
        self.arrive(partition, (0..count).map(|_| TaskSpec::new("{}")));
    }

    fn open(&mut self, session: u64, worker: WorkerId) {
        self.open_as(session, worker, 0);
    }

    /// With the worker's hello of that number.
    fn open_as(&mut self, session: u64, worker: WorkerId, number: u64) {
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

    fn say(&mut self, session: u64, commands: Vec<WorkerCommand>) {
        self.event(Event::Commands(SessionId(session), commands));
    }

    fn credit(&mut self, session: u64, tasks: u32) {
        self.say(session, vec![WorkerCommand::Credit(tasks)]);
    }

    fn report(&mut self, session: u64, lease: &Lease, outcome: AttemptOutcome) {
        let lease = held(lease);
        self.say(
            session,
            vec![WorkerCommand::Reports(vec![Report { lease, outcome }])],
        );
    }

    /// The effects since the last look, and time has passed.
    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The leases that a session or poll was told.
    fn leases(&mut self, session: u64) -> Vec<Lease> {
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
    fn saves(&mut self) -> bool {
        let saved = self.effects().into_iter().find_map(|effect| match effect {
            Effect::Save(checkpoint) => Some(checkpoint.id),
            _ => None,
        });
        if let Some(id) = saved {
            self.event(Event::Shard(Partition(0), Input::Saved(id)));
        }
        saved.is_some()
    }

    fn ended(&mut self) -> Vec<u64> {
        let of = |effect| match effect {
            Effect::End(id) => Some(id.0),
            _ => None,
        };
        self.effects().into_iter().filter_map(of).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.event(Event::Tick);
    }
}

fn held(lease: &Lease) -> HeldLease {
    HeldLease {
        partition: lease.partition,
        offset: lease.offset,
        token: lease.token,
    }
}

fn success(bytes: usize) -> AttemptOutcome {
    AttemptOutcome::Succeeded {
        output: vec![0; bytes].into(),
    }
}

#[test]
fn tasks_meet_credits_whichever_comes_first() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 2);
    world.tasks(0, 3);
    assert_eq!(world.leases(1).len(), 2);
    world.credit(1, 5);
    assert_eq!(world.leases(1).len(), 1);
    world.tasks(0, 9);
    assert_eq!(world.leases(1).len(), 4);
}

#[test]
fn several_workers_share_what_is_there() {
    let mut world = World::new(1);
    for worker in 1..=4 {
        world.open(worker, WorkerId(worker.into()));
        world.credit(worker, 100);
    }
    world.tasks(0, 8);
    let mut counts = [0; 4];
    for effect in world.effects() {
        if let Effect::Tell(id, WorkerEvent::Leases(leases)) = effect {
            counts[usize::try_from(id.0).unwrap() - 1] += leases.len();
        }
    }
    assert_eq!(counts, [2; 4]);
}

#[test]
fn the_most_urgent_task_is_first_whatever_its_partition() {
    let mut world = World::new(3);
    world.tasks(0, 1);
    world.arrive(
        2,
        [TaskSpec {
            priority: Priority::MAX,
            ..TaskSpec::new("{}")
        }],
    );
    world.open(1, ANNA);
    world.credit(1, 1);
    assert_eq!(world.leases(1)[0].partition, Partition(2));
}

#[test]
fn a_poll_is_over_with_its_answer_and_one_that_is_closed_gets_none() {
    let mut world = World::new(1);
    let poll = |session, limit| Event::Poll {
        session: SessionId(session),
        worker: ANNA,
        limit,
    };
    world.event(poll(1, 3));
    world.event(poll(2, 3));
    world.event(Event::Close(SessionId(1)));
    world.tasks(0, 1);
    assert_eq!(world.leases(2).len(), 1);
    world.tasks(0, 1);
    assert!(world.leases(2).is_empty());
}

#[test]
fn a_worker_with_a_session_may_poll_as_well() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 1);
    world.event(Event::Poll {
        session: SessionId(2),
        worker: ANNA,
        limit: 1,
    });
    world.tasks(0, 2);
    let effects = world.effects();
    let is_told = |effect: &Effect| matches!(effect, Effect::Tell(SessionId(1), WorkerEvent::Leases(l)) if l.len() == 1);
    let is_answered = |effect: &Effect| matches!(effect, Effect::Answer(SessionId(2), l) if l.len() == 1);
    assert!(effects.iter().any(is_told), "{effects:?}");
    assert!(effects.iter().any(is_answered), "{effects:?}");
}

#[test]
fn a_worker_that_comes_back_again_and_again_does_not_queue_up() {
    let mut world = World::new(1);
    world.open(1, BERT);
    world.credit(1, 1);
    for session in 2..1_000 {
        world.open(session, ANNA);
        world.credit(session, 8);
    }
    assert_eq!(world.ended().len(), 997);
    // If the old sessions stood in line, each of the two would get but one at a time of so few.
    world.tasks(0, 9);
    let leases = world
        .effects()
        .into_iter()
        .filter(|effect| matches!(effect, Effect::Tell(_, WorkerEvent::Leases(_))));
    assert!(leases.count() <= 4);
}

#[test]
fn a_hello_that_was_overtaken_on_its_way_takes_nothing_from_its_worker() {
    let mut world = World::new(1);
    world.open_as(2, ANNA, 2);
    world.credit(2, 1);
    world.tasks(0, 2);
    assert_eq!(world.leases(2).len(), 1);
    // It was sent before the lease was granted, and does not hold it.
    world.open_as(1, ANNA, 1);
    assert_eq!(world.ended(), [1]);
    world.open(3, BERT);
    world.credit(3, 5);
    assert_eq!(world.leases(3).len(), 1, "the other task alone");
    // Nor does one that comes when the session is over.
    world.event(Event::Close(SessionId(2)));
    world.open_as(4, ANNA, 1);
    assert_eq!(world.ended(), [4]);
    // A new one counts: what it does not hold is lost.
    world.open_as(5, ANNA, 3);
    assert_eq!(world.leases(3).len(), 1);
}

#[test]
fn a_session_that_was_there_when_its_shard_left_begins_anew_when_the_shard_comes_back() {
    let mut world = World::new(2);
    world.open(1, ANNA);
    world.event(Event::Deactivate(Partition(1)));
    let effects = world.effects();
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Tell(_, WorkerEvent::Moved(Partition(1)))))
    );
    world.activate(1);
    // What the worker holds of it, only its next hello says.
    assert_eq!(world.ended(), [1]);
    world.open(2, ANNA);
    assert!(world.ended().is_empty());
}

#[test]
fn a_session_looks_for_a_partition_that_its_pipeline_has_got_and_begins_anew_if_it_is_here() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.effects();
    world.event(Event::Grow(Partition(1)));
    assert!(matches!(
        world.effects()[..],
        [Effect::Tell(_, WorkerEvent::Moved(Partition(1)))]
    ));
    world.activate(1);
    assert_eq!(world.ended(), [1]);
    // Where it is already there is nothing to look for.
    world.open(2, ANNA);
    world.effects();
    world.event(Event::Grow(Partition(1)));
    assert!(world.effects().is_empty());
}

#[test]
fn reports_for_a_shard_that_is_not_here_wait_for_it_up_to_a_bound() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 1);
    world.tasks(0, 1);
    let mut lease = world.leases(1).remove(0);
    lease.partition = Partition(1);
    let piece = MAX_DEFERRED / 4;
    for _ in 0..3 {
        world.report(1, &lease, success(piece));
    }
    assert!(world.ended().is_empty());
    world.report(1, &lease, success(piece));
    assert_eq!(world.ended(), [1]);
}

#[test]
fn a_silent_worker_is_let_go_after_its_timeout_and_one_that_speaks_is_not() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.open(2, BERT);
    for _ in 0..5 {
        world.pass(Duration::from_secs(7));
        world.say(2, vec![WorkerCommand::Alive]);
    }
    assert_eq!(world.ended(), [1]);
    assert!(world.node.next_deadline().unwrap() <= world.now + Timeouts::default().heartbeat);
}

#[test]
fn a_shard_that_comes_up_goes_by_the_policy_of_now() {
    let mut world = World::new(1);
    let policy = PipelinePolicy {
        timeouts: Timeouts {
            run: Duration::from_secs(10),
            ..Timeouts::default()
        },
        ..PipelinePolicy::default()
    };
    world.event(Event::Policy(Arc::new(policy)));
    // Its activation began before the change.
    world.activate(1);
    world.tasks(1, 1);
    world.open(1, ANNA);
    world.credit(1, 1);
    assert_eq!(world.leases(1)[0].run_until, world.now + Duration::from_secs(10));
}

#[test]
fn workers_learn_of_a_shorter_heartbeat_in_a_new_session() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    let heartbeat = |heartbeat| {
        let policy = PipelinePolicy {
            timeouts: Timeouts {
                heartbeat,
                ..Timeouts::default()
            },
            ..PipelinePolicy::default()
        };
        Event::Policy(Arc::new(policy))
    };
    world.event(heartbeat(Duration::from_mins(1)));
    assert!(world.ended().is_empty());
    world.event(heartbeat(Duration::from_secs(2)));
    assert_eq!(world.ended(), [1]);
}

#[test]
fn progress_beyond_its_bound_is_a_sign_of_life_and_nothing_else() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 1);
    world.tasks(0, 1);
    let lease = world.leases(1).remove(0);
    for bytes in [MAX_PROGRESS, MAX_PROGRESS + 1] {
        let progress = WorkerCommand::Progress {
            lease: held(&lease),
            progress: vec![1; bytes].into(),
        };
        world.say(1, vec![progress]);
    }
    let Found::Live(view) = world.node.shard(Partition(0)).unwrap().find(lease.offset) else {
        panic!("it runs");
    };
    assert_eq!(view.progress.len(), MAX_PROGRESS);
}

#[test]
fn a_draining_worker_gets_nothing_more_and_a_paused_pipeline_gives_nothing() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 5);
    world.say(1, vec![WorkerCommand::Drain]);
    world.tasks(0, 1);
    world.credit(1, 5);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Recalled(5)]);
    world.event(Event::Pause(true));
    world.open(2, BERT);
    world.credit(2, 1);
    assert!(world.leases(2).is_empty());
    world.event(Event::Pause(false));
    assert_eq!(world.leases(2).len(), 1);
}

#[test]
fn what_a_draining_worker_reports_is_saved_at_once() {
    let mut world = World::new(1);
    world.tasks(0, 2);
    world.open(1, ANNA);
    world.credit(1, 2);
    let leases = world.leases(1);
    world.event(Event::Shard(Partition(0), Input::Flush));
    assert!(world.saves());
    world.report(1, &leases[0], success(1));
    assert!(!world.saves());
    world.say(1, vec![WorkerCommand::Drain]);
    assert!(world.saves());
    world.report(1, &leases[1], success(1));
    assert!(world.saves());
}

#[test]
fn what_is_given_back_by_nobody_does_not_count_as_a_workers_report() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.credit(1, 2);
    world.tasks(0, 2);
    let leases = world.leases(1);
    let Lease { offset, token, .. } = leases[0];
    world.node.give_back(
        world.now,
        Partition(0),
        WorkerId(0),
        offset,
        token,
        &mut world.effects,
    );
    world.report(1, &leases[1], success(1));
    world.event(Event::Shard(Partition(0), Input::Flush));
    let id = world
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Save(checkpoint) => Some(checkpoint.id),
            _ => None,
        })
        .next_back()
        .unwrap();
    world.event(Event::Shard(Partition(0), Input::Saved(id)));
    world.event(Event::Shard(Partition(0), Input::Flush));
    let settled = world.effects().into_iter().filter_map(|effect| match effect {
        Effect::Tell(_, WorkerEvent::Settled { count, .. }) => Some(count),
        _ => None,
    });
    assert!(settled.max().unwrap_or_default() <= 1);
}

fn settled(world: &mut World) -> Vec<u64> {
    let of = |effect| match effect {
        Effect::Tell(_, WorkerEvent::Settled { count, .. }) => Some(count),
        _ => None,
    };
    world.effects().into_iter().filter_map(of).collect()
}

/// Has everything saved that a worker with room for one task has reported of so many.
fn report_and_save(world: &mut World, tasks: u32) {
    for _ in 0..tasks {
        world.tasks(0, 1);
        world.credit(1, 1);
        let leases = world.leases(1);
        world.report(1, &leases[0], success(1));
    }
    world.event(Event::Shard(Partition(0), Input::Flush));
    let id = world.node.covering(Partition(0)).unwrap();
    world.event(Event::Shard(Partition(0), Input::Saved(id)));
}

#[test]
fn what_is_settled_is_said_with_the_next_lease_or_a_little_later() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    report_and_save(&mut world, 1);
    assert_eq!(settled(&mut world), []);
    world.tasks(0, 1);
    world.credit(1, 1);
    let said = world.effects();
    let told: Vec<_> = said
        .iter()
        .filter(|effect| matches!(effect, Effect::Tell(..)))
        .collect();
    assert!(
        matches!(
            told[..],
            [
                Effect::Tell(_, WorkerEvent::Settled { count: 1, .. }),
                Effect::Tell(_, WorkerEvent::Leases(_))
            ]
        ),
        "{told:?}"
    );

    let mut idle = World::new(1);
    idle.open(1, ANNA);
    report_and_save(&mut idle, 2);
    assert_eq!(settled(&mut idle), []);
    idle.now = idle
        .node
        .next_deadline()
        .unwrap()
        .min(idle.now + Duration::from_secs(1));
    idle.event(Event::Tick);
    assert_eq!(settled(&mut idle), [2]);
}

#[test]
fn what_is_settled_is_said_at_once_if_it_is_much_or_somebody_waits_for_it() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    report_and_save(&mut world, 32);
    assert_eq!(settled(&mut world), [32]);
    report_and_save(&mut world, 1);
    world.event(Event::Pause(true));
    assert_eq!(settled(&mut world), [33], "a node that goes down has paused");
    world.event(Event::Pause(false));
    report_and_save(&mut world, 1);
    world.say(1, vec![WorkerCommand::Drain]);
    assert_eq!(settled(&mut world), [34]);

    let mut moved = World::new(1);
    moved.open(1, ANNA);
    report_and_save(&mut moved, 1);
    moved.event(Event::Deactivate(Partition(0)));
    assert_eq!(settled(&mut moved), [1]);
}

/// What a session was told about waiting and recalled credit, in order.
fn words(world: &mut World, session: u64) -> Vec<WorkerEvent> {
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

fn open_shared(world: &mut World, session: u64, worker: WorkerId) {
    let hello = WorkerHello {
        worker,
        name: String::new(),
        held: Vec::new(),
        reported: Vec::new(),
        shares: true,
        number: 0,
    };
    world.event(Event::Open(SessionId(session), hello));
}

#[test]
fn a_session_that_shares_its_room_is_told_of_waiting_tasks_on_change_alone() {
    let mut world = World::new(1);
    open_shared(&mut world, 1, ANNA);
    assert_eq!(words(&mut world, 1), []);
    world.tasks(0, 3);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(true)]);
    world.tasks(0, 1);
    // Credit that is used as it comes changes nothing.
    world.credit(1, 1);
    world.credit(1, 2);
    assert_eq!(words(&mut world, 1), []);
    world.credit(1, 2);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(false)]);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), []);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(true)]);
    world.say(1, vec![WorkerCommand::Drain]);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Recalled(0)]);
}

#[test]
fn who_does_not_share_is_not_told() {
    let mut world = World::new(1);
    world.open(1, ANNA);
    world.tasks(0, 3);
    world.credit(1, 5);
    assert_eq!(words(&mut world, 1), []);
    world.say(1, vec![WorkerCommand::Recall]);
    world.tasks(0, 1);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Recalled(2)]);
}

#[test]
fn recalled_credit_is_void_and_counted() {
    let mut world = World::new(1);
    open_shared(&mut world, 1, ANNA);
    world.credit(1, 3);
    world.tasks(0, 1);
    assert_eq!(world.leases(1).len(), 1);
    world.say(1, vec![WorkerCommand::Recall, WorkerCommand::Recall]);
    assert_eq!(
        words(&mut world, 1),
        [WorkerEvent::Recalled(2), WorkerEvent::Recalled(0)]
    );
    world.tasks(0, 2);
    assert_eq!(words(&mut world, 1), [WorkerEvent::Waiting(true)]);
    world.credit(1, 1);
    assert_eq!(world.leases(1).len(), 1);
}

#[test]
fn a_shard_that_comes_has_sessions_that_share_introduced_anew() {
    let mut world = World::new(1);
    open_shared(&mut world, 1, ANNA);
    assert_eq!(world.ended(), Vec::<u64>::new());
    world.activate(1);
    assert_eq!(world.ended(), [1]);
}

#[test]
fn a_shard_that_leaves_before_it_has_come_up_is_told_of_to_those_who_wait_for_it() {
    let mut world = World::new(0);
    world.open(1, ANNA);
    world.event(Event::Deactivate(Partition(3)));
    let told = |effect: &Effect| {
        matches!(
            effect,
            Effect::Tell(SessionId(1), WorkerEvent::Moved(Partition(3)))
        )
    };
    assert!(world.effects.iter().any(told), "{:?}", world.effects);
}

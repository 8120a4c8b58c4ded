//! The member of the group: one thread that serves the group's decisions and watches that the group can be reached.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use scheduler_core::id::{Partition, ShardId};
use scheduler_core::port::placement::PlacementEvent;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::context::{Heard, Hearing, Place, give, report};
use crate::config::{GroupProtocol, KafkaConfig};
use crate::error::aside;
use crate::log::name::TopicNames;

/// How long the thread sleeps at most: the group expects to be polled now and then.
const GLANCE: Duration = Duration::from_millis(500);

pub(super) enum Command {
    Topics {
        names: Vec<String>,
        /// A topic has got partitions since.
        grown: bool,
        done: oneshot::Sender<Result<(), KafkaError>>,
    },
    Released(Vec<ShardId>),
    Leave(Option<oneshot::Sender<()>>),
    /// The group has something to say.
    Stir,
}

type Group = BaseConsumer<Hearing>;

/// Partitions that go to others, and whose shards are not all released.
struct Revoking {
    places: Vec<Place>,
    missing: BTreeSet<ShardId>,
    deadline: Instant,
}

/// When the coordinator last answered, and about which partition to ask.
struct Pulse {
    answered: Instant,
    place: Option<Place>,
}

pub(super) struct Member {
    config: KafkaConfig,
    names: TopicNames,
    commands: Sender<Command>,
    events: UnboundedSender<PlacementEvent>,
    protocol: GroupProtocol,
    group: Arc<Group>,
    pulse: Arc<Mutex<Pulse>>,
    topics: Vec<String>,
    owned: BTreeSet<ShardId>,
    revoking: Vec<Revoking>,
}

impl Member {
    pub(super) fn open(
        config: KafkaConfig,
        names: TopicNames,
        commands: Sender<Command>,
        events: UnboundedSender<PlacementEvent>,
    ) -> Result<Self, KafkaError> {
        let protocol = match config.group_protocol {
            GroupProtocol::Auto => GroupProtocol::Consumer,
            chosen => chosen,
        };
        let (group, pulse) = join(&config, protocol, &commands)?;
        Ok(Self {
            config,
            names,
            commands,
            events,
            protocol,
            group,
            pulse,
            topics: Vec::new(),
            owned: BTreeSet::new(),
            revoking: Vec::new(),
        })
    }

    pub(super) fn run(mut self, inbox: &Receiver<Command>) {
        let mut left = None;
        'serving: loop {
            let mut command = inbox.recv_timeout(GLANCE);
            loop {
                match command {
                    Ok(Command::Topics { names, grown, done }) => {
                        // Who asked may have stopped waiting.
                        let _ = done.send(self.subscribe(names, grown));
                    }
                    Ok(Command::Released(shards)) => self.released(&shards),
                    Ok(Command::Leave(done)) => {
                        left = done;
                        break 'serving;
                    }
                    Ok(Command::Stir) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => break 'serving,
                }
                command = inbox.recv_timeout(Duration::ZERO);
            }
            self.poll();
            self.hear();
            self.hurry();
            self.watch();
        }
        self.abandon();
        drop(self);
        if let Some(left) = left {
            // Who asked may have stopped waiting.
            let _ = left.send(());
        }
    }

    /// Serves all that the group has to say.
    fn poll(&self) {
        loop {
            let before = self.group.context().served();
            let message = self.group.poll(Duration::ZERO);
            if message.is_none() && self.group.context().served() == before {
                return;
            }
        }
    }

    fn hear(&mut self) {
        for heard in self.group.context().take() {
            match heard {
                Heard::Assigned(places) => {
                    let shards = self.shards(&places);
                    self.owned.extend(&shards);
                    self.say(PlacementEvent::Assigned, shards);
                }
                Heard::Revoked(places) => {
                    let shards = self.shards(&places);
                    self.revoking.push(Revoking {
                        places,
                        missing: shards.iter().copied().collect(),
                        deadline: Instant::now() + self.config.release_timeout,
                    });
                    self.say(PlacementEvent::Revoked, shards);
                }
                Heard::Lost(places) => {
                    self.revoking.clear();
                    let shards = self.shards(&places);
                    self.lose(shards);
                }
            }
        }
        self.finish();
        let place = self.owned.first().and_then(|first| {
            let number = self
                .topics
                .iter()
                .find(|name| self.names.pipeline(name) == Some(first.pipeline));
            Some((number?.clone(), i32::try_from(first.partition.0).ok()?))
        });
        let mut pulse = lock(&self.pulse);
        if place.is_none() || pulse.place.is_none() {
            pulse.answered = Instant::now();
        }
        pulse.place = place;
    }

    fn released(&mut self, shards: &[ShardId]) {
        for revoking in &mut self.revoking {
            for shard in shards {
                revoking.missing.remove(shard);
            }
        }
        self.finish();
    }

    /// Gives back what is released.
    fn finish(&mut self) {
        while let Some(done) = self
            .revoking
            .iter()
            .position(|revoking| revoking.missing.is_empty())
        {
            let revoking = self.revoking.remove(done);
            for shard in self.shards(&revoking.places) {
                self.owned.remove(&shard);
            }
            report(
                give(&self.group, &revoking.places),
                "released partitions were not given back",
            );
        }
    }

    /// Ends revocations that took too long, or that the group decided without us.
    fn hurry(&mut self) {
        if self.revoking.is_empty() {
            return;
        }
        let lost = self.group.assignment_lost();
        let now = Instant::now();
        let late = |revoking: &Revoking| lost || now >= revoking.deadline;
        while let Some(at) = self.revoking.iter().position(late) {
            let revoking = self.revoking.remove(at);
            report(
                give(&self.group, &revoking.places),
                "late partitions were not given back",
            );
            let shards = self.shards(&revoking.places);
            self.lose(shards);
        }
    }

    /// Notices that the group has ended, or cannot be reached for so long that it may have given our shards away.
    fn watch(&mut self) {
        if let Some((code, reason)) = self.group.client().fatal_error() {
            let unknown = matches!(code, Code::UnsupportedFeature | Code::UnsupportedVersion);
            if unknown && self.config.group_protocol == GroupProtocol::Auto {
                tracing::info!(%reason, "the brokers do not know the consumer protocol of groups; using the classic one");
                self.protocol = GroupProtocol::Classic;
            } else {
                tracing::error!(%reason, "the group was left for good; joining it anew");
            }
            self.renew();
            return;
        }
        let silent = lock(&self.pulse).answered.elapsed();
        if !self.owned.is_empty() && silent > self.config.session_timeout {
            tracing::error!(?silent, "the group cannot be reached; giving up all shards");
            self.renew();
        }
    }

    /// Gives up everything and begins as a new member.
    fn renew(&mut self) {
        let all: Vec<ShardId> = self.owned.iter().copied().collect();
        self.abandon();
        self.lose(all);
        match join(&self.config, self.protocol, &self.commands) {
            Ok((group, pulse)) => {
                let old = std::mem::replace(&mut self.group, group);
                self.pulse = pulse;
                // Leaving may take as long as the brokers are away.
                aside(move || drop(old));
                let topics = std::mem::take(&mut self.topics);
                report(self.subscribe(topics, false), "topics were not subscribed to");
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "the group cannot be joined; trying again"
            ),
        }
    }

    /// From here on what the group takes back is given at once.
    fn abandon(&mut self) {
        self.group.context().leaving.store(true, Ordering::Relaxed);
        for revoking in self.revoking.drain(..) {
            report(
                give(&self.group, &revoking.places),
                "partitions were not given back",
            );
        }
    }

    fn subscribe(&mut self, names: Vec<String>, grown: bool) -> Result<(), KafkaError> {
        if names != self.topics {
            if names.is_empty() {
                self.group.unsubscribe();
            } else {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.group.subscribe(&names)?;
            }
            self.topics = names;
        }
        if grown {
            // Only a look at all topics makes the group look for new partitions.
            let (group, patience) = (Arc::downgrade(&self.group), self.config.request_timeout);
            aside(move || {
                if let Some(group) = group.upgrade() {
                    let looked = group.fetch_metadata(None, patience).map(drop);
                    report(looked, "new partitions are noticed later");
                }
            });
        }
        Ok(())
    }

    fn lose(&mut self, shards: Vec<ShardId>) {
        for shard in &shards {
            self.owned.remove(shard);
        }
        self.say(PlacementEvent::Lost, shards);
    }

    fn say(&self, event: impl FnOnce(Vec<ShardId>) -> PlacementEvent, shards: Vec<ShardId>) {
        if !shards.is_empty() {
            // Nobody listens any more: the placement is being dropped.
            let _ = self.events.send(event(shards));
        }
    }

    fn shards(&self, places: &[Place]) -> Vec<ShardId> {
        let shard = |(name, partition): &Place| {
            let partition = u32::try_from(*partition).ok()?;
            Some(ShardId::new(self.names.pipeline(name)?, Partition(partition)))
        };
        places.iter().filter_map(shard).collect()
    }
}

fn lock(pulse: &Mutex<Pulse>) -> std::sync::MutexGuard<'_, Pulse> {
    pulse.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A new member, and the pulse of its coordinator.
fn join(
    config: &KafkaConfig,
    protocol: GroupProtocol,
    commands: &Sender<Command>,
) -> Result<(Arc<Group>, Arc<Mutex<Pulse>>), KafkaError> {
    let mut group = Group::from_config_and_context(&config.group(protocol), Hearing::default())?;
    let commands = commands.clone();
    // An error says that the member has ended.
    group.set_nonempty_callback(move || drop(commands.send(Command::Stir)));
    let group = Arc::new(group);
    let pulse = Arc::new(Mutex::new(Pulse {
        answered: Instant::now(),
        place: None,
    }));
    let (watched, beat, every) = (
        Arc::downgrade(&group),
        Arc::downgrade(&pulse),
        config.session_timeout / 3,
    );
    std::thread::Builder::new()
        .name("kafka-pulse".to_owned())
        .spawn(move || feel(&watched, &beat, every))
        .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    Ok((group, pulse))
}

/// Asks the coordinator now and then, as long as the member is there.
fn feel(group: &Weak<Group>, pulse: &Weak<Mutex<Pulse>>, every: Duration) {
    loop {
        let begun = Instant::now();
        let (Some(group), Some(pulse)) = (group.upgrade(), pulse.upgrade()) else {
            return;
        };
        let place = lock(&pulse).place.clone();
        if let Some((name, partition)) = place {
            let mut list = TopicPartitionList::with_capacity(1);
            list.add_partition(&name, partition)
                .set_offset(Offset::Invalid)
                .ok();
            if group.committed_offsets(list, every).is_ok() {
                lock(&pulse).answered = begun;
            }
        }
        drop((group, pulse));
        std::thread::sleep(every.saturating_sub(begun.elapsed()));
    }
}

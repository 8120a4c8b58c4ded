//! Placement by a consumer group: the partitions that the group gives to this node are the shards that live here.

mod context;
mod member;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::Sender;
use std::sync::{Mutex as SyncMutex, PoisonError};

use async_trait::async_trait;
use scheduler_core::id::{PipelineId, ShardId};
use scheduler_core::port::log::Topic;
use scheduler_core::port::placement::{Placement, PlacementError, PlacementEvent};
use tokio::sync::{Mutex, mpsc, oneshot};

use self::member::{Command, Member};
use crate::config::KafkaConfig;
use crate::error::{OpenError, Problem};
use crate::log::name::TopicNames;

/// Placement by the consumer group that has the cluster's name. See the [front page](crate).
///
/// Dropping it leaves the group without waiting for that; [`leave`](Self::leave) waits.
pub struct KafkaPlacement {
    names: TopicNames,
    commands: Sender<Command>,
    events: Mutex<mpsc::UnboundedReceiver<PlacementEvent>>,
    /// How many partitions each topic had when it was last said.
    partitions: SyncMutex<BTreeMap<PipelineId, u32>>,
}

impl fmt::Debug for KafkaPlacement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaPlacement")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl KafkaPlacement {
    /// Makes this node a member of the group, as soon as it has been told of topics. The brokers need not be there yet.
    pub fn open(config: KafkaConfig) -> Result<Self, OpenError> {
        let config = config.checked()?;
        let names = TopicNames::new(&config.cluster);
        let (commands, inbox) = std::sync::mpsc::channel();
        let (events, receiver) = mpsc::unbounded_channel();
        let member =
            Member::open(config, names.clone(), commands.clone(), events).map_err(OpenError::Client)?;
        std::thread::Builder::new()
            .name("kafka-placement".to_owned())
            .spawn(move || member.run(&inbox))
            .map_err(OpenError::Thread)?;
        Ok(Self {
            names,
            commands,
            events: Mutex::new(receiver),
            partitions: SyncMutex::default(),
        })
    }

    /// Leaves the group, so that others get this node's shards at once. What was not released before is given away as it is.
    pub async fn leave(&self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave(Some(done))).is_ok() {
            // An error says that the member has ended already.
            let _ = left.await;
        }
    }

    fn tell(&self, command: Command) -> Result<(), PlacementError> {
        self.commands.send(command).map_err(|_| ended())
    }
}

fn ended() -> PlacementError {
    PlacementError(Box::new(Problem("the group was left".to_owned())))
}

#[async_trait]
impl Placement for KafkaPlacement {
    async fn set_topics(&self, topics: Vec<Topic>) -> Result<(), PlacementError> {
        let mut names: Vec<String> = topics.iter().map(|topic| self.names.of(topic)).collect();
        names.sort_unstable();
        names.dedup();
        let new: BTreeMap<PipelineId, u32> = topics
            .iter()
            .map(|topic| (topic.pipeline, topic.partitions))
            .collect();
        let grown = {
            let mut old = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            let grown = new
                .iter()
                .any(|(pipeline, count)| old.get(pipeline).is_some_and(|before| before < count));
            *old = new;
            grown
        };
        let (done, answer) = oneshot::channel();
        self.tell(Command::Topics { names, grown, done })?;
        answer
            .await
            .map_err(|_| ended())?
            .map_err(|error| PlacementError(error.into()))
    }

    async fn next(&self) -> Result<PlacementEvent, PlacementError> {
        self.events.lock().await.recv().await.ok_or_else(ended)
    }

    async fn released(&self, shards: &[ShardId]) -> Result<(), PlacementError> {
        self.tell(Command::Released(shards.to_vec()))
    }
}

impl Drop for KafkaPlacement {
    fn drop(&mut self) {
        // An error says that the member has ended already.
        let _ = self.commands.send(Command::Leave(None));
    }
}

//! Placement for a node that is alone: every shard lives here.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::port::log::Topic;
use scheduler_core::port::placement::{Placement, PlacementError, PlacementEvent};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

/// Every shard of every topic lives on this node.
#[derive(Debug)]
pub struct AllHere {
    partitions: Mutex<BTreeMap<PipelineId, u32>>,
    send: mpsc::UnboundedSender<PlacementEvent>,
    events: AsyncMutex<mpsc::UnboundedReceiver<PlacementEvent>>,
}

impl Default for AllHere {
    fn default() -> Self {
        // At most one event for each change of the topics.
        let (send, events) = mpsc::unbounded_channel();
        Self {
            partitions: Mutex::default(),
            send,
            events: AsyncMutex::new(events),
        }
    }
}

#[async_trait]
impl Placement for AllHere {
    async fn set_topics(&self, topics: Vec<Topic>) -> Result<(), PlacementError> {
        let mut known = self
            .partitions
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let shards = |pipeline: PipelineId, from: u32, to: u32| {
            (from..to).map(move |partition| ShardId::new(pipeline, Partition(partition)))
        };
        let wanted: BTreeMap<_, _> = topics
            .iter()
            .map(|topic| (topic.pipeline, topic.partitions))
            .collect();
        let gone = known
            .iter()
            .filter(|(pipeline, _)| !wanted.contains_key(pipeline));
        let revoked: Vec<_> = gone
            .flat_map(|(pipeline, partitions)| shards(*pipeline, 0, *partitions))
            .collect();
        let assigned: Vec<_> = wanted
            .iter()
            .flat_map(|(pipeline, partitions)| {
                shards(
                    *pipeline,
                    known.get(pipeline).copied().unwrap_or_default(),
                    *partitions,
                )
            })
            .collect();
        *known = wanted;
        // The receiver lives as long as we do.
        if !revoked.is_empty() {
            let _ = self.send.send(PlacementEvent::Revoked(revoked));
        }
        if !assigned.is_empty() {
            let _ = self.send.send(PlacementEvent::Assigned(assigned));
        }
        Ok(())
    }

    async fn next(&self) -> Result<PlacementEvent, PlacementError> {
        self.events
            .lock()
            .await
            .recv()
            .await
            .ok_or_else(|| PlacementError("placement has ended".into()))
    }

    async fn released(&self, _shards: &[ShardId]) -> Result<(), PlacementError> {
        Ok(())
    }
}

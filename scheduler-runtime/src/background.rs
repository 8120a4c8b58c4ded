//! What a node does by itself. None of it holds the node, which would never be dropped then.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;

use scheduler_core::id::{Partition, PipelineId, ShardId};
use scheduler_core::port::placement::PlacementEvent;
use tracing::{error, warn};

use crate::actor::{Mailbox, Message};
use crate::node::{Inner, Node};
use crate::retry::until_done;

/// Brings shards up where placement says so, and lets them go.
pub(crate) fn follow_placement(node: &Node) -> impl Future<Output = ()> + Send + use<> {
    let (placement, inner) = (node.inner.placement.clone(), Arc::downgrade(&node.inner));
    async move {
        while let Ok(event) = until_done("following placement", || placement.next()).await {
            match event {
                PlacementEvent::Assigned(shards) => {
                    for (mailbox, partitions) in by_pipeline(&inner, &shards) {
                        mailbox.tell(Message::Assign(partitions)).await;
                    }
                }
                PlacementEvent::Revoked(shards) => {
                    for (mailbox, partitions) in by_pipeline(&inner, &shards) {
                        mailbox
                            .ask(|released| Message::Revoke(partitions, released))
                            .await;
                    }
                    let released = until_done("releasing shards", || placement.released(&shards)).await;
                    if let Err(problem) = released {
                        error!(
                            error = &problem as &dyn Error,
                            "placement does not know what was released"
                        );
                    }
                }
                PlacementEvent::Lost(shards) => {
                    for (mailbox, partitions) in by_pipeline(&inner, &shards) {
                        mailbox.tell(Message::Lose(partitions)).await;
                    }
                }
            }
        }
    }
}

/// The actors of those of the shards' pipelines that are served here.
fn by_pipeline(inner: &Weak<Inner>, shards: &[ShardId]) -> Vec<(Mailbox, Vec<Partition>)> {
    let Some(inner) = inner.upgrade() else {
        return Vec::new();
    };
    let mut grouped: BTreeMap<PipelineId, Vec<Partition>> = BTreeMap::new();
    for shard in shards {
        grouped.entry(shard.pipeline).or_default().push(shard.partition);
    }
    let served = |(pipeline, partitions)| {
        let served = inner.directory.by_id(pipeline)?;
        Some((served.mailbox.clone(), partitions))
    };
    grouped.into_iter().filter_map(served).collect()
}

/// How often the store is told to forget what has expired.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);

/// Has the store forget what has expired.
pub(crate) fn expire(node: &Node) -> impl Future<Output = ()> + Send + use<> {
    let (store, clock) = (node.inner.store.clone(), node.inner.clock);
    async move {
        loop {
            tokio::time::sleep(EXPIRE_EVERY).await;
            loop {
                match store.expire(clock.now()).await {
                    Ok(true) => tokio::task::yield_now().await,
                    Ok(false) => break,
                    Err(problem) => {
                        warn!(
                            error = &problem as &dyn Error,
                            "expired results are not forgotten"
                        );
                        break;
                    }
                }
            }
        }
    }
}

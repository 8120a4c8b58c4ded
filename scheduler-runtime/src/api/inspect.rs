//! Shards looked at: audits and recordings.

use async_trait::async_trait;
use bytes::Bytes;
use scheduler_core::id::{Offset, Partition, ShardId};
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::gateway::{ApiError, Caller, NewPipeline};
use scheduler_core::port::inspect::{Audit, Inspect, Plan, Recording};
use scheduler_core::shard::{Account, Found};
use tokio::sync::mpsc;

use super::LocalNode;
use super::error;
use crate::actor::{Mark, Message};
use crate::directory::Served;

/// Parked tasks that are counted at once.
const PAGE: usize = 1_000;
/// How often an audit begins anew because its shard has saved something meanwhile.
const MOST_TRIES: usize = 50;
/// Pieces of a recording that its reader may be behind: one for each turn of the pipeline.
const PIECES: usize = 1_024;
/// The longest recording.
const MOST_BYTES: usize = 1 << 30;

impl LocalNode {
    async fn accounts(&self, served: &Served) -> Result<Vec<(Partition, Account, Mark)>, ApiError> {
        let accounts = served.mailbox.ask(Message::Account).await;
        accounts.ok_or_else(|| error::unavailable("the pipeline is going away"))
    }

    /// How many tasks of a shard the store has parked and the shard does not have in memory.
    async fn parked(&self, served: &Served, shard: ShardId) -> Result<u64, ApiError> {
        let (mut parked, mut before) = (0, Offset(u64::MAX));
        loop {
            let page = self.inner.store.parked_tasks(shard, before, PAGE).await;
            let page = page.map_err(error::of_store)?;
            let Some(last) = page.last() else {
                return Ok(parked);
            };
            before = last.offset;
            let offsets = page.iter().map(|task| task.offset).collect();
            let found = served
                .mailbox
                .ask(|reply| Message::Find(shard.partition, offsets, reply))
                .await
                .ok_or_else(|| error::unavailable("the pipeline is going away"))?;
            parked += found.iter().filter(|found| **found == Found::Elsewhere).count() as u64;
        }
    }
}

#[async_trait]
impl Inspect for LocalNode {
    async fn plan(&self, caller: &Caller, application: &Name, new: NewPipeline) -> Result<Plan, ApiError> {
        self.plan_pipeline(caller, application, new).await
    }

    async fn audit(&self, path: &PipelinePath) -> Result<Vec<Audit>, ApiError> {
        let served = self.served(path)?;
        let mut audits: Vec<Audit> = Vec::new();
        for _ in 0..MOST_TRIES {
            for (partition, account, mark) in self.accounts(&served).await? {
                if audits.iter().any(|audit| audit.partition == partition) {
                    continue;
                }
                let parked = self
                    .parked(&served, ShardId::new(served.pipeline.id, partition))
                    .await?;
                // What was counted in the store belongs to what the shard counted if nothing has changed in between.
                let after = self.accounts(&served).await?;
                if after.contains(&(partition, account, mark)) {
                    audits.push(Audit {
                        partition,
                        account,
                        parked,
                    });
                }
            }
            let here = self.accounts(&served).await?;
            if here
                .iter()
                .all(|(partition, ..)| audits.iter().any(|audit| audit.partition == *partition))
            {
                audits.sort_by_key(|audit| audit.partition);
                return Ok(audits);
            }
        }
        Err(error::unavailable("the pipeline is too busy to be audited now"))
    }

    async fn record(
        &self,
        path: &PipelinePath,
        partition: Partition,
        limit: usize,
    ) -> Result<Recording, ApiError> {
        let served = self.served(path)?;
        if !(1..=MOST_BYTES).contains(&limit) {
            return Err(ApiError::invalid(
                "bytes",
                format!("is {limit}; must be 1 to {MOST_BYTES}"),
            ));
        }
        let (send, receive) = mpsc::channel::<Bytes>(PIECES);
        let begun = served
            .mailbox
            .ask(|reply| Message::Record(partition, limit, send, reply))
            .await;
        if begun != Some(true) {
            return Err(ApiError::Conflict(format!(
                "partition {} is not active on this node",
                partition.0
            )));
        }
        let pieces = futures::stream::unfold(receive, async |mut receive| {
            let piece = receive.recv().await?;
            Some((piece, receive))
        });
        Ok(Box::pin(pieces))
    }
}

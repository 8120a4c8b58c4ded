//! Workers: served by this node if it has any of their shards, by an owner through it if not.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{
    ApiError, HeldLease, Lease, Location, Report, Verdict, WorkerApi, WorkerHello, WorkerSession,
};
use tokio::time::Instant;

use super::super::owner::{LONGEST_CHANGE, LONGEST_READ, Place, in_time};
use super::ClusterNode;
use crate::api::{check_partition, error};

/// How long this node's own shards are asked alone.
const HEAD_START: Duration = Duration::from_millis(20);
/// Before owners are asked again after all of them had nothing to say.
const PAUSE: Duration = Duration::from_millis(200);
/// A node answers a poll within its patience, and this.
const WAY_BACK: Duration = Duration::from_secs(2);
/// Longest wait of a poll.
const LONGEST_POLL: Duration = Duration::from_mins(1);
/// How often an owner for a session is looked for.
const MOST_LOOKS: u32 = 20;

#[async_trait]
impl WorkerApi for ClusterNode {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        let served = self.served(path).await?;
        let (mut wrong, mut last) = (None, None);
        for _ in 0..MOST_LOOKS {
            let asked_at = Instant::now();
            let places = self.places(&served, wrong).await?;
            let mut nodes: BTreeMap<_, Place> =
                places.into_values().map(|place| (place.node, place)).collect();
            let place = match nodes.remove(&self.inner.world.node) {
                Some(here) => Some(here),
                None if nodes.is_empty() => None,
                None => {
                    // The same worker goes to the same node, and many to all of them.
                    let turn = hello.worker.0 % nodes.len() as u128;
                    nodes.into_values().nth(usize::try_from(turn).unwrap_or_default())
                }
            };
            if let Some(place) = place {
                match in_time(LONGEST_READ, place.gateway.attach(path, hello.clone())).await {
                    Err(problem @ (ApiError::Elsewhere(_) | ApiError::Unavailable { .. })) => {
                        last = Some(problem);
                    }
                    answer => return answer,
                }
            }
            if self.inner.is_stopping() {
                break;
            }
            wrong = Some(asked_at);
            tokio::time::sleep(PAUSE / 2).await;
        }
        Err(last.map_or_else(
            || error::unavailable("no node has a shard of the pipeline now; open the session again"),
            super::super::owner::for_clients,
        ))
    }

    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        let served = self.served(path).await?;
        if self.inner.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let deadline = Instant::now() + patience.min(LONGEST_POLL);
        let mut wrong = None;
        loop {
            let asked_at = Instant::now();
            let rest = deadline.saturating_duration_since(asked_at);
            let places = self.places(&served, wrong).await?;
            let nodes: BTreeMap<_, Place> = places.into_values().map(|place| (place.node, place)).collect();
            let me = self.inner.world.node;
            let has_own = nodes.contains_key(&me);
            let mut asked: FuturesUnordered<_> = nodes
                .into_values()
                .map(|place| async move {
                    if has_own && place.node != me {
                        tokio::time::sleep(HEAD_START.min(rest)).await;
                    }
                    let leases = place.gateway.poll(path, worker, limit, rest);
                    let leases = in_time(rest.saturating_add(WAY_BACK), leases).await;
                    (place, leases)
                })
                .collect();
            while let Some((_, leases)) = asked.next().await {
                let Ok(leases) = leases else { continue };
                if leases.is_empty() {
                    continue;
                }
                // Those who still wait take nothing once they are dropped; what came in the same moment goes back.
                while let Some(Some((place, Ok(surplus)))) = asked.next().now_or_never() {
                    give_back(&place, path, worker, surplus).await;
                }
                return Ok(leases);
            }
            if Instant::now() + PAUSE > deadline {
                return Ok(Vec::new());
            }
            wrong = Some(asked_at);
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        let served = self.served(path).await?;
        let mut items = Vec::with_capacity(reports.len());
        for (index, report) in reports.into_iter().enumerate() {
            let field = || format!("reports[{index}].lease.partition");
            check_partition(&served, report.lease.partition, field)?;
            items.push((report.lease.partition, report));
        }
        self.ask_owners(&served, items, LONGEST_CHANGE, |owner, reports| async move {
            owner.report(path, worker, reports).await
        })
        .await
    }

    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        let served = self.served(path).await?;
        let mut items = Vec::with_capacity(leases.len());
        for (index, lease) in leases.into_iter().enumerate() {
            check_partition(&served, lease.partition, || format!("refs[{index}].partition"))?;
            items.push((lease.partition, lease));
        }
        self.ask_owners(&served, items, LONGEST_READ, |owner, leases| async move {
            owner.extend(path, worker, leases).await
        })
        .await
    }

    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        let served = self.served(path).await?;
        // Nodes tell a worker what leaves them while it has a session with them: what it hears of who owns what must not be older than those.
        let places = self.places(&served, Some(Instant::now())).await?;
        let address_of = |partition| {
            let place = places.get(&partition)?;
            let member = self.cluster().members.get(place.node)?;
            Some(member.address)
        };
        let locate = |partition| Location {
            partition,
            address: address_of(partition).unwrap_or_default(),
        };
        Ok((0..served.pipeline.partitions)
            .map(Partition)
            .map(locate)
            .collect())
    }
}

/// Returns leases that nobody will take.
async fn give_back(place: &Place, path: &PipelinePath, worker: WorkerId, leases: Vec<Lease>) {
    let returned = |lease: Lease| Report {
        lease: HeldLease {
            partition: lease.partition,
            offset: lease.offset,
            token: lease.token,
        },
        outcome: AttemptOutcome::Returned,
    };
    let reports: Vec<_> = leases.into_iter().map(returned).collect();
    if !reports.is_empty()
        && let Err(problem) = in_time(LONGEST_READ, place.gateway.report(path, worker, reports)).await
    {
        tracing::warn!(
            error = &problem as &dyn std::error::Error,
            "leases that nobody took run out by themselves"
        );
    }
}

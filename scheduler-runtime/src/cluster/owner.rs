//! Asking the owners of shards, also while shards move.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use scheduler_core::id::{NodeId, Partition, ShardId};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::gateway::ApiError;
use tokio::time::Instant;
use tracing::debug;

use super::gateway::ClusterNode;
use crate::api::error;
use crate::directory::Served;

/// How long a shard is looked for while it is on its way from one node to another.
const TRANSIT: Duration = Duration::from_secs(2);
/// Between two questions about the same.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for the answer to a question.
pub(super) const LONGEST_READ: Duration = Duration::from_secs(2);
/// Longest wait for a change to be made; a little more than a node waits for its store.
pub(super) const LONGEST_CHANGE: Duration = Duration::from_secs(20);
/// Longest wait until another node has taken in a change; then it is left to look by itself.
const LONGEST_NOTICE: Duration = Duration::from_secs(1);

/// Somebody who can be asked.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) gateway: Arc<dyn PeerGateway>,
}

impl ClusterNode {
    pub(super) fn here(&self) -> Place {
        Place {
            node: self.inner.world.node,
            gateway: self.local.clone(),
        }
    }

    /// A node that is known to live.
    pub(super) fn place_of(&self, node: NodeId) -> Option<Place> {
        if node == self.inner.world.node {
            return None;
        }
        let member = self.cluster().members.get(node)?;
        let gateway = self.cluster().peers.at(&member.address);
        Some(Place { node, gateway })
    }

    /// Where each partition of a pipeline lives, of those that live anywhere. What was known at `wrong` or before is not believed.
    pub(super) async fn places(
        &self,
        served: &Served,
        wrong: Option<Instant>,
    ) -> Result<BTreeMap<Partition, Place>, ApiError> {
        let (id, count) = (served.pipeline.id, served.pipeline.partitions);
        let here = self.inner.hosting.partitions(id, count);
        let mut places: BTreeMap<_, _> = here
            .into_iter()
            .map(|partition| (partition, self.here()))
            .collect();
        if places.len() == count as usize {
            return Ok(places);
        }
        let owners = self.cluster().routes.owners(id, wrong).await;
        let owners = owners.map_err(error::of_store)?;
        let is_strange = |node: &NodeId| self.cluster().members.get(*node).is_none();
        if let Some(wrong) = wrong
            && owners.values().any(is_strange)
        {
            self.cluster().members.look_again(wrong).await;
        }
        let mut known: BTreeMap<NodeId, Option<Place>> = BTreeMap::new();
        for partition in (0..count).map(Partition) {
            if let Some(node) = owners.get(&partition)
                && !places.contains_key(&partition)
                && let Some(place) = known.entry(*node).or_insert_with(|| self.place_of(*node))
            {
                places.insert(partition, place.clone());
            }
        }
        Ok(places)
    }

    /// The nodes that own shards of a pipeline, each once, this one among them in any case.
    pub(super) async fn everybody(
        &self,
        served: &Served,
        wrong: Option<Instant>,
    ) -> Result<Vec<Place>, ApiError> {
        let places = self.places(served, wrong).await?;
        let mut nodes: BTreeMap<NodeId, Place> =
            places.into_values().map(|place| (place.node, place)).collect();
        nodes.insert(self.inner.world.node, self.here());
        Ok(nodes.into_values().collect())
    }

    /// Asks the owner of a shard, again for a while if it is somebody else now or does not answer.
    pub(super) async fn ask_owner<T, F>(
        &self,
        served: &Served,
        shard: ShardId,
        longest: Duration,
        ask: impl Fn(Arc<dyn PeerGateway>) -> F,
    ) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let answers = self
            .ask_owners(served, vec![(shard.partition, ())], longest, |gateway, _| {
                let answer = ask(gateway);
                async move { Ok(vec![answer.await?]) }
            })
            .await?;
        let answer = answers.into_iter().next();
        answer.ok_or_else(|| error::unavailable("a node answered nothing; ask again"))
    }

    /// Asks the owners of several shards, each for what is its: one answer for each item, in their order.
    pub(super) async fn ask_owners<I: Clone, T, F>(
        &self,
        served: &Served,
        items: Vec<(Partition, I)>,
        longest: Duration,
        ask: impl Fn(Arc<dyn PeerGateway>, Vec<I>) -> F,
    ) -> Result<Vec<T>, ApiError>
    where
        F: Future<Output = Result<Vec<T>, ApiError>>,
    {
        let deadline = Instant::now() + TRANSIT;
        let mut answers: Vec<Option<T>> = items.iter().map(|_| None).collect();
        let mut wrong = None;
        loop {
            let asked_at = Instant::now();
            let places = self.places(served, wrong).await;
            let mut failed = None;
            match places {
                Ok(places) => {
                    let mut groups: BTreeMap<NodeId, (Place, Vec<usize>)> = BTreeMap::new();
                    for (index, (partition, _)) in items.iter().enumerate() {
                        if answers[index].is_some() {
                            continue;
                        }
                        match places.get(partition) {
                            Some(place) => {
                                let group = groups.entry(place.node);
                                group.or_insert_with(|| (place.clone(), Vec::new())).1.push(index);
                            }
                            None => failed = Some(in_transit(served.pipeline.id, *partition)),
                        }
                    }
                    let asked = groups.into_values().map(|(place, indices)| {
                        let asked = indices.iter().map(|index| items[*index].1.clone()).collect();
                        let answer = ask(place.gateway, asked);
                        async move { (indices, in_time(longest, answer).await) }
                    });
                    for (indices, answer) in futures::future::join_all(asked).await {
                        match answer {
                            Ok(some) => {
                                for (index, answer) in indices.into_iter().zip(some) {
                                    answers[index] = Some(answer);
                                }
                            }
                            Err(problem @ (ApiError::Elsewhere(_) | ApiError::Unavailable { .. })) => {
                                failed = Some(problem);
                            }
                            Err(problem) => return Err(problem),
                        }
                    }
                }
                Err(problem) => failed = Some(problem),
            }
            if answers.iter().all(Option::is_some) {
                return Ok(answers.into_iter().flatten().collect());
            }
            let failed =
                failed.unwrap_or_else(|| error::unavailable("a node answered too little; ask again"));
            if Instant::now() + PAUSE > deadline {
                return Err(for_clients(failed));
            }
            wrong = Some(asked_at);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks everybody who owns shards of a pipeline about theirs, until all its shards that live anywhere have been asked for.
    pub(super) async fn ask_everybody<T, F>(
        &self,
        served: &Served,
        longest: Duration,
        ask: impl Fn(Arc<dyn PeerGateway>) -> F,
    ) -> Result<Vec<T>, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        let deadline = Instant::now() + TRANSIT;
        let mut answers: BTreeMap<NodeId, T> = BTreeMap::new();
        let mut wrong = None;
        loop {
            let asked_at = Instant::now();
            let everybody = self.everybody(served, wrong).await?;
            let rest = everybody
                .into_iter()
                .filter(|place| !answers.contains_key(&place.node));
            let asked = rest.map(|place| {
                let answer = ask(place.gateway);
                async move { (place.node, in_time(longest, answer).await) }
            });
            let mut failed = None;
            for (node, answer) in futures::future::join_all(asked).await {
                match answer {
                    Ok(answer) => drop(answers.insert(node, answer)),
                    Err(problem @ (ApiError::Elsewhere(_) | ApiError::Unavailable { .. })) => {
                        failed = Some(problem);
                    }
                    Err(problem) => return Err(problem),
                }
            }
            let Some(failed) = failed else {
                return Ok(answers.into_values().collect());
            };
            if Instant::now() + PAUSE > deadline {
                return Err(for_clients(failed));
            }
            wrong = Some(asked_at);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The pipeline of a path; one that is not known may have been made on another node just now.
    pub(super) async fn served(&self, path: &PipelinePath) -> Result<Arc<Served>, ApiError> {
        if let Ok(served) = self.local.served(path) {
            return Ok(served);
        }
        self.look_again().await;
        self.local.served(path)
    }

    /// Takes in what other nodes have changed just now. What is known stays known if that fails.
    pub(super) async fn look_again(&self) {
        self.inner.look_again().await;
    }

    /// Has the other nodes take in what was changed here, so that whoever is answered finds it so on any of them. One that does not
    /// answer finds out by itself.
    pub(super) async fn tell_others(&self) {
        let members = self.cluster().members.all();
        let others = members.keys().filter_map(|node| self.place_of(*node));
        let told = others.map(|place| async move {
            if let Err(problem) = in_time(LONGEST_NOTICE, place.gateway.refresh()).await {
                debug!(node = ?place.node, error = &problem as &dyn Error, "a change is noticed later");
            }
        });
        futures::future::join_all(told).await;
    }
}

/// An answer, if it comes in time.
pub(super) async fn in_time<T>(
    longest: Duration,
    answer: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let late = || Err(error::unavailable("a node of the cluster does not answer"));
    tokio::time::timeout(longest, answer)
        .await
        .unwrap_or_else(|_| late())
}

fn in_transit(pipeline: scheduler_core::id::PipelineId, partition: Partition) -> ApiError {
    ApiError::Elsewhere(ShardId::new(pipeline, partition))
}

/// Clients do not choose nodes.
pub(super) fn for_clients(problem: ApiError) -> ApiError {
    match problem {
        ApiError::Elsewhere(shard) => error::unavailable(format!(
            "shard {shard} is on its way from one node to another; ask again"
        )),
        problem => problem,
    }
}

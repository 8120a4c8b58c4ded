//! Watching tasks, wherever they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{BoxStream, SelectAll};
use scheduler_core::id::{NodeId, TaskId};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::{ApiError, TaskApi as _, TaskStream, TaskView};
use tokio::time::Instant;

use super::super::owner::{LONGEST_READ, Place, in_time};
use super::ClusterNode;
use crate::api::LocalNode;
use crate::directory::Served;

/// How often those who watch a pipeline look for nodes that have come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while one of those watched says nothing any more.
const LOOK_SOON: Duration = Duration::from_millis(200);
/// A node that goes down ends its streams first, and is gone so much later at most.
const LONGEST_END: Duration = Duration::from_secs(15);

/// One who watches a task, through all its owners.
struct One {
    node: ClusterNode,
    served: Arc<Served>,
    id: TaskId,
    views: TaskStream,
    last: Option<TaskView>,
}

impl One {
    async fn next(&mut self) -> Option<TaskView> {
        loop {
            if self.last.as_ref().is_some_and(|last| last.state.is_final()) {
                return None;
            }
            match self.views.next().await {
                Some(view) if self.last.as_ref() == Some(&view) => (),
                Some(view) => {
                    self.last = Some(view.clone());
                    return Some(view);
                }
                // Its shard has left that node.
                None => {
                    let path = &self.served.pipeline.path;
                    let served = self.node.local.served(path).ok()?;
                    self.views = self.node.watch_at_owner(&served, self.id).await.ok()?;
                    // A node that ends every stream at once is not to be asked without end.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// What comes from one node of those watched; `None` at its end.
type Told = (NodeId, Option<TaskView>);

/// One who watches all tasks of a pipeline.
struct All {
    node: ClusterNode,
    served: Arc<Served>,
    told: SelectAll<BoxStream<'static, Told>>,
    watched: BTreeSet<NodeId>,
    /// Nodes whose streams have ended, and until when they have to be gone as well.
    ended: BTreeMap<NodeId, Instant>,
    look_at: Instant,
}

impl All {
    async fn next(&mut self) -> Option<TaskView> {
        loop {
            tokio::select! {
                Some((node, view)) = self.told.next(), if !self.told.is_empty() => {
                    if view.is_some() {
                        return view;
                    }
                    if node == self.node.inner.world.node {
                        return None;
                    }
                    let now = Instant::now();
                    self.ended.insert(node, now + LONGEST_END);
                    self.look_at = now;
                }
                () = tokio::time::sleep_until(self.look_at) => {
                    self.node.local.served(&self.served.pipeline.path).ok()?;
                    self.look().await?;
                    self.look_at = Instant::now() + if self.ended.is_empty() { LOOK_EVERY } else { LOOK_SOON };
                }
            }
        }
    }

    /// Looks for nodes that have come and gone. `None` if one is there whose stream has ended: what happened on it meanwhile was
    /// missed, and whoever watches has to begin anew.
    async fn look(&mut self) -> Option<()> {
        if !self.ended.is_empty() {
            self.node.cluster().members.look_again(Instant::now()).await;
        }
        let (cluster, served) = (self.node.clone(), self.served.clone());
        for (node, deadline) in std::mem::take(&mut self.ended) {
            if !cluster.cluster().is_member(node) {
                self.watched.remove(&node);
            } else if deadline <= Instant::now() || cluster.can_be_watched(&served.pipeline.path, node).await
            {
                return None;
            } else {
                self.ended.insert(node, deadline);
            }
        }
        self.watch_new().await;
        Some(())
    }

    /// Watches nodes that are not watched yet.
    async fn watch_new(&mut self) {
        let members = self.node.cluster().members.all();
        let new = members
            .keys()
            .filter(|node| !self.watched.contains(*node))
            .filter_map(|node| self.node.place_of(*node));
        let path = &self.served.pipeline.path;
        let asked = new.map(|place| async move {
            let views = in_time(LONGEST_READ, place.gateway.watch(path, None)).await;
            (place, views)
        });
        for (place, views) in futures::future::join_all(asked).await {
            // One that does not answer is tried again at the next look.
            if let Ok(views) = views {
                self.add(&place, views);
            }
        }
    }

    fn add(&mut self, place: &Place, views: TaskStream) {
        let node = place.node;
        self.watched.insert(node);
        let views = views.map(move |view| (node, Some(view)));
        let end = futures::stream::iter([(node, None)]);
        self.told.push(views.chain(end).boxed());
    }
}

impl ClusterNode {
    /// Whether a node answers who wants to watch it; one that goes down does not.
    async fn can_be_watched(&self, path: &PipelinePath, node: NodeId) -> bool {
        let Some(place) = self.place_of(node) else {
            return false;
        };
        in_time(LONGEST_READ, place.gateway.watch(path, None))
            .await
            .is_ok()
    }

    async fn watch_at_owner(&self, served: &Served, id: TaskId) -> Result<TaskStream, ApiError> {
        let path = &served.pipeline.path;
        let shard = LocalNode::shard_of(served, id)?;
        self.ask_owner(served, shard, LONGEST_READ, |owner| async move {
            owner.watch(path, Some(id)).await
        })
        .await
    }

    pub(super) async fn watch_one(&self, served: Arc<Served>, id: TaskId) -> Result<TaskStream, ApiError> {
        let views = self.watch_at_owner(&served, id).await?;
        let one = One {
            node: self.clone(),
            served,
            id,
            views,
            last: None,
        };
        Ok(Box::pin(futures::stream::unfold(one, async |mut one| {
            let view = one.next().await?;
            Some((view, one))
        })))
    }

    pub(super) async fn watch_all(&self, served: Arc<Served>) -> Result<TaskStream, ApiError> {
        let here = self.local.watch(&served.pipeline.path, None).await?;
        let mut all = All {
            node: self.clone(),
            served,
            told: SelectAll::new(),
            watched: BTreeSet::new(),
            ended: BTreeMap::new(),
            look_at: Instant::now() + LOOK_EVERY,
        };
        all.add(&self.here(), here);
        all.watch_new().await;
        Ok(Box::pin(futures::stream::unfold(all, async |mut all| {
            let view = all.next().await?;
            Some((view, all))
        })))
    }
}

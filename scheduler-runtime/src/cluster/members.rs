//! Which nodes there are.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use scheduler_core::id::NodeId;
use scheduler_core::port::cluster::{ClusterStore, Member};
use scheduler_core::port::store::StoreError;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// Looks at the members that are asked for out of turn are at least so far apart.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
/// How long a node that goes down tries to say so; the others find out by themselves.
const LONGEST_GOODBYE: Duration = Duration::from_secs(2);

/// This node, and those that it has heard of.
#[derive(Debug)]
pub(crate) struct Members {
    store: Arc<dyn ClusterStore>,
    pub(crate) me: Member,
    heartbeat: Duration,
    ttl: Duration,
    known: RwLock<Arc<BTreeMap<NodeId, Member>>>,
    /// When the members were last asked for. Held while they are, so that they are asked for once.
    asked_at: Mutex<Option<Instant>>,
}

impl Members {
    pub(crate) fn new(store: Arc<dyn ClusterStore>, me: Member, heartbeat: Duration, ttl: Duration) -> Self {
        Self {
            store,
            me,
            heartbeat,
            ttl,
            known: RwLock::default(),
            asked_at: Mutex::default(),
        }
    }

    pub(crate) fn all(&self) -> Arc<BTreeMap<NodeId, Member>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<Member> {
        self.all().get(&node).cloned()
    }

    /// Says that this node lives, and hears who else does.
    pub(crate) async fn beat(&self) -> Result<(), StoreError> {
        let mut asked_at = self.asked_at.lock().await;
        *asked_at = Some(Instant::now());
        let members = self.store.beat(&self.me, self.ttl).await?;
        let members = members.into_iter().map(|member| (member.id, member)).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(members);
        Ok(())
    }

    /// Hears anew who lives, if that was not done since `seen`. One look serves all who ask meanwhile.
    pub(crate) async fn look_again(&self, seen: Instant) {
        {
            let asked_at = self.asked_at.lock().await;
            if let Some(asked_at) = *asked_at {
                if asked_at > seen {
                    return;
                }
                tokio::time::sleep_until(asked_at + LEAST_PAUSE).await;
            }
        }
        if let Err(problem) = self.beat().await {
            warn!(
                error = &problem as &dyn Error,
                "the members of the cluster are not known anew"
            );
        }
    }

    pub(crate) async fn leave(&self) {
        let left = self.store.leave(self.me.id);
        match tokio::time::timeout(LONGEST_GOODBYE, left).await {
            Ok(Ok(())) => (),
            Ok(Err(problem)) => {
                warn!(error = &problem as &dyn Error, "the node has left without a word");
            }
            Err(_) => warn!("the node has left without a word: the store does not answer"),
        }
    }
}

/// Says that the node lives, as long as it does.
pub(crate) async fn beat(members: Arc<Members>) {
    let mut ticks = tokio::time::interval(members.heartbeat);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Who was known is known until the store is back: nobody is taken for gone because it is away.
        if let Err(problem) = members.beat().await {
            warn!(
                error = &problem as &dyn Error,
                "the node cannot say that it lives"
            );
        }
    }
}

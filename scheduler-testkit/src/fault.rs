//! Ports that fail when a test says so: for a while, for ever, after they did what was asked, or not before they are let.
//!
//! ```
//! use std::sync::Arc;
//! use scheduler_core::port::log::{LogError, TaskLog};
//! use scheduler_testkit::contract::{shard, topic};
//! use scheduler_testkit::fault::{Fault, Faults, FaultyLog};
//! use scheduler_testkit::memory::MemoryLog;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), LogError> {
//! let faults = Faults::default();
//! let log = FaultyLog::new(Arc::new(MemoryLog::new()), faults.clone());
//! log.ensure(&topic(1, 1)).await?;
//!
//! faults.set("bounds", Fault::Unavailable);
//! assert!(matches!(log.bounds(shard(1, 0)).await, Err(LogError::Unavailable(_))));
//! faults.heal("bounds");
//! assert!(log.bounds(shard(1, 0)).await.is_ok());
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use scheduler_core::checkpoint::Checkpoint;
use scheduler_core::id::{Epoch, NodeId, Offset, PipelineId, ShardId, TaskId, Tenure};
use scheduler_core::key::SeenKey;
use scheduler_core::name::Name;
use scheduler_core::outcome::{DeadTask, FinishedTask, ParkedTask};
use scheduler_core::port::BoxError;
use scheduler_core::port::catalog::{
    ApiKey, ApiKeyHash, Application, Catalog, CatalogError, CatalogSnapshot, Client, Pipeline,
};
use scheduler_core::port::log::{Bounds, LogError, LogReader, ReadLimit, TaskLog, Topic};
use scheduler_core::port::store::{Archive, CheckpointStore, Claimed, Saved, StoreError};
use scheduler_core::task::{Record, TaskSpec};
use scheduler_core::time::Timestamp;
use tokio::sync::watch;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It fails, and may succeed later.
    Unavailable,
    /// It does what was asked, and fails all the same.
    DoneUnavailable,
    /// It fails for good: what is stored is damaged.
    Damaged,
    /// It panics.
    Panics,
    /// It waits until it is healed, then does what was asked.
    Held,
    /// It does what was asked, and waits until it is healed before it answers: what it says may be old by then.
    DoneHeld,
}

/// Which calls fail, by the names of their methods, and how often each was begun. Clones share it.
#[derive(Clone, Debug)]
pub struct Faults(watch::Sender<Table>);

#[derive(Debug, Default)]
struct Table {
    faults: BTreeMap<&'static str, Fault>,
    calls: BTreeMap<&'static str, u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self(watch::Sender::new(Table::default()))
    }
}

impl Faults {
    /// From now on `call` goes wrong like this.
    pub fn set(&self, call: &'static str, fault: Fault) {
        self.0.send_modify(|table| {
            table.faults.insert(call, fault);
        });
    }

    /// From now on `call` does what it should; held ones go on.
    pub fn heal(&self, call: &'static str) {
        self.0.send_modify(|table| {
            table.faults.remove(call);
        });
    }

    /// How often `call` was begun.
    pub fn calls(&self, call: &'static str) -> u64 {
        self.0.borrow().calls.get(call).copied().unwrap_or_default()
    }

    /// Waits until `call` was begun `count` times in all.
    pub async fn called(&self, call: &'static str, count: u64) {
        let is_there = |table: &Table| table.calls.get(call).is_some_and(|calls| *calls >= count);
        let waited = self.0.subscribe().wait_for(is_there).await.map(drop);
        waited.unwrap_or_else(|_| unreachable!("we hold the sender"));
    }

    /// Waits until `fault` is not what is wrong with `call`, and answers what is.
    async fn unless(&self, call: &'static str, fault: Fault) -> Option<Fault> {
        let is_let = |table: &Table| table.faults.get(call) != Some(&fault);
        let mut table = self.0.subscribe();
        match table.wait_for(is_let).await {
            Ok(table) => table.faults.get(call).copied(),
            Err(_) => None,
        }
    }

    async fn around<T, E: Injected>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.0
            .send_modify(|table| *table.calls.entry(call).or_default() += 1);
        match self.unless(call, Fault::Held).await {
            None | Some(Fault::Held) => work.await,
            Some(Fault::DoneHeld) => {
                let answer = work.await;
                self.unless(call, Fault::DoneHeld).await;
                answer
            }
            Some(Fault::Unavailable) => Err(E::unavailable(call)),
            Some(Fault::DoneUnavailable) => {
                work.await?;
                Err(E::unavailable(call))
            }
            Some(Fault::Damaged) => Err(E::damaged(call)),
            Some(Fault::Panics) => panic!("{call} panics because the test says so"),
        }
    }
}

trait Injected {
    fn unavailable(call: &str) -> Self;
    fn damaged(call: &str) -> Self;
}

fn told(call: &str) -> BoxError {
    format!("{call} fails because the test says so").into()
}

impl Injected for LogError {
    fn unavailable(call: &str) -> Self {
        Self::Unavailable(told(call))
    }

    fn damaged(call: &str) -> Self {
        Self::Damaged {
            shard: ShardId::new(PipelineId(0), scheduler_core::id::Partition(0)),
            offset: Offset::ZERO,
            source: told(call),
        }
    }
}

impl Injected for StoreError {
    fn unavailable(call: &str) -> Self {
        Self::Unavailable(told(call))
    }

    fn damaged(call: &str) -> Self {
        Self::Damaged {
            place: call.into(),
            source: told(call),
        }
    }
}

impl Injected for CatalogError {
    fn unavailable(call: &str) -> Self {
        Self::Store(StoreError::unavailable(call))
    }

    fn damaged(call: &str) -> Self {
        Self::Store(StoreError::damaged(call))
    }
}

/// A log with faults. Its readers' `next` is a call of its own name.
#[derive(Clone, Debug)]
pub struct FaultyLog {
    inner: Arc<dyn TaskLog>,
    faults: Faults,
}

impl FaultyLog {
    /// `inner`, but for `faults`.
    pub fn new(inner: Arc<dyn TaskLog>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl TaskLog for FaultyLog {
    async fn ensure(&self, topic: &Topic) -> Result<(), LogError> {
        self.faults.around("ensure", self.inner.ensure(topic)).await
    }

    async fn check(&self, topic: &Topic) -> Result<(), LogError> {
        self.faults.around("check", self.inner.check(topic)).await
    }

    async fn delete(&self, pipeline: PipelineId) -> Result<(), LogError> {
        self.faults.around("delete", self.inner.delete(pipeline)).await
    }

    async fn append(&self, shard: ShardId, tasks: Vec<TaskSpec>) -> Result<Vec<Offset>, LogError> {
        self.faults
            .around("append", self.inner.append(shard, tasks))
            .await
    }

    async fn bounds(&self, shard: ShardId) -> Result<Bounds, LogError> {
        self.faults.around("bounds", self.inner.bounds(shard)).await
    }

    async fn read(&self, shard: ShardId, from: Offset) -> Result<Box<dyn LogReader>, LogError> {
        let inner = self.faults.around("read", self.inner.read(shard, from)).await?;
        Ok(Box::new(FaultyReader {
            inner,
            faults: self.faults.clone(),
        }))
    }

    async fn truncate(&self, shard: ShardId, before: Offset) -> Result<(), LogError> {
        self.faults
            .around("truncate", self.inner.truncate(shard, before))
            .await
    }
}

#[derive(Debug)]
struct FaultyReader {
    inner: Box<dyn LogReader>,
    faults: Faults,
}

#[async_trait]
impl LogReader for FaultyReader {
    async fn next(&mut self, limit: ReadLimit, into: &mut Vec<Record>) -> Result<(), LogError> {
        self.faults.around("next", self.inner.next(limit, into)).await
    }
}

/// A store with faults.
#[derive(Clone, Debug)]
pub struct FaultyStore<S> {
    inner: S,
    faults: Faults,
}

impl<S> FaultyStore<S> {
    /// `inner`, but for `faults`.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<S: CheckpointStore> CheckpointStore for FaultyStore<S> {
    async fn claim(&self, shard: ShardId, node: NodeId) -> Result<Claimed, StoreError> {
        self.faults.around("claim", self.inner.claim(shard, node)).await
    }

    async fn save(&self, checkpoints: &[&Checkpoint]) -> Result<Vec<Saved>, StoreError> {
        self.faults.around("save", self.inner.save(checkpoints)).await
    }

    async fn release(&self, tenure: Tenure) -> Result<(), StoreError> {
        self.faults.around("release", self.inner.release(tenure)).await
    }

    async fn epoch(&self, shard: ShardId) -> Result<Epoch, StoreError> {
        self.faults.around("epoch", self.inner.epoch(shard)).await
    }

    async fn parked(
        &self,
        shard: ShardId,
        until: Timestamp,
        after: Option<(Timestamp, Offset)>,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        self.faults
            .around("parked", self.inner.parked(shard, until, after, limit))
            .await
    }

    async fn keys(&self, shard: ShardId, limit: usize) -> Result<Vec<SeenKey>, StoreError> {
        self.faults.around("keys", self.inner.keys(shard, limit)).await
    }

    async fn parked_task(&self, id: TaskId) -> Result<Option<ParkedTask>, StoreError> {
        self.faults
            .around("parked_task", self.inner.parked_task(id))
            .await
    }

    async fn forget(&self, pipeline: PipelineId) -> Result<(), StoreError> {
        self.faults.around("forget", self.inner.forget(pipeline)).await
    }
}

#[async_trait]
impl<S: Archive> Archive for FaultyStore<S> {
    async fn result(&self, id: TaskId) -> Result<Option<FinishedTask>, StoreError> {
        self.faults.around("result", self.inner.result(id)).await
    }

    async fn results(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<FinishedTask>, StoreError> {
        self.faults
            .around("results", self.inner.results(shard, before, limit))
            .await
    }

    async fn dead_task(&self, id: TaskId) -> Result<Option<DeadTask>, StoreError> {
        self.faults.around("dead_task", self.inner.dead_task(id)).await
    }

    async fn dead_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<DeadTask>, StoreError> {
        self.faults
            .around("dead_tasks", self.inner.dead_tasks(shard, before, limit))
            .await
    }

    async fn dead_count(&self, pipeline: PipelineId) -> Result<u64, StoreError> {
        self.faults
            .around("dead_count", self.inner.dead_count(pipeline))
            .await
    }

    async fn parked_tasks(
        &self,
        shard: ShardId,
        before: Offset,
        limit: usize,
    ) -> Result<Vec<ParkedTask>, StoreError> {
        self.faults
            .around("parked_tasks", self.inner.parked_tasks(shard, before, limit))
            .await
    }

    async fn purge(&self, ids: &[TaskId]) -> Result<u64, StoreError> {
        self.faults.around("purge", self.inner.purge(ids)).await
    }

    async fn expire(&self, now: Timestamp) -> Result<bool, StoreError> {
        self.faults.around("expire", self.inner.expire(now)).await
    }
}

#[async_trait]
impl<S: Catalog> Catalog for FaultyStore<S> {
    async fn snapshot(&self) -> Result<CatalogSnapshot, CatalogError> {
        self.faults.around("snapshot", self.inner.snapshot()).await
    }

    async fn add_client(&self, client: Client) -> Result<(), CatalogError> {
        self.faults
            .around("add_client", self.inner.add_client(client))
            .await
    }

    async fn add_key(&self, key: ApiKey) -> Result<(), CatalogError> {
        self.faults.around("add_key", self.inner.add_key(key)).await
    }

    async fn remove_key(&self, hash: ApiKeyHash) -> Result<(), CatalogError> {
        self.faults
            .around("remove_key", self.inner.remove_key(hash))
            .await
    }

    async fn add_application(&self, application: Application) -> Result<(), CatalogError> {
        self.faults
            .around("add_application", self.inner.add_application(application))
            .await
    }

    async fn remove_application(&self, client: &Name, application: &Name) -> Result<(), CatalogError> {
        self.faults
            .around(
                "remove_application",
                self.inner.remove_application(client, application),
            )
            .await
    }

    async fn add_pipeline(&self, pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        self.faults
            .around("add_pipeline", self.inner.add_pipeline(pipeline))
            .await
    }

    async fn update_pipeline(&self, pipeline: Pipeline) -> Result<Pipeline, CatalogError> {
        self.faults
            .around("update_pipeline", self.inner.update_pipeline(pipeline))
            .await
    }

    async fn remove_pipeline(&self, id: PipelineId) -> Result<(), CatalogError> {
        self.faults
            .around("remove_pipeline", self.inner.remove_pipeline(id))
            .await
    }
}

//! Producers and workers, as a user has them: the gRPC client and the SDK.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, StreamExt as _};
use scheduler_grpc::client::{
    Client, ClientConfig, ClientError, CreatePipelineRequest, NewTask, PipelineRef, Submitter,
};
use scheduler_sdk::{Attempt, TaskService, Worker};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::seen::Seen;
use crate::work::Source;
use crate::{Arguments, work};

/// Batches of a producer that are under way.
const IN_FLIGHT: usize = 4;

/// The pipeline of a test, and those who come to it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) arguments: Arguments,
    pub(crate) pipeline: PipelineRef,
}

/// What was acknowledged, and when the last of it was, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    count: AtomicU64,
    last: AtomicU64,
}

impl Acknowledged {
    fn add(&self, ids: Result<Vec<String>, ClientError>) -> Result<(), ClientError> {
        self.count.fetch_add(ids?.len() as u64, Ordering::Relaxed);
        let at = u64::try_from(work::now().as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(at, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

impl Place {
    /// A pipeline of that name; there may be one already.
    pub(crate) async fn open(arguments: &Arguments, name: &str) -> anyhow::Result<Self> {
        let client = Client::connect(&arguments.server, ClientConfig::default()).await?;
        let pipeline = PipelineRef {
            application: "load".to_owned(),
            pipeline: name.to_owned(),
        };
        if client.pipeline(&pipeline).await.is_err() {
            let new = CreatePipelineRequest {
                application: pipeline.application.clone(),
                name: name.to_owned(),
                partitions: Some(arguments.partitions),
                ..CreatePipelineRequest::default()
            };
            client.create_pipeline(new).await.context("the pipeline")?;
        }
        Ok(Self {
            arguments: arguments.clone(),
            pipeline,
        })
    }

    /// Deletes the pipeline with all it holds.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        let client = Client::connect(&self.arguments.server, ClientConfig::default()).await?;
        Ok(client.delete_pipeline(&self.pipeline).await?)
    }

    /// Producers that submit what the source has.
    pub(crate) fn produce(
        &self,
        source: &Arc<Source>,
        acknowledged: &Arc<Acknowledged>,
    ) -> JoinSet<anyhow::Result<()>> {
        let mut producers = JoinSet::new();
        for _ in 0..self.arguments.producers {
            let (place, source, acknowledged) = (self.clone(), Arc::clone(source), Arc::clone(acknowledged));
            producers.spawn(async move {
                let client = Client::connect(&place.arguments.server, ClientConfig::default()).await?;
                let submitter = client.submitter(&place.pipeline).await?;
                submit(submitter, place.arguments.batch, &source, &acknowledged).await
            });
        }
        producers
    }

    /// Workers that only look at their tasks; they end, with everything settled, when the token is cancelled.
    pub(crate) fn work(
        &self,
        seen: &Arc<Seen>,
        stop: &CancellationToken,
    ) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
        let mut workers = JoinSet::new();
        for number in 0..self.arguments.workers {
            let (seen, stop) = (Arc::clone(seen), stop.clone());
            let service = tower::service_fn(move |attempt: Attempt| {
                seen.see(&attempt.params);
                ready(Ok(Bytes::new()))
            });
            let worker = Worker::builder()
                .server(&self.arguments.server)
                .application(&self.pipeline.application)
                .pipeline(&self.pipeline.pipeline)
                .name(format!("load-{number}"))
                .concurrency(self.arguments.concurrency)
                .service(TaskService::new(service))
                .build()?
                .with_shutdown(async move { stop.cancelled().await });
            workers.spawn(worker.run().map(|ended| Ok(ended?)));
        }
        Ok(workers)
    }
}

/// Keeps some batches under way.
async fn submit(
    mut submitter: Submitter,
    batch: u64,
    source: &Source,
    acknowledged: &Acknowledged,
) -> anyhow::Result<()> {
    let mut under_way = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(ids) = under_way.next() => acknowledged.add(ids)?,
            tasks = source.take(batch), if under_way.len() < IN_FLIGHT => {
                if tasks.is_empty() {
                    break;
                }
                let tasks = tasks.into_iter().map(|task| NewTask::json(task.params())).collect();
                under_way.push_back(submitter.send(tasks).await?.ids());
            }
        }
    }
    while let Some(ids) = under_way.next().await {
        acknowledged.add(ids)?;
    }
    Ok(())
}

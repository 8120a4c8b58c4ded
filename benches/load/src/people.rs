//! Producers and workers, as a user has them: the gRPC client and the SDK.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures::stream::FuturesOrdered;
use futures::{FutureExt as _, StreamExt as _};
use http::Uri;
use scheduler_grpc::client::{
    Client, ClientConfig, ClientError, CreatePipelineRequest, NewTask, PipelineRef, Submitter,
};
use scheduler_sdk::{Attempt, TaskService, Worker};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::seen::Seen;
use crate::work;
use crate::work::Source;

/// Batches of a producer that are under way.
const IN_FLIGHT: usize = 4;

/// Who comes, and what they bring.
#[derive(Clone, Debug, Args)]
pub struct Load {
    /// Where the server has its gRPC; of a cluster several with commas between them, among which producers and workers share themselves out.
    #[arg(
        long = "server",
        default_value = "http://127.0.0.1:50050",
        value_delimiter = ',',
        required = false
    )]
    pub servers: Vec<String>,
    /// Where the server has its HTTP.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub http: String,
    /// Connections of `http`.
    #[arg(long, default_value_t = 64)]
    pub connections: u32,
    /// Partitions of the pipeline.
    #[arg(long, default_value_t = 4)]
    pub partitions: u32,
    /// Producers, each with a connection of its own.
    #[arg(long, default_value_t = 8)]
    pub producers: u32,
    /// Workers, each with a connection of its own.
    #[arg(long, default_value_t = 8)]
    pub workers: u32,
    /// Tasks that a worker has at once.
    #[arg(long, default_value_t = 500)]
    pub concurrency: u32,
    /// Tasks of a batch, at most.
    #[arg(long, default_value_t = 500)]
    pub batch: u64,
    /// Bytes of a task's params, 32 to 262,176.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(32..=262_176))]
    pub params: u32,
}

impl Load {
    /// The server of a producer or worker.
    fn server(&self, number: u32) -> &str {
        let at = number as usize % self.servers.len().max(1);
        self.servers.get(at).map_or("", String::as_str)
    }
}

/// The pipeline of a test, and those who come to it.
#[derive(Clone, Debug)]
pub struct Place {
    pub(crate) load: Load,
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
    pub async fn open(load: &Load, name: &str) -> anyhow::Result<Self> {
        let client = Client::connect(load.server(0), ClientConfig::default()).await?;
        let pipeline = PipelineRef {
            application: "load".to_owned(),
            pipeline: name.to_owned(),
        };
        if client.pipeline(&pipeline).await.is_err() {
            let new = CreatePipelineRequest {
                application: pipeline.application.clone(),
                name: name.to_owned(),
                partitions: Some(load.partitions),
                ..CreatePipelineRequest::default()
            };
            client.create_pipeline(new).await.context("the pipeline")?;
        }
        Ok(Self {
            load: load.clone(),
            pipeline,
        })
    }

    /// Deletes the pipeline with all it holds.
    pub async fn close(&self) -> anyhow::Result<()> {
        let client = Client::connect(self.load.server(0), ClientConfig::default()).await?;
        Ok(client.delete_pipeline(&self.pipeline).await?)
    }

    /// Where it takes tasks over HTTP.
    pub(crate) fn http(&self) -> anyhow::Result<Uri> {
        let PipelineRef {
            application,
            pipeline,
        } = &self.pipeline;
        let address = format!(
            "{}/api/applications/{application}/pipelines/{pipeline}",
            self.load.http
        );
        address
            .parse()
            .with_context(|| format!("--http {} is no address", self.load.http))
    }

    /// Producers that submit what the source has.
    pub(crate) fn produce(
        &self,
        source: &Arc<Source>,
        acknowledged: &Arc<Acknowledged>,
    ) -> JoinSet<anyhow::Result<()>> {
        let mut producers = JoinSet::new();
        for number in 0..self.load.producers {
            let (place, source, acknowledged) = (self.clone(), Arc::clone(source), Arc::clone(acknowledged));
            producers.spawn(async move {
                let client = Client::connect(place.load.server(number), ClientConfig::default()).await?;
                let submitter = client.submitter(&place.pipeline).await?;
                submit(submitter, &place.load, &source, &acknowledged).await
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
        for number in 0..self.load.workers {
            let (seen, stop) = (Arc::clone(seen), stop.clone());
            let service = tower::service_fn(move |attempt: Attempt| {
                seen.see(&attempt.params);
                ready(Ok(Bytes::new()))
            });
            let worker = Worker::builder()
                .server(self.load.server(number))
                .application(&self.pipeline.application)
                .pipeline(&self.pipeline.pipeline)
                .name(format!("load-{number}"))
                .concurrency(self.load.concurrency)
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
    load: &Load,
    source: &Source,
    acknowledged: &Acknowledged,
) -> anyhow::Result<()> {
    let mut under_way = FuturesOrdered::new();
    loop {
        tokio::select! {
            biased;
            Some(ids) = under_way.next() => acknowledged.add(ids)?,
            tasks = source.take(load.batch), if under_way.len() < IN_FLIGHT => {
                if tasks.is_empty() {
                    break;
                }
                let tasks = tasks.into_iter().map(|task| NewTask::json(task.params(load.params as usize))).collect();
                under_way.push_back(submitter.send(tasks).await?.ids());
            }
        }
    }
    while let Some(ids) = under_way.next().await {
        acknowledged.add(ids)?;
    }
    Ok(())
}

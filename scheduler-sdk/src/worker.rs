use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, Service};

use crate::driver;
use crate::handler::{self, Attempt, TaskService};
use crate::session::SessionConfig;
use crate::status::StatusSender;
use crate::{Context, TaskError, WorkerStatus};

/// A worker: takes tasks of one pipeline from the scheduler, runs them, and reports how they ended.
///
/// To work on several pipelines, run several workers together, as in `tokio::try_join!(a.run(), b.run())`.
pub struct Worker {
    pub(crate) session: SessionConfig,
    pub(crate) servers: Vec<Endpoint>,
    pub(crate) authorization: Option<MetadataValue<Ascii>>,
    pub(crate) service: TaskService,
    pub(crate) options: Options,
    pub(crate) shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(crate) status: StatusSender,
}

/// Most tasks that a worker runs at once: as many as a scheduler's node counts for a session.
const MAX_CONCURRENCY: u32 = 100_000;

/// Bounds in time and size that have defaults.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) drain_timeout: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) settle_timeout: Duration,
    pub(crate) min_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) max_output_bytes: usize,
    pub(crate) look_again: Duration,
}

/// What a worker is made of. Required: a server, an application, a pipeline, a handler.
#[must_use]
pub struct WorkerBuilder {
    servers: Vec<String>,
    application: String,
    pipeline: String,
    name: Option<String>,
    api_key: Option<String>,
    concurrency: u32,
    service: Option<TaskService>,
    options: Options,
}

/// A worker that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BuildError {
    /// The method of [`WorkerBuilder`] that was not called, or with a wrong value.
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// Why a worker gave up. Losing its server is no reason: it comes back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The very first session was refused in a way that waiting does not mend.
    #[error("the scheduler refuses this worker: {} ({})", .0.message(), .0.code())]
    Refused(#[source] Box<tonic::Status>),
    /// The worker ended before the scheduler settled these reports; the tasks may run again.
    #[error("ended with {reports} reports that the scheduler has not settled; those tasks may run again")]
    Unsettled {
        /// How many.
        reports: usize,
    },
}

impl Worker {
    /// Begins a worker.
    pub fn builder() -> WorkerBuilder {
        WorkerBuilder {
            servers: Vec::new(),
            application: String::new(),
            pipeline: String::new(),
            name: None,
            api_key: None,
            concurrency: 1,
            service: None,
            options: Options {
                drain_timeout: Duration::from_secs(30),
                cancel_grace: Duration::from_secs(10),
                settle_timeout: Duration::from_secs(10),
                min_backoff: Duration::from_millis(100),
                // Well below the grace of a node (5 s), within which a worker must be back so that its tasks are not run again.
                max_backoff: Duration::from_secs(2),
                max_output_bytes: 1024 * 1024,
                look_again: Duration::from_secs(10),
            },
        }
    }

    /// Drains and ends when this is ready: no more tasks are taken, running ones end, reports are settled.
    #[must_use]
    pub fn with_shutdown(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Box::pin(shutdown);
        self
    }

    /// How the worker fares, for health checks. Reading it costs nothing.
    pub fn status(&self) -> WorkerStatus {
        self.status.subscribe()
    }

    /// Works until the shutdown given by [`Worker::with_shutdown`].
    ///
    /// # Errors
    ///
    /// See [`RunError`].
    pub async fn run(self) -> Result<(), RunError> {
        driver::run(self).await
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl WorkerBuilder {
    /// The URL of a node, as `http://127.0.0.1:50050`. May be given several times: after a loss of the connection the
    /// next one is tried.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// The application of the pipeline.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.application = name.into();
        self
    }

    /// The pipeline whose tasks to work on.
    pub fn pipeline(mut self, name: impl Into<String>) -> Self {
        self.pipeline = name.into();
        self
    }

    /// The worker's name, for people. Default: the process's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The key of the client that owns the application. Default: none.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Tasks that run at once, at most: 1 to 100,000. Default 1.
    pub fn concurrency(mut self, tasks: u32) -> Self {
        self.concurrency = tasks;
        self
    }

    /// The function that does the work: params in from JSON, output out to JSON.
    ///
    /// An error is an attempt that failed and is tried again; return [`TaskError::permanent`] for what will always
    /// fail. A panic is a failed attempt too.
    pub fn handler<H, In, Out, E, F>(self, handler: H) -> Self
    where
        H: Fn(In, Context) -> F + Clone + Send + Sync + 'static,
        In: DeserializeOwned + Send + 'static,
        Out: Serialize,
        E: Into<TaskError>,
        F: Future<Output = Result<Out, E>> + Send + 'static,
    {
        self.service(handler::service(handler))
    }

    /// Like [`WorkerBuilder::handler`], for bytes in and out.
    pub fn service(mut self, service: TaskService) -> Self {
        self.service = Some(service);
        self
    }

    /// Wraps the handler given before in a tower layer, such as a timeout, a rate limit or tracing.
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: Layer<TaskService>,
        L::Service: Service<Attempt, Response = Bytes> + Clone + Send + Sync + 'static,
        <L::Service as Service<Attempt>>::Error: Into<BoxError>,
        <L::Service as Service<Attempt>>::Future: Send + 'static,
    {
        self.service = self.service.map(|service| {
            let layered = tower::ServiceBuilder::new()
                .map_err(Into::into)
                .service(layer.layer(service));
            BoxCloneSyncService::new(layered)
        });
        self
    }

    /// On shutdown: how long running tasks may go on. Default 30 s.
    pub fn drain_timeout(mut self, time: Duration) -> Self {
        self.options.drain_timeout = time;
        self
    }

    /// After its cancellation: how long a handler may take to end before it is dropped. Default 10 s.
    pub fn cancel_grace(mut self, time: Duration) -> Self {
        self.options.cancel_grace = time;
        self
    }

    /// On shutdown, when all tasks have ended: how long to wait until the scheduler has settled the reports. Default
    /// 10 s, a little more than its checkpoint interval.
    pub fn settle_timeout(mut self, time: Duration) -> Self {
        self.options.settle_timeout = time;
        self
    }

    /// Waiting times between tries to connect: doubled from the first to the second, with jitter. Default 100 ms to
    /// 2 s: less than a node's grace for workers to come back.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.options.min_backoff = first;
        self.options.max_backoff = longest;
        self
    }

    /// Bytes of one task's output, at most; a longer one is a permanent failure. Default 1 MiB.
    pub fn max_output_bytes(mut self, bytes: usize) -> Self {
        self.options.max_output_bytes = bytes;
        self
    }

    /// How often the scheduler is asked which nodes own the pipeline's partitions though nothing says that this has changed: so a worker hears of
    /// partitions that were added. Default 10 s.
    pub fn look_again(mut self, every: Duration) -> Self {
        self.options.look_again = every;
        self
    }

    /// The worker.
    ///
    /// # Errors
    ///
    /// Something required is missing, or a value cannot be used.
    pub fn build(self) -> Result<Worker, BuildError> {
        let required = |field, text: String| {
            let problem = "is missing".to_owned();
            if text.is_empty() {
                Err(BuildError { field, problem })
            } else {
                Ok(text)
            }
        };
        if !(1..=MAX_CONCURRENCY).contains(&self.concurrency) {
            return Err(BuildError {
                field: "concurrency",
                problem: format!("must be 1 to {MAX_CONCURRENCY}"),
            });
        }
        if self.servers.is_empty() {
            return Err(BuildError {
                field: "server",
                problem: "is missing".to_owned(),
            });
        }
        let servers = self
            .servers
            .iter()
            .map(|url| endpoint(url))
            .collect::<Result<_, _>>()?;
        let authorization = self
            .api_key
            .map(|key| format!("Bearer {key}").parse())
            .transpose()
            .map_err(|_| BuildError {
                field: "api_key",
                problem: "may hold visible ASCII characters only".to_owned(),
            })?;
        let missing = || BuildError {
            field: "handler",
            problem: "is missing".to_owned(),
        };
        Ok(Worker {
            session: SessionConfig {
                application: required("application", self.application)?,
                pipeline: required("pipeline", self.pipeline)?,
                worker_id: random_id(),
                name: self
                    .name
                    .unwrap_or_else(|| format!("worker-{}", std::process::id())),
                concurrency: self.concurrency,
                max_unsettled: 100_000,
                max_unsettled_bytes: 64 * 1024 * 1024,
            },
            servers,
            authorization,
            service: self.service.ok_or_else(missing)?,
            options: self.options,
            shutdown: Box::pin(std::future::pending()),
            status: StatusSender::default(),
        })
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("pipeline", &self.pipeline)
            .finish_non_exhaustive()
    }
}

pub(crate) fn endpoint(url: &str) -> Result<Endpoint, BuildError> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| BuildError {
        field: "server",
        problem: format!("`{url}` is no URL ({error}); use one like http://127.0.0.1:50050"),
    })?;
    let problem = match endpoint.uri().scheme_str() {
        Some("http") => None,
        Some("https") => {
            Some("workers speak no TLS; use http://, and a proxy beside the worker where the way needs TLS")
        }
        _ => Some("the scheme is missing or another one; use a URL like http://127.0.0.1:50050"),
    };
    if let Some(problem) = problem {
        return Err(BuildError {
            field: "server",
            problem: format!("`{url}`: {problem}"),
        });
    }
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        // A connection that is cut without a word is noticed.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10)))
}

/// Random bits of the standard library's hash keys, which come from the system and differ in every call.
fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    let (first, second) = id.split_at_mut(8);
    first.copy_from_slice(&RandomState::new().hash_one(std::process::id()).to_le_bytes());
    second.copy_from_slice(
        &RandomState::new()
            .hash_one(std::time::SystemTime::now())
            .to_le_bytes(),
    );
    id
}

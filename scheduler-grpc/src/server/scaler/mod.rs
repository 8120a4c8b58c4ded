//! KEDA's external scaler: how many workers a pipeline needs, by the policy that the local deployer scales by.
//!
//! The metric is the number of workers that the policy wants, and the target is one of it for each worker: so the horizontal autoscaler's
//! sum comes to that number. Bounds and the pause before there are fewer are KEDA's and the autoscaler's own.

mod metadata;
mod paces;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt as _};
use scheduler_core::name::PipelinePath;
use scheduler_core::port::gateway::ApiError;
use scheduler_core::scaling::{Load, ScalingPolicy};
use scheduler_proto::externalscaler as wire;
use scheduler_proto::externalscaler::external_scaler_server::ExternalScaler;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use self::metadata::{Metadata, field};
use self::paces::Paces;
use super::call::{Node, name};
use super::status::{from_api, invalid};

/// What KEDA asks for.
const METRIC: &str = "workers";

#[derive(Clone, Debug)]
pub(crate) struct ScalerRpc {
    node: Node,
    paces: Arc<Paces>,
    streams: Arc<Semaphore>,
}

/// A pipeline whose workers are scaled.
#[derive(Debug)]
struct Scaled {
    path: PipelinePath,
    policy: ScalingPolicy,
}

impl ScalerRpc {
    pub(crate) fn new(node: Node) -> Self {
        let streams = node.config.max_scaler_streams.min(Semaphore::MAX_PERMITS);
        Self {
            node,
            paces: Arc::default(),
            streams: Arc::new(Semaphore::new(streams)),
        }
    }

    async fn admit(
        &self,
        headers: &MetadataMap,
        scaled: Option<&wire::ScaledObjectRef>,
    ) -> Result<Scaled, Status> {
        let scaled = scaled.ok_or_else(|| invalid("scaledObjectRef", "is missing"))?;
        let metadata = Metadata::read(&scaled.scaler_metadata)?;
        let caller = match metadata.api_key {
            Some(key) => {
                let caller = self.node.gateway.authenticate(Some(key)).await;
                caller.map_err(of_key)?
            }
            None if headers.contains_key("authorization") => self.node.admit(headers).await?.caller,
            None => self.node.gateway.authenticate(None).await.map_err(of_key)?,
        };
        let path = PipelinePath {
            client: caller.client,
            application: name(&field("application"), metadata.application)?,
            pipeline: name(&field("pipeline"), metadata.pipeline)?,
        };
        Ok(Scaled {
            path,
            policy: metadata.policy,
        })
    }

    /// How many workers are needed now.
    async fn needed(&self, scaled: &Scaled) -> Result<u32, ApiError> {
        let load = self.node.gateway.load(&scaled.path).await?;
        Ok(scaled.policy.needed(Load {
            waiting: load.waiting(),
            running: load.running,
            service_time: self.paces.observe(&load),
        }))
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let problem = format!(
                "this node has {} streams of scalers already; another node may have room",
                self.node.config.max_scaler_streams
            );
            let later = ErrorDetails::with_retry_info(Some(Duration::from_secs(10)));
            Status::with_error_details(tonic::Code::ResourceExhausted, problem, later)
        })
    }
}

/// The key comes in the metadata, not in a header.
fn of_key(problem: ApiError) -> Status {
    match problem {
        ApiError::Unauthenticated(_) => Status::unauthenticated(format!(
            "{}: is missing or unknown; set it, or apiKeyFromEnv with a variable of the scaled pods",
            field("apiKey")
        )),
        problem => from_api(problem),
    }
}

fn active(needed: u32) -> wire::IsActiveResponse {
    wire::IsActiveResponse { result: needed > 0 }
}

#[tonic::async_trait]
impl ExternalScaler for ScalerRpc {
    type StreamIsActiveStream = BoxStream<'static, Result<wire::IsActiveResponse, Status>>;

    async fn is_active(
        &self,
        request: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<wire::IsActiveResponse>, Status> {
        let scaled = self.admit(request.metadata(), Some(request.get_ref())).await?;
        let needed = self.needed(&scaled).await.map_err(from_api)?;
        Ok(Response::new(active(needed)))
    }

    async fn stream_is_active(
        &self,
        request: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<Self::StreamIsActiveStream>, Status> {
        let scaled = self.admit(request.metadata(), Some(request.get_ref())).await?;
        let permit = self.permit()?;
        // Whatever is wrong now is the call's answer.
        let first = active(self.needed(&scaled).await.map_err(from_api)?);
        let begin = Watched {
            rpc: self.clone(),
            scaled,
            last: first,
            _permit: permit,
        };
        let changes = futures::stream::unfold(Some(begin), |watched| async {
            let mut watched = watched?;
            match watched.change().await {
                Ok(change) => Some((Ok(change), Some(watched))),
                Err(problem) => Some((Err(problem), None)),
            }
        });
        let all = futures::stream::iter([Ok(first)]).chain(changes);
        let stopping = self.node.stopping.clone().cancelled_owned();
        Ok(Response::new(all.take_until(stopping).boxed()))
    }

    async fn get_metric_spec(
        &self,
        request: Request<wire::ScaledObjectRef>,
    ) -> Result<Response<wire::GetMetricSpecResponse>, Status> {
        let scaled = self.admit(request.metadata(), Some(request.get_ref())).await?;
        // A pipeline that is not there is better heard of now than when nothing scales.
        self.node.gateway.load(&scaled.path).await.map_err(from_api)?;
        Ok(Response::new(wire::GetMetricSpecResponse {
            metric_specs: vec![wire::MetricSpec {
                metric_name: METRIC.to_owned(),
                target_size: 1,
                target_size_float: 1.0,
            }],
        }))
    }

    async fn get_metrics(
        &self,
        request: Request<wire::GetMetricsRequest>,
    ) -> Result<Response<wire::GetMetricsResponse>, Status> {
        let wanted = request.get_ref();
        let scaled = self
            .admit(request.metadata(), wanted.scaled_object_ref.as_ref())
            .await?;
        if wanted.metric_name != METRIC {
            return Err(invalid("metricName", &format!("must be {METRIC}")));
        }
        let needed = self.needed(&scaled).await.map_err(from_api)?;
        Ok(Response::new(wire::GetMetricsResponse {
            metric_values: vec![wire::MetricValue {
                metric_name: METRIC.to_owned(),
                metric_value: needed.into(),
                metric_value_float: needed.into(),
            }],
        }))
    }
}

/// A pipeline that somebody watches. It looks only while the last change has been taken, so that nothing gathers.
struct Watched {
    rpc: ScalerRpc,
    scaled: Scaled,
    last: wire::IsActiveResponse,
    _permit: OwnedSemaphorePermit,
}

impl Watched {
    async fn change(&mut self) -> Result<wire::IsActiveResponse, Status> {
        loop {
            tokio::time::sleep(self.rpc.node.config.scaler_interval).await;
            match self.rpc.needed(&self.scaled).await {
                Ok(needed) if active(needed) != self.last => {
                    self.last = active(needed);
                    return Ok(self.last);
                }
                Ok(_) => (),
                // What is not known now has not changed.
                Err(ApiError::Unavailable { problem, .. }) => {
                    tracing::debug!(pipeline = %self.scaled.path, problem, "its load is not known");
                }
                Err(problem) => return Err(from_api(problem)),
            }
        }
    }
}

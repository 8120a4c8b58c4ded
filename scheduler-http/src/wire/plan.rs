//! What would come of a pipeline.

use bytes::Bytes;
use scheduler_core::port::inspect::Plan;
use serde::Serialize;
use utoipa::ToSchema;

use super::pipeline::ReplicasBody;
use super::task::opaque;

/// What creating a pipeline would do; nothing was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub(crate) struct PlanBody {
    /// What its chart would create in the application's namespace, as `Deployment/worker`; empty where charts are no objects.
    objects: Vec<String>,
    /// How many workers it would have; absent if it has no chart.
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<ReplicasBody>,
    /// Its steps and params; absent if its workers know by themselves.
    #[serde(skip_serializing_if = "Bytes::is_empty", serialize_with = "opaque")]
    #[schema(value_type = Option<Object>)]
    definition: Bytes,
}

impl From<Plan> for PlanBody {
    fn from(plan: Plan) -> Self {
        let Plan {
            objects,
            replicas,
            definition,
        } = plan;
        Self {
            objects,
            replicas: replicas.map(|replicas| ReplicasBody {
                min: Some(replicas.min),
                max: Some(replicas.max),
            }),
            definition,
        }
    }
}

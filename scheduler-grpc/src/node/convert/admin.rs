//! Applications and pipelines.

use bytes::Bytes;
use scheduler_core::encoding;
use scheduler_core::id::PipelineId;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::{Application, Deployment, Pipeline, Replicas};
use scheduler_core::port::deploy::{BusyWorker, Rollout, RolloutPhase};
use scheduler_core::port::gateway::{
    Caller, NewDeployment, NewPipeline, PipelineChange, PipelineCounts, PipelineLoad, PipelineView,
};
use scheduler_core::port::log::TopicSettings;
use scheduler_core::time::Timestamp;
use scheduler_proto::api::Counts;
use scheduler_proto::node as wire;

use super::{Decoded, Malformed, caller, name, path, put_path, there};

pub(in crate::node) fn put_application_name(caller: &Caller, application: &Name) -> wire::ApplicationName {
    wire::ApplicationName {
        client: caller.client.to_string(),
        name: application.to_string(),
    }
}

pub(in crate::node) fn application_name(wanted: &wire::ApplicationName) -> Decoded<(Caller, Name)> {
    Ok((caller(&wanted.client)?, name(&wanted.name)?))
}

pub(in crate::node) fn put_application(application: &Application) -> wire::Application {
    wire::Application {
        name: Some(wire::ApplicationName {
            client: application.client.to_string(),
            name: application.name.to_string(),
        }),
        created_at_ms: application.created_at.as_millis(),
    }
}

pub(in crate::node) fn application(application: &wire::Application) -> Decoded<Application> {
    let wanted = there(application.name.as_ref(), "application")?;
    Ok(Application {
        client: name(&wanted.client)?,
        name: name(&wanted.name)?,
        created_at: Timestamp::from_millis(application.created_at_ms),
    })
}

fn put_policy(policy: &PipelinePolicy) -> Bytes {
    let mut out = Vec::new();
    encoding::put_policy(&mut out, policy);
    out.into()
}

fn policy(bytes: Bytes) -> Decoded<PipelinePolicy> {
    encoding::policy(bytes).map_err(|_| Malformed("policy"))
}

fn put_topic(topic: &TopicSettings) -> Bytes {
    let mut out = Vec::new();
    encoding::put_topic_settings(&mut out, topic);
    out.into()
}

fn topic(bytes: Bytes) -> Decoded<TopicSettings> {
    encoding::topic_settings(bytes).map_err(|_| Malformed("topic"))
}

fn put_new_deployment(new: NewDeployment) -> wire::NewDeployment {
    wire::NewDeployment {
        chart: new.chart,
        values: new.values,
        min_replicas: new.min_replicas,
        max_replicas: new.max_replicas,
    }
}

fn new_deployment(new: wire::NewDeployment) -> NewDeployment {
    NewDeployment {
        chart: new.chart,
        values: new.values,
        min_replicas: new.min_replicas,
        max_replicas: new.max_replicas,
    }
}

pub(in crate::node) fn put_new_pipeline(
    caller: &Caller,
    application: &Name,
    new: NewPipeline,
) -> wire::NewPipeline {
    wire::NewPipeline {
        application: Some(put_application_name(caller, application)),
        name: new.name.to_string(),
        deployment: new.deployment.map(put_new_deployment),
        definition: new.definition,
        partitions: new.partitions,
        policy: new.policy.as_ref().map(put_policy),
        topic: new.topic.as_ref().map(put_topic),
    }
}

pub(in crate::node) fn new_pipeline(new: wire::NewPipeline) -> Decoded<(Caller, Name, NewPipeline)> {
    let (caller, application) = application_name(&there(new.application, "application")?)?;
    let new = NewPipeline {
        name: name(&new.name)?,
        deployment: new.deployment.map(new_deployment),
        definition: new.definition,
        partitions: new.partitions,
        topic: new.topic.map(topic).transpose()?,
        policy: new.policy.map(policy).transpose()?,
    };
    Ok((caller, application, new))
}

pub(in crate::node) fn put_change(path: &PipelinePath, change: PipelineChange) -> wire::PipelineChange {
    wire::PipelineChange {
        path: Some(put_path(path)),
        deployment: change.deployment.map(put_new_deployment),
        definition: change.definition,
        policy: change.policy.as_ref().map(put_policy),
        partitions: change.partitions,
        paused: change.paused,
        min_replicas: change.min_replicas,
        max_replicas: change.max_replicas,
    }
}

pub(in crate::node) fn change(change: wire::PipelineChange) -> Decoded<PipelineChange> {
    Ok(PipelineChange {
        deployment: change.deployment.map(new_deployment),
        definition: change.definition,
        policy: change.policy.map(policy).transpose()?,
        partitions: change.partitions,
        paused: change.paused,
        min_replicas: change.min_replicas,
        max_replicas: change.max_replicas,
    })
}

fn put_rollout(rollout: Rollout) -> wire::Rollout {
    let phase = match rollout.phase {
        RolloutPhase::Pending => wire::rollout::Phase::Pending,
        RolloutPhase::Deploying => wire::rollout::Phase::Deploying,
        RolloutPhase::Ready => wire::rollout::Phase::Ready,
        RolloutPhase::Failed => wire::rollout::Phase::Failed,
    };
    wire::Rollout {
        phase: phase.into(),
        wanted: rollout.wanted,
        ready: rollout.ready,
        problem: rollout.problem,
    }
}

fn rollout(rollout: wire::Rollout) -> Rollout {
    Rollout {
        phase: match rollout.phase() {
            wire::rollout::Phase::Pending => RolloutPhase::Pending,
            wire::rollout::Phase::Deploying => RolloutPhase::Deploying,
            wire::rollout::Phase::Ready => RolloutPhase::Ready,
            wire::rollout::Phase::Failed => RolloutPhase::Failed,
        },
        wanted: rollout.wanted,
        ready: rollout.ready,
        problem: rollout.problem,
    }
}

fn put_counts(counts: PipelineCounts) -> Counts {
    Counts {
        backlog: counts.backlog,
        ready: counts.ready,
        delayed: counts.delayed,
        running: counts.running,
        succeeded: counts.succeeded,
        dead: counts.dead,
        cancelled: counts.cancelled,
        workers: counts.workers,
    }
}

fn counts(counts: Counts) -> PipelineCounts {
    PipelineCounts {
        backlog: counts.backlog,
        ready: counts.ready,
        delayed: counts.delayed,
        running: counts.running,
        succeeded: counts.succeeded,
        dead: counts.dead,
        cancelled: counts.cancelled,
        workers: counts.workers,
    }
}

fn put_pipeline(pipeline: Pipeline) -> wire::Pipeline {
    wire::Pipeline {
        id: pipeline.id.0,
        path: Some(put_path(&pipeline.path)),
        version: pipeline.version,
        created_at_ms: pipeline.created_at.as_millis(),
        partitions: pipeline.partitions,
        policy: put_policy(&pipeline.policy),
        paused: pipeline.paused,
        definition: pipeline.definition,
        deployment: pipeline.deployment.map(|deployment| wire::Deployment {
            chart: deployment.chart,
            values: deployment.values,
            min_replicas: deployment.replicas.min,
            max_replicas: deployment.replicas.max,
        }),
        deleting: pipeline.deleting,
        key_partitions: pipeline.key_partitions,
        topic: put_topic(&pipeline.topic),
    }
}

fn pipeline(pipeline: wire::Pipeline) -> Decoded<Pipeline> {
    Ok(Pipeline {
        id: PipelineId(pipeline.id),
        path: path(pipeline.path.as_ref())?,
        version: pipeline.version,
        created_at: Timestamp::from_millis(pipeline.created_at_ms),
        partitions: pipeline.partitions,
        key_partitions: match pipeline.key_partitions {
            0 => pipeline.partitions,
            some => some,
        },
        topic: topic(pipeline.topic)?,
        policy: policy(pipeline.policy)?,
        paused: pipeline.paused,
        definition: pipeline.definition,
        deployment: pipeline.deployment.map(|deployment| Deployment {
            chart: deployment.chart,
            values: deployment.values,
            replicas: Replicas {
                min: deployment.min_replicas,
                max: deployment.max_replicas,
            },
        }),
        deleting: pipeline.deleting,
    })
}

pub(in crate::node) fn put_load(load: PipelineLoad) -> wire::Load {
    wire::Load {
        pipeline: load.pipeline.0,
        paused: load.paused,
        backlog: load.backlog,
        ready: load.ready,
        delayed: load.delayed,
        running: load.running,
        timed: load.timed,
        busy_ms: load.busy_ms,
    }
}

pub(in crate::node) fn load(load: wire::Load) -> PipelineLoad {
    PipelineLoad {
        pipeline: PipelineId(load.pipeline),
        paused: load.paused,
        backlog: load.backlog,
        ready: load.ready,
        delayed: load.delayed,
        running: load.running,
        timed: load.timed,
        busy_ms: load.busy_ms,
    }
}

pub(in crate::node) fn put_busy(busy: Vec<BusyWorker>) -> wire::BusyWorkers {
    let workers = busy
        .into_iter()
        .map(|BusyWorker { name, tasks }| wire::BusyWorker { name, tasks });
    wire::BusyWorkers {
        workers: workers.collect(),
    }
}

pub(in crate::node) fn busy(busy: wire::BusyWorkers) -> Vec<BusyWorker> {
    let workers = busy.workers.into_iter();
    workers
        .map(|wire::BusyWorker { name, tasks }| BusyWorker { name, tasks })
        .collect()
}

pub(in crate::node) fn put_view(view: PipelineView) -> wire::PipelineView {
    wire::PipelineView {
        pipeline: Some(put_pipeline(view.pipeline)),
        rollout: view.rollout.map(put_rollout),
        counts: Some(put_counts(view.counts)),
        problems: view.problems,
    }
}

pub(in crate::node) fn view(view: wire::PipelineView) -> Decoded<PipelineView> {
    Ok(PipelineView {
        pipeline: pipeline(there(view.pipeline, "pipeline")?)?,
        rollout: view.rollout.map(rollout),
        counts: counts(there(view.counts, "counts")?),
        problems: view.problems,
    })
}

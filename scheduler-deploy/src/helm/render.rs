//! From a chart to the objects that it makes: rendered, checked, and written as a chart that only lists them.

use std::path::Path;

use bytes::Bytes;
use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::{ChartFacts, DeployError};
use scheduler_core::port::gateway::NewDeployment;
use scheduler_pipeline::PipelineDefinition;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::HelmConfig;
use super::cli::{Bounds, Helm, HelmError};
use super::manifest::{self, Object};
use super::policy::{self, Place};
use super::source::Sources;
use crate::chart::{self, PIPELINE_LABEL, invalid};

/// What is asked of a chart.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) deployment: &'a NewDeployment,
    pub(super) release: &'a str,
    pub(super) place: Place<'a>,
    /// What the chart is told of the scheduler, and of how many workers there are to be.
    pub(super) told: &'a (dyn Fn(Replicas) -> Value + Sync),
    /// The version of the cluster, if it is known.
    pub(super) kube_version: Option<&'a str>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Rendered {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) objects: Vec<Object>,
    pub(super) facts: ChartFacts,
}

/// Fetches, renders and checks. Nothing of it is left but the answer.
pub(super) async fn render(
    config: &HelmConfig,
    helm: &Helm,
    sources: &Sources,
    asked: Asked<'_>,
) -> Result<Rendered, DeployError> {
    let bundle = sources.fetch(&asked.deployment.chart).await?;
    let directory = scratch(&config.directory)?;
    let chart = directory.path().join("chart");
    let values = directory.path().join("values.json");
    // As it lies there.
    let copied = NewDeployment {
        chart: chart.display().to_string(),
        ..asked.deployment.clone()
    };
    let to = chart.clone();
    let written = blocking(move || {
        std::fs::create_dir(&to)?;
        bundle.write(&to)
    });
    written.await?.map_err(|error| unavailable(&error))?;
    let read = copied.clone();
    let deployment = blocking(move || {
        let bounds = chart::bounds(&read.deployment(None))?;
        Ok::<_, DeployError>(read.deployment(bounds))
    });
    let deployment = deployment.await??;
    let laid = values_of(&deployment, &(asked.told)(deployment.replicas))?;
    let (to, text) = (values.clone(), laid.to_string());
    let written = blocking(move || std::fs::write(to, text));
    written.await?.map_err(|error| unavailable(&error))?;

    let mut arguments = vec!["template".to_owned(), asked.release.to_owned()];
    arguments.push(chart.display().to_string());
    for (flag, value) in [
        ("--namespace", asked.place.namespace),
        ("--values", &values.display().to_string()),
    ] {
        arguments.extend([flag.to_owned(), value.to_owned()]);
    }
    // What a chart brings besides is seen, and refused.
    arguments.push("--include-crds".to_owned());
    if let Some(version) = asked.kube_version {
        arguments.extend(["--kube-version".to_owned(), version.to_owned()]);
    }
    let bounds = Bounds {
        time: config.render_timeout,
        output: config.policy.max_rendered_bytes,
        memory: Some(config.render_memory),
    };
    let rendered = helm
        .alone(&arguments, bounds)
        .await
        .map_err(|error| match error {
            HelmError::Broken(error) => unavailable(&error),
            // Where the copy lies is nobody's business.
            other => {
                let place = directory.path().display().to_string();
                let problem = other.to_string().replace(&format!("{place}/"), "");
                invalid("chart", format!("cannot be rendered: {problem}"))
            }
        })?;
    let (policy, place) = (config.policy.clone(), asked.place);
    let objects = manifest::parse(&rendered, policy.max_objects)?;
    policy::check(&objects, place, &policy)?;
    if objects.is_empty() {
        return Err(invalid("chart", "renders to nothing: no object would be created"));
    }
    let definition = rendered_definition(&objects)?;
    let about = blocking(move || chart::About::read(&deployment, definition)).await??;
    Ok(Rendered {
        name: about.name,
        version: about.version,
        facts: ChartFacts {
            definition: about
                .definition
                .map(|definition| Bytes::from(definition.to_json())),
            replicas: about.replicas,
            objects: objects.iter().map(Object::title).collect(),
        },
        objects,
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, DeployError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| unavailable(&error))
}

/// A directory for one chart, deleted with the value.
pub(super) fn scratch(directory: &Path) -> Result<TempDir, DeployError> {
    let scratch = tempfile::Builder::new().prefix("chart-").tempdir_in(directory);
    scratch.map_err(|error| unavailable(&error))
}

fn unavailable(error: &dyn std::error::Error) -> DeployError {
    DeployError::Unavailable(error.to_string().into())
}

/// The values of the request, with what the scheduler says of itself laid over `global.scheduler`.
fn values_of(deployment: &Deployment, told: &Value) -> Result<Value, DeployError> {
    let mut values = if deployment.values.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(&deployment.values)
            .map_err(|error| invalid("values", format!("must be JSON: {error}")))?
    };
    let Some(map) = values.as_object_mut() else {
        return Err(invalid("values", "must be a JSON object"));
    };
    let global = map.entry("global").or_insert_with(|| json!({}));
    let Some(global) = global.as_object_mut() else {
        return Err(invalid("values.global", "must be a JSON object"));
    };
    global.insert("scheduler".to_owned(), told.clone());
    Ok(values)
}

/// The definition that the chart carries as a labelled `ConfigMap`.
fn rendered_definition(objects: &[Object]) -> Result<Option<PipelineDefinition>, DeployError> {
    let map = objects.iter().find(|object| {
        object.kind() == "ConfigMap" && !object.value["metadata"]["labels"][PIPELINE_LABEL].is_null()
    });
    let Some(map) = map else { return Ok(None) };
    chart::definition_in(&map.title(), &map.value["data"]).map(Some)
}

/// Writes a chart that has these objects and nothing to render.
pub(super) fn write_plain(directory: &Path, rendered: &Rendered) -> std::io::Result<()> {
    let about = Map::from_iter([
        ("apiVersion".to_owned(), "v2".into()),
        ("name".to_owned(), rendered.name.as_str().into()),
        ("version".to_owned(), rendered.version.as_str().into()),
    ]);
    std::fs::create_dir_all(directory.join("templates"))?;
    std::fs::write(directory.join("Chart.yaml"), Value::Object(about).to_string())?;
    std::fs::write(directory.join("objects.yaml"), manifest::write(&rendered.objects))?;
    // What stands in a file is taken as it is: `{{` in it means nothing.
    std::fs::write(
        directory.join("templates/objects.yaml"),
        "{{ .Files.Get \"objects.yaml\" }}\n",
    )
}

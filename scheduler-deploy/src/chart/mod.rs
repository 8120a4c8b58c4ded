//! Reads a Helm chart's directory for what this scheduler needs of it, without Helm.
//!
//! | what | where, the first that is there |
//! | --- | --- |
//! | pipeline definition | `pipeline:` (or `commands:`) in the values; `pipeline.yaml`, `.yml` or `.json` beside `Chart.yaml`; a `ConfigMap` in `templates/` with the label [`PIPELINE_LABEL`] |
//! | bounds on the workers | `replicas` or `replicaCount` in the values: `{min, max}` or one number |
//! | executors | `executors:` in the values, a list of names or `{name, env}`; `executor_*.env` and `pipeline_agent.env`; those that the definition names |
//!
//! Values are the chart's `values.yaml` with the deployment's laid over it as Helm does it: maps merge, everything else replaces,
//! `null` removes.

mod executors;
mod files;
mod pipeline;
mod replicas;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use scheduler_core::port::catalog::{Deployment, Replicas};
use scheduler_core::port::deploy::{ChartFacts, DeployError};
use scheduler_pipeline::PipelineDefinition;
use serde_json::Value;

use files::ChartFiles;

/// The label that marks a `ConfigMap` as the one with the pipeline definition; its value is of no matter.
pub const PIPELINE_LABEL: &str = "workload-scheduler/pipeline";

/// What a chart says, with the values of a deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The chart's name.
    pub name: String,
    /// What its workers run, if it says.
    pub definition: Option<PipelineDefinition>,
    /// How many workers it wants, if it says.
    pub replicas: Option<Replicas>,
    /// The tools beside each worker.
    pub executors: Vec<Executor>,
    /// More of the workers' environment.
    pub agent_environment: BTreeMap<String, String>,
}

/// A tool beside a worker.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Executor {
    /// What pipelines call it.
    pub name: String,
    /// Its environment, without name and port.
    pub environment: BTreeMap<String, String>,
}

impl Chart {
    /// Reads the chart of a deployment. Below `roots` only, if there are any.
    ///
    /// It blocks on the file system; what it reads is bounded.
    ///
    /// # Errors
    ///
    /// [`DeployError::Invalid`] names the field of the request (`chart`, `values`), or the file and the field in it.
    pub fn read(deployment: &Deployment, roots: &[PathBuf]) -> Result<Self, DeployError> {
        let files = ChartFiles::open(&deployment.chart, roots)?;
        let name = chart_name(&files)?;
        let values = values::read(&files, &deployment.values)?;
        let definition = pipeline::find(&files, &values)?;
        let replicas = replicas::find(&values)?;
        let (executors, agent_environment) = executors::find(&values, definition.as_ref())?;
        Ok(Self {
            name,
            definition,
            replicas,
            executors,
            agent_environment,
        })
    }

    /// What the scheduler keeps of it.
    pub fn facts(&self) -> ChartFacts {
        ChartFacts {
            definition: self
                .definition
                .as_ref()
                .map(|definition| Bytes::from(definition.to_json())),
            replicas: self.replicas,
            objects: Vec::new(),
        }
    }
}

/// What the scheduler keeps of a chart that others deploy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) definition: Option<PipelineDefinition>,
    pub(crate) replicas: Option<Replicas>,
}

impl About {
    /// Reads it from the chart's directory, except for a definition that is known already. It blocks on the file system.
    pub(crate) fn read(
        deployment: &Deployment,
        definition: Option<PipelineDefinition>,
    ) -> Result<Self, DeployError> {
        let files = ChartFiles::open(&deployment.chart, &[])?;
        let name = chart_name(&files)?;
        let text = files.read("Chart.yaml")?.unwrap_or_default();
        let version = match &parse_yaml("Chart.yaml", &text)?["version"] {
            Value::String(version) => version.clone(),
            // What helm renders has one, and takes a number for it.
            other => other.to_string(),
        };
        let values = values::read(&files, &deployment.values)?;
        let definition = match definition {
            Some(definition) => Some(definition),
            None => pipeline::find_plain(&files, &values)?,
        };
        Ok(Self {
            name,
            version,
            definition,
            replicas: replicas::find(&values)?,
        })
    }
}

/// How many workers the chart of a deployment wants, if it says. It blocks on the file system.
pub(crate) fn bounds(deployment: &Deployment) -> Result<Option<Replicas>, DeployError> {
    let files = ChartFiles::open(&deployment.chart, &[])?;
    replicas::find(&values::read(&files, &deployment.values)?)
}

/// The definition in the data of a `ConfigMap` that `title` names.
pub(crate) fn definition_in(title: &str, data: &Value) -> Result<PipelineDefinition, DeployError> {
    pipeline::in_data(title, data)
}

fn chart_name(files: &ChartFiles) -> Result<String, DeployError> {
    const FILE: &str = "Chart.yaml";
    let text = files.read(FILE)?.ok_or_else(|| {
        invalid(
            "chart",
            format!("{} has no Chart.yaml: it is no chart", files.root().display()),
        )
    })?;
    let chart = parse_yaml(FILE, &text)?;
    if chart["type"] == "library" {
        return Err(invalid(
            "Chart.yaml: type",
            "must be application; a library chart deploys nothing",
        ));
    }
    match chart["name"].as_str() {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => Err(invalid("Chart.yaml: name", "must be the name of the chart")),
    }
}

pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> DeployError {
    DeployError::Invalid {
        field: field.into(),
        problem: problem.into(),
    }
}

fn parse_yaml(file: &str, text: &str) -> Result<Value, DeployError> {
    serde_norway::from_str(text).map_err(|error| invalid(file, format!("is not YAML: {error}")))
}

/// Whether a path is below one of the roots, or there are none.
pub(crate) fn is_allowed(path: &Path, roots: &[PathBuf]) -> bool {
    roots.is_empty()
        || roots
            .iter()
            .any(|root| root.canonicalize().is_ok_and(|root| path.starts_with(root)))
}

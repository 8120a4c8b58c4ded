//! Where a chart carries its pipeline definition.

use scheduler_core::port::deploy::DeployError;
use scheduler_pipeline::{DefinitionError, PipelineDefinition};
use serde_json::Value;

use super::files::ChartFiles;
use super::{PIPELINE_LABEL, invalid};

/// Names of the file that carries it, and of the key in a `ConfigMap`.
const FILES: [&str; 3] = ["pipeline.yaml", "pipeline.yml", "pipeline.json"];

pub(super) fn find(files: &ChartFiles, values: &Value) -> Result<Option<PipelineDefinition>, DeployError> {
    if !values["pipeline"].is_null() || !values["commands"].is_null() {
        return PipelineDefinition::from_value(values)
            .map(Some)
            .map_err(|error| wrong("values.yaml", &error));
    }
    for name in FILES {
        if let Some(text) = files.read(name)? {
            return parse(name, &text).map(Some);
        }
    }
    for name in files.yaml_files("templates")? {
        if let Some(text) = files.read(&name)?
            && text.contains(PIPELINE_LABEL)
            && let Some(definition) = config_map(&name, &text)?
        {
            return Ok(Some(definition));
        }
    }
    Ok(None)
}

/// JSON is YAML.
fn parse(name: &str, text: &str) -> Result<PipelineDefinition, DeployError> {
    PipelineDefinition::from_yaml(text).map_err(|error| wrong(name, &error))
}

fn wrong(file: &str, error: &DefinitionError) -> DeployError {
    invalid(format!("{file}: {}", error.field), error.message.clone())
}

/// The definition in a template, if it is a labelled `ConfigMap` that can be read without rendering it.
fn config_map(name: &str, text: &str) -> Result<Option<PipelineDefinition>, DeployError> {
    // Helm's way to write our {{param}} in a template is {{`{{param}}`}}.
    let plain = text.replace("{{`", "").replace("`}}", "");
    for document in plain.split("\n---") {
        if !document.contains(PIPELINE_LABEL) {
            continue;
        }
        let document: Value = serde_norway::from_str(document.trim_start_matches("---")).map_err(|error| {
            invalid(
                name,
                format!(
                    "cannot be read without Helm ({error}); put the pipeline into values.yaml or pipeline.yaml"
                ),
            )
        })?;
        if document["kind"] != "ConfigMap" || document["metadata"]["labels"][PIPELINE_LABEL].is_null() {
            continue;
        }
        let data = FILES
            .into_iter()
            .find_map(|file| document["data"][file].as_str().map(|text| (file, text)));
        let Some((file, definition)) = data else {
            return Err(invalid(
                format!("{name}: data"),
                "must have pipeline.yaml or pipeline.json",
            ));
        };
        return parse(&format!("{name}: data.{file}"), definition).map(Some);
    }
    Ok(None)
}

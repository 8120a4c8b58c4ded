//! Where a chart carries its pipeline definition.

use scheduler_core::port::deploy::DeployError;
use scheduler_pipeline::{DefinitionError, PipelineDefinition};
use serde_json::Value;

use super::files::ChartFiles;
use super::{PIPELINE_LABEL, invalid};

/// Names of the file that carries it, and of the key in a `ConfigMap`.
const FILES: [&str; 3] = ["pipeline.yaml", "pipeline.yml", "pipeline.json"];

pub(super) fn find(files: &ChartFiles, values: &Value) -> Result<Option<PipelineDefinition>, DeployError> {
    if let Some(plain) = find_plain(files, values)? {
        return Ok(Some(plain));
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

/// The definition where it needs no rendering: in the values, or in a file of its own.
pub(super) fn find_plain(
    files: &ChartFiles,
    values: &Value,
) -> Result<Option<PipelineDefinition>, DeployError> {
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
        return in_data(name, &document["data"]).map(Some);
    }
    Ok(None)
}

/// The definition in the data of a `ConfigMap`.
pub(super) fn in_data(name: &str, data: &Value) -> Result<PipelineDefinition, DeployError> {
    let found = FILES
        .into_iter()
        .find_map(|file| data[file].as_str().map(|text| (file, text)));
    let (file, definition) = found.ok_or_else(|| {
        invalid(
            format!("{name}: data"),
            "must have pipeline.yaml or pipeline.json",
        )
    })?;
    parse(&format!("{name}: data.{file}"), definition)
}

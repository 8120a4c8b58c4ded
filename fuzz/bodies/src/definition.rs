//! Pipeline definitions: what is read is written and read again as the same, and renders or says why not.

use scheduler_pipeline::{MAX_RENDERED_BYTES, Params, PipelineDefinition};

use crate::split_at_nul;

/// A definition as YAML or JSON, and after a zero byte the params of a task.
pub fn definition(data: &[u8]) {
    let (definition, params) = split_at_nul(data);
    let Ok(text) = std::str::from_utf8(definition) else {
        return;
    };
    for read in [
        PipelineDefinition::from_yaml(text),
        PipelineDefinition::from_json(text),
    ] {
        let Ok(definition) = read else { continue };
        let json = definition.to_json();
        let again = PipelineDefinition::from_json(&json);
        assert_eq!(again.as_ref().map(PipelineDefinition::to_json).ok(), Some(json));
        assert_eq!(again.ok(), Some(definition.clone()));

        let Ok(params) = Params::from_json(params) else {
            continue;
        };
        let Ok(params) = definition.check(params) else {
            continue;
        };
        let params = params.with_pipe("/mnt/pipe");
        for command in definition.steps().iter().flat_map(|step| &step.commands) {
            if let Ok(rendered) = command.render(&params) {
                let is_filled = command.names().next().is_some();
                assert!(!is_filled || rendered.len() <= MAX_RENDERED_BYTES);
            }
        }
    }
}

//! The definition of a pipeline, and safe filling of its commands.
//!
//! A pipeline is a list of steps; a step is a list of shell commands for one executor. Commands hold `{{name}}`
//! placeholders for the params of a task. This crate reads definitions in every spelling in use, checks params, and
//! renders commands so that a value stays a value, whatever it holds. It does no IO.
//!
//! ```
//! use scheduler_pipeline::{Params, PipelineDefinition};
//!
//! let pipeline = PipelineDefinition::from_yaml(
//!     r#"
//!     pipeline:
//!       - executor: wget
//!         commands: ["wget -O {{pipe}}/in.png -- {{url}}"]
//!     params:
//!       required: [url]
//!     "#,
//! )?;
//!
//! let params = Params::from_json(br#"{"url": "http://example.org/$(reboot)?it's"}"#)?;
//! let params = pipeline.check(params)?.with_pipe("/mnt/pipe");
//! assert_eq!(
//!     pipeline.steps()[0].commands[0].render(&params)?,
//!     r"wget -O '/mnt/pipe'/in.png -- 'http://example.org/$(reboot)?it'\''s'",
//! );
//!
//! let error = PipelineDefinition::from_yaml(r#"pipeline: [{executor: sh, commands: ["sh -c '{{x}}'"]}]"#);
//! assert!(error.unwrap_err().to_string().starts_with("pipeline[0].commands[0]: `sh` takes this for code"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read [`Template`] for what is promised about values and what is refused.

mod definition;
mod params;
mod template;

pub use definition::{
    DefinitionError, MAX_COMMAND_BYTES, MAX_COMMANDS, MAX_DEFINITION_BYTES, MAX_STEPS, MAX_TIMEOUT,
    PipelineDefinition, Step,
};
pub use params::{PIPE, ParamError, ParamKind, Params, ParamsSchema};
pub use template::{MAX_RENDERED_BYTES, Template, TemplateError, TemplateProblem};

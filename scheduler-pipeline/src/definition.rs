//! A pipeline: the steps that every task goes through, and the params it takes.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::params::{ParamError, Params, ParamsSchema, kind_of};
use crate::template::Template;

/// Bytes of a definition in JSON or YAML, at most.
pub const MAX_DEFINITION_BYTES: usize = 256 * 1024;
/// Steps in one pipeline, at most.
pub const MAX_STEPS: usize = 32;
/// Commands in one step, at most.
pub const MAX_COMMANDS: usize = 64;
/// Bytes of one command before its values are filled in, at most.
pub const MAX_COMMAND_BYTES: usize = 16 * 1024;
/// The longest time a step can be given.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(24 * 7);

/// What is done with a task, step by step, inside one worker.
///
/// It is read from JSON or YAML in any of three spellings and written in the first of them:
///
/// ```yaml
/// pipeline:
///   - executor: wget                    # or executorName
///     commands: ["wget -O {{pipe}}/in.png -- {{url}}"]
///     timeoutSeconds: 60                # optional, for all commands of the step together
///   - executor: tesseract
///     commands: ["tesseract {{pipe}}/in.png {{pipe}}/out", "cat {{pipe}}/out.txt"]
/// params: {}                            # optional, see ParamsSchema
/// ```
///
/// The agent's own spelling is `{"commands": [{"executorName": "wget", "commandLines": ["…"]}]}`.
#[derive(Clone, Debug, PartialEq)]
pub struct PipelineDefinition {
    steps: Vec<Step>,
    params: Option<ParamsSchema>,
}

/// One tool's part in a pipeline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// The executor that runs the commands; the worker knows its address.
    pub executor: String,
    /// Shell lines, run in order; the first that fails ends the attempt.
    pub commands: Vec<Template>,
    /// How long all of them together may take.
    pub timeout: Option<Duration>,
}

/// A definition that cannot be used. Its text names the field and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct DefinitionError {
    /// Where in the document, as in `pipeline[1].commands[0]`.
    pub field: String,
    /// What is wrong there.
    pub message: String,
}

impl DefinitionError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

impl PipelineDefinition {
    /// Reads a definition that stands alone.
    ///
    /// # Errors
    ///
    /// It is too long, not JSON, or not a definition; unknown fields are refused.
    pub fn from_json(json: &str) -> Result<Self, DefinitionError> {
        check_length(json)?;
        let value = serde_json::from_str(json)
            .map_err(|error| DefinitionError::new("pipeline", format!("is not JSON: {error}")))?;
        Self::alone(&value)
    }

    /// Reads a definition that stands alone, as charts carry it.
    ///
    /// # Errors
    ///
    /// It is too long, not YAML, or not a definition; unknown fields are refused.
    pub fn from_yaml(yaml: &str) -> Result<Self, DefinitionError> {
        check_length(yaml)?;
        let value = serde_norway::from_str(yaml)
            .map_err(|error| DefinitionError::new("pipeline", format!("is not YAML: {error}")))?;
        Self::alone(&value)
    }

    fn alone(value: &Value) -> Result<Self, DefinitionError> {
        let known = |key: &&String| ["pipeline", "commands", "params"].contains(&key.as_str());
        if let Some(key) = value
            .as_object()
            .and_then(|fields| fields.keys().find(|key| !known(key)))
        {
            return Err(DefinitionError::new(
                key,
                "is unknown; a definition has `pipeline` and `params`",
            ));
        }
        Self::from_value(value)
    }

    /// Reads the definition in a larger document, such as a chart's values or a request, whose other fields are left
    /// alone.
    ///
    /// # Errors
    ///
    /// The document has no definition, or one that cannot be used.
    pub fn from_value(document: &Value) -> Result<Self, DefinitionError> {
        let Value::Object(fields) = document else {
            return Err(DefinitionError::new(
                "pipeline",
                format!("must be in an object, found {}", kind_of(document)),
            ));
        };
        let Some((key, steps)) = one_of(fields, "", ["pipeline", "commands"])? else {
            return Err(DefinitionError::new(
                "pipeline",
                "is missing; give the steps as an array",
            ));
        };
        let params = match fields.get("params") {
            None | Some(Value::Null) => None,
            Some(schema) => Some(ParamsSchema::from_value(schema, "params")?),
        };
        let steps = array(steps, key, MAX_STEPS, "steps")?;
        let read = |(index, step)| Step::from_value(step, &format!("{key}[{index}]"));
        Ok(Self {
            steps: steps.iter().enumerate().map(read).collect::<Result<_, _>>()?,
            params,
        })
    }

    /// The steps in order; never empty.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Which params tasks may have, when the pipeline says so.
    pub fn params(&self) -> Option<&ParamsSchema> {
        self.params.as_ref()
    }

    /// Checks the params of a task as it is submitted, and fills in defaults: against the schema, and whether every
    /// command can be filled in.
    ///
    /// # Errors
    ///
    /// The first parameter at fault. No attempt of such a task could succeed.
    pub fn check(&self, params: Params) -> Result<Params, ParamError> {
        let params = match &self.params {
            Some(schema) => schema.check(params)?,
            None => params,
        };
        let params = params.with_pipe("/mnt/pipe");
        self.steps
            .iter()
            .flat_map(|step| &step.commands)
            .try_for_each(|command| command.render(&params).map(drop))?;
        Ok(params)
    }

    /// The definition in the first spelling, for storing and sending.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    fn to_value(&self) -> Value {
        let mut value = json!({ "pipeline": self.steps.iter().map(Step::to_value).collect::<Vec<_>>() });
        if let Some(params) = &self.params {
            value["params"] = params.to_value();
        }
        value
    }
}

impl Serialize for PipelineDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PipelineDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::alone(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Step {
    fn from_value(value: &Value, path: &str) -> Result<Self, DefinitionError> {
        let Value::Object(fields) = value else {
            return Err(DefinitionError::new(
                path,
                format!("must be an object, found {}", kind_of(value)),
            ));
        };
        let known = [
            "executor",
            "executorName",
            "commands",
            "commandLines",
            "timeout",
            "timeoutSeconds",
        ];
        if let Some(key) = fields.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(DefinitionError::new(
                format!("{path}.{key}"),
                "is unknown; a step has `executor`, `commands` and `timeoutSeconds`",
            ));
        }

        let Some((key, executor)) = one_of(fields, path, ["executor", "executorName"])? else {
            return Err(DefinitionError::new(
                format!("{path}.executor"),
                "is missing; name the executor of this step",
            ));
        };
        let executor = executor.as_str().filter(|name| is_executor_name(name)).ok_or_else(|| {
            DefinitionError::new(
                format!("{path}.{key}"),
                "must be a name of letters, digits, `.`, `_` or `-`, at most 63 of them, beginning with a letter or digit",
            )
        })?;

        let Some((key, commands)) = one_of(fields, path, ["commands", "commandLines"])? else {
            return Err(DefinitionError::new(
                format!("{path}.commands"),
                "is missing; give shell commands as an array",
            ));
        };
        let path_of_commands = format!("{path}.{key}");
        let commands = array(commands, &path_of_commands, MAX_COMMANDS, "commands")?
            .iter()
            .enumerate()
            .map(|(index, command)| read_command(command, &format!("{path_of_commands}[{index}]")))
            .collect::<Result<_, _>>()?;

        let timeout = match one_of(fields, path, ["timeoutSeconds", "timeout"])? {
            None | Some((_, Value::Null)) => None,
            Some((key, value)) => Some(read_timeout(value, &format!("{path}.{key}"))?),
        };
        Ok(Self {
            executor: executor.to_owned(),
            commands,
            timeout,
        })
    }

    fn to_value(&self) -> Value {
        let commands: Vec<_> = self.commands.iter().map(Template::source).collect();
        let mut value = json!({ "executor": self.executor, "commands": commands });
        if let Some(timeout) = self.timeout {
            let whole = timeout.subsec_nanos() == 0;
            value["timeoutSeconds"] = if whole {
                json!(timeout.as_secs())
            } else {
                json!(timeout.as_secs_f64())
            };
        }
        value
    }
}

fn check_length(text: &str) -> Result<(), DefinitionError> {
    if text.len() > MAX_DEFINITION_BYTES {
        let message = format!(
            "is {} bytes long, at most {MAX_DEFINITION_BYTES} are possible",
            text.len()
        );
        return Err(DefinitionError::new("pipeline", message));
    }
    Ok(())
}

/// The one field of two spellings that is there.
fn one_of<'a>(
    fields: &'a Map<String, Value>,
    path: &str,
    [first, second]: [&'static str; 2],
) -> Result<Option<(&'static str, &'a Value)>, DefinitionError> {
    match (fields.get(first), fields.get(second)) {
        (Some(_), Some(_)) => {
            let dot = if path.is_empty() { "" } else { "." };
            let message = format!("means the same as `{first}`; give one of them");
            Err(DefinitionError::new(format!("{path}{dot}{second}"), message))
        }
        (Some(value), None) => Ok(Some((first, value))),
        (None, Some(value)) => Ok(Some((second, value))),
        (None, None) => Ok(None),
    }
}

fn array<'a>(value: &'a Value, path: &str, max: usize, what: &str) -> Result<&'a [Value], DefinitionError> {
    match value {
        Value::Array(values) if values.is_empty() => Err(DefinitionError::new(
            path,
            format!("is empty; give at least one of its {what}"),
        )),
        Value::Array(values) if values.len() > max => {
            let message = format!("has {} {what}, at most {max} are possible", values.len());
            Err(DefinitionError::new(path, message))
        }
        Value::Array(values) => Ok(values),
        other => Err(DefinitionError::new(
            path,
            format!("must be an array of {what}, found {}", kind_of(other)),
        )),
    }
}

fn read_command(value: &Value, path: &str) -> Result<Template, DefinitionError> {
    let Value::String(text) = value else {
        return Err(DefinitionError::new(
            path,
            format!("must be a string, found {}", kind_of(value)),
        ));
    };
    if text.trim().is_empty() {
        return Err(DefinitionError::new(path, "is empty; write a shell command"));
    }
    if text.len() > MAX_COMMAND_BYTES {
        let message = format!(
            "is {} bytes long, at most {MAX_COMMAND_BYTES} are possible",
            text.len()
        );
        return Err(DefinitionError::new(path, message));
    }
    Template::parse(text).map_err(|error| DefinitionError::new(path, error.to_string()))
}

fn read_timeout(value: &Value, path: &str) -> Result<Duration, DefinitionError> {
    let seconds = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => ["ms", "s", "m", "h"]
            .iter()
            .zip([0.001, 1.0, 60.0, 3600.0])
            .find_map(|(unit, scale)| {
                let number = text.strip_suffix(unit)?;
                number.parse::<f64>().ok().map(|number| number * scale)
            }),
        _ => None,
    };
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|timeout| *timeout >= Duration::from_millis(1) && *timeout <= MAX_TIMEOUT)
        .ok_or_else(|| {
            DefinitionError::new(
                path,
                "must be seconds above 0 (as 30, \"90s\", \"5m\" or \"1h\"), at most 7 days",
            )
        })
}

fn is_executor_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

//! The executors of a chart.

use std::collections::BTreeMap;

use scheduler_core::port::deploy::DeployError;
use scheduler_pipeline::PipelineDefinition;
use serde_json::Value;

use super::{Executor, invalid};

/// Executors of one worker.
const MAX_EXECUTORS: usize = 32;
const EXECUTOR_NAME: &str = "COMMAND_EXECUTOR_NAME";
const EXECUTOR_PORT: &str = "COMMAND_EXECUTOR_SERVER_GRPC_PORT";
const AGENT_EXECUTORS: &str = "PIPELINE_AGENT__EXECUTORS__";

type Environment = BTreeMap<String, String>;

/// The executors, and what else the worker is told by its environment.
pub(super) fn find(
    values: &Value,
    definition: Option<&PipelineDefinition>,
) -> Result<(Vec<Executor>, Environment), DeployError> {
    let mut agent = environment(
        &values["pipeline_agent"]["env"],
        "values.yaml: pipeline_agent.env",
    )?;
    let mut executors = listed(&values["executors"])?;
    executors.extend(containers(values, &agent)?);
    let named_by_agent = agent_executors(&agent).into_iter().map(|(name, _)| name);
    let named_by_steps = definition
        .iter()
        .flat_map(|definition| definition.steps())
        .map(|step| step.executor.clone());
    for name in named_by_agent.chain(named_by_steps) {
        if !executors.iter().any(|executor| executor.name == name) {
            executors.push(Executor {
                name,
                environment: Environment::new(),
            });
        }
    }
    if executors.len() > MAX_EXECUTORS {
        return Err(invalid(
            "values.yaml: executors",
            format!("must be at most {MAX_EXECUTORS}, are {}", executors.len()),
        ));
    }
    for (index, executor) in executors.iter().enumerate() {
        if executors[..index].iter().any(|other| other.name == executor.name) {
            return Err(invalid(
                "values.yaml: executors",
                format!("{} is there twice", executor.name),
            ));
        }
    }
    // Where executors listen is the deployer's to say.
    agent.retain(|name, _| !name.starts_with(AGENT_EXECUTORS));
    Ok((executors, agent))
}

/// Our own list: names, or maps of name and environment.
fn listed(list: &Value) -> Result<Vec<Executor>, DeployError> {
    const FIELD: &str = "values.yaml: executors";
    let items = match list {
        Value::Null => return Ok(Vec::new()),
        Value::Array(items) => items,
        _ => {
            return Err(invalid(
                FIELD,
                "must be a list of names, or of maps of name and env",
            ));
        }
    };
    let item = |(index, item): (usize, &Value)| {
        let field = format!("{FIELD}[{index}]");
        let (name, env) = match item {
            Value::Object(_) => (&item["name"], &item["env"]),
            item => (item, &Value::Null),
        };
        let name = name
            .as_str()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| invalid(&field, "must be a name, or a map of name and env"))?;
        Ok(Executor {
            name: name.to_owned(),
            environment: environment(env, &format!("{field}.env"))?,
        })
    };
    items.iter().enumerate().map(item).collect()
}

/// The containers of existing charts: `executor_*.env`. What the agent calls one counts: it finds it by the port.
fn containers(values: &Value, agent: &Environment) -> Result<Vec<Executor>, DeployError> {
    let by_port: Vec<(String, String)> = agent_executors(agent)
        .into_iter()
        .filter_map(|(name, target)| Some((port(&target)?.to_owned(), name)))
        .collect();
    let mut found = Vec::new();
    for (key, value) in values.as_object().into_iter().flatten() {
        let Some(suffix) = key.strip_prefix("executor_") else {
            continue;
        };
        if value["enabled"] == false {
            continue;
        }
        let mut environment = environment(&value["env"], &format!("values.yaml: {key}.env"))?;
        let own_name = environment.remove(EXECUTOR_NAME);
        let own_port = environment.remove(EXECUTOR_PORT);
        let called = own_port.as_deref().and_then(port).and_then(|port| {
            let (_, name) = by_port.iter().find(|(other, _)| other == port)?;
            Some(name.clone())
        });
        found.push(Executor {
            name: called.or(own_name).unwrap_or_else(|| suffix.to_owned()),
            environment,
        });
    }
    Ok(found)
}

fn port(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(_, port)| port)
}

/// Name and target of the executors that an agent's environment lists.
fn agent_executors(agent: &Environment) -> Vec<(String, String)> {
    let target = |index: &str| agent.get(&format!("{AGENT_EXECUTORS}{index}__TARGET"));
    agent
        .iter()
        .filter_map(|(key, name)| {
            let index = key.strip_prefix(AGENT_EXECUTORS)?.strip_suffix("__NAME")?;
            Some((name.clone(), target(index).cloned().unwrap_or_default()))
        })
        .collect()
}

/// An environment as Kubernetes writes it, a list of name and value, or as a map.
fn environment(env: &Value, field: &str) -> Result<Environment, DeployError> {
    match env {
        Value::Null => Ok(Environment::new()),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| entry(name, value, &format!("{field}.{name}")))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let name = item["name"]
                    .as_str()
                    .ok_or_else(|| invalid(format!("{field}[{index}].name"), "is missing"))?;
                entry(name, &item["value"], &format!("{field}[{index}].value"))
            })
            .collect(),
        _ => Err(invalid(field, "must be a list of name and value, or a map")),
    }
}

fn entry(name: &str, value: &Value, field: &str) -> Result<(String, String), DeployError> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(invalid(field, format!("{name:?} is no name of a variable")));
    }
    let value = match value {
        Value::String(text) if !text.contains('\0') => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => {
            return Err(invalid(
                field,
                "is missing; without Kubernetes only plain values can be used",
            ));
        }
        _ => return Err(invalid(field, "must be a text")),
    };
    Ok((name.to_owned(), value))
}

//! What the processes of a replica are started with.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use scheduler_core::name::PipelinePath;
use scheduler_pipeline::PipelineDefinition;

use super::LocalConfig;
use crate::chart::{Chart, Executor};
use crate::leftover::MARK;

/// What every replica of a pipeline is started with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Plan {
    path: PipelinePath,
    executors: Vec<Executor>,
    agent_environment: BTreeMap<String, String>,
}

/// How to start one process.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) directory: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
}

impl Plan {
    /// The chart's executors, and those that only the pipeline's definition names.
    pub(super) fn new(path: PipelinePath, chart: Chart, definition: Option<&PipelineDefinition>) -> Self {
        let mut executors = chart.executors;
        for step in definition.iter().flat_map(|definition| definition.steps()) {
            if !executors.iter().any(|executor| executor.name == step.executor) {
                executors.push(Executor {
                    name: step.executor.clone(),
                    environment: BTreeMap::new(),
                });
            }
        }
        Self {
            path,
            executors,
            agent_environment: chart.agent_environment,
        }
    }

    /// The executors and the worker of the replica in `directory`, on ports that are free now.
    pub(super) fn launches(
        &self,
        config: &LocalConfig,
        name: &str,
        directory: &Path,
    ) -> std::io::Result<(Vec<Launch>, Launch)> {
        let workspace = workspace(directory);
        let mut common: BTreeMap<String, String> = config
            .inherited_environment
            .iter()
            .filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)))
            .collect();
        let ours = [
            ("SCHEDULER_WORKSPACE", workspace.display().to_string()),
            ("EXIT_WITH_STDIN", "1".to_owned()),
            (MARK, directory.display().to_string()),
        ];
        common.extend(ours.map(|(name, value)| (name.to_owned(), value)));

        let mut worker = common.clone();
        worker.extend(self.agent_environment.clone());
        worker.insert("PIPELINE_AGENT__NAME".to_owned(), name.to_owned());
        // So that it ends its tasks before it is killed.
        let drain = config.drain_grace.as_secs().saturating_sub(2).max(1);
        let told = [
            ("SCHEDULER_URL", Some(config.scheduler_url.clone())),
            // Many workers share this machine; their health is seen by their processes and sessions.
            ("SCHEDULER_WORKER_HTTP", Some("off".to_owned())),
            ("SCHEDULER_DRAIN_SECONDS", Some(drain.to_string())),
            ("SCHEDULER_APPLICATION", Some(self.path.application.to_string())),
            ("SCHEDULER_PIPELINE", Some(self.path.pipeline.to_string())),
            (
                "SCHEDULER_API_KEY",
                config.api_keys.get(&self.path.client).cloned(),
            ),
        ];
        for (name, value) in told {
            worker.extend(value.map(|value| (name.to_owned(), value)));
        }

        let mut executors = Vec::new();
        for (index, (executor, port)) in self
            .executors
            .iter()
            .zip(free_ports(self.executors.len())?)
            .enumerate()
        {
            let address = format!("127.0.0.1:{port}");
            let mut environment = common.clone();
            environment.extend(executor.environment.clone());
            environment.insert("COMMAND_EXECUTOR_NAME".to_owned(), executor.name.clone());
            environment.insert("COMMAND_EXECUTOR_DRAIN_IDLE_MS".to_owned(), "50".to_owned());
            environment.insert("COMMAND_EXECUTOR_SERVER_GRPC_PORT".to_owned(), address.clone());
            worker.insert(
                format!("PIPELINE_AGENT__EXECUTORS__{index}__NAME"),
                executor.name.clone(),
            );
            worker.insert(format!("PIPELINE_AGENT__EXECUTORS__{index}__TARGET"), address);
            executors.push(Launch {
                name: format!("executor-{}", executor.name),
                program: config.executor_program.clone(),
                directory: workspace.clone(),
                environment: protect(environment, &common),
            });
        }
        let worker = Launch {
            name: "worker".to_owned(),
            program: config.worker_program.clone(),
            directory: workspace,
            environment: protect(worker, &common),
        };
        Ok((executors, worker))
    }
}

/// Where the tasks of a replica have their files.
pub(super) fn workspace(directory: &Path) -> PathBuf {
    directory.join("workspace")
}

/// A chart's environment must not hide a replica from us.
fn protect(
    mut environment: BTreeMap<String, String>,
    common: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    for name in [MARK, "EXIT_WITH_STDIN", "SCHEDULER_WORKSPACE"] {
        if let Some(value) = common.get(name) {
            environment.insert(name.to_owned(), value.clone());
        }
    }
    environment
}

/// Different ports that nobody listens on. Somebody may take one before its executor does: that fails, and the restart takes others.
fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<_, _>>()?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executor_that_only_the_definition_names_runs_too() {
        let name = |text: &str| text.parse().unwrap();
        let path = PipelinePath {
            client: name("default"),
            application: name("myname"),
            pipeline: name("ocr"),
        };
        let declared = Executor {
            name: "wget".to_owned(),
            environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        };
        let chart = Chart {
            name: "ocr".to_owned(),
            definition: None,
            replicas: None,
            executors: vec![declared.clone()],
            agent_environment: BTreeMap::new(),
        };
        let steps = r#"{"pipeline": [{"executor": "wget", "commands": ["true"]}, {"executor": "tesseract", "commands": ["true"]}]}"#;
        let definition = PipelineDefinition::from_json(steps).unwrap();
        let plan = Plan::new(path, chart, Some(&definition));
        let added = Executor {
            name: "tesseract".to_owned(),
            environment: BTreeMap::new(),
        };
        assert_eq!(plan.executors, [declared, added]);
    }
}

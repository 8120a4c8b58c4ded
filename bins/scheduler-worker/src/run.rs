//! One task through all steps of its pipeline.

use std::pin::pin;

use scheduler_pipeline::{ParamError, Params, PipelineDefinition};
use scheduler_proto::exec::ExecCommands;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use crate::executor::{Executors, StepError};

/// What the commands of each step wrote, in the order of the steps. As JSON: `{"1:wget": ["…"]}`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outputs {
    steps: Vec<(String, Vec<String>)>,
}

impl Serialize for Outputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.steps.iter().map(|(step, output)| (step, output)))
    }
}

/// Why a task did not get through.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The params do not fit the commands. No attempt will succeed.
    #[error(transparent)]
    Params(#[from] ParamError),
    /// A step failed. Another attempt may succeed.
    #[error("step {number} (executor {executor}): {error}")]
    Step {
        /// Which step, counted from 1.
        number: usize,
        /// Its executor.
        executor: String,
        /// What went wrong.
        error: StepError,
        /// What was written before.
        outputs: Outputs,
    },
}

impl RunError {
    /// What was written before the failure.
    pub fn into_outputs(self) -> Outputs {
        match self {
            Self::Params(_) => Outputs::default(),
            Self::Step { outputs, .. } => outputs,
        }
    }
}

/// Where a step is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// Its turn has not come.
    Waiting,
    /// Its commands run.
    Running,
    /// All of them have succeeded.
    Succeeded,
    /// One of them has failed.
    Failed,
}

/// How far a step is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// `1:wget`.
    pub step: String,
    /// Where it is.
    pub state: StepState,
    /// How many commands it has.
    pub commands: usize,
    /// How many of them have ended.
    pub commands_ended: usize,
}

/// Who wants to know how far a task is.
pub trait Watcher: Sync {
    /// The steps are like this now.
    fn steps(&self, steps: &[StepStatus]) -> impl Future<Output = ()> + Send;
}

/// Nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoWatcher;

impl Watcher for NoWatcher {
    async fn steps(&self, _: &[StepStatus]) {}
}

/// Runs the steps in order with these params, which [`PipelineDefinition::check`] has completed. `directory` is what the
/// executors know as the task's share of the workspace.
///
/// Dropping the future ends the commands.
///
/// # Errors
///
/// The first step that failed; or params that do not fit, before anything is run.
pub async fn run_pipeline(
    definition: &PipelineDefinition,
    params: &Params,
    directory: &str,
    executors: &Executors,
    watcher: &impl Watcher,
) -> Result<Outputs, RunError> {
    let params = params.clone().with_pipe(directory);
    let mut requests = Vec::with_capacity(definition.steps().len());
    for step in definition.steps() {
        let timeout_ms = step.timeout.map_or(0, |timeout| {
            u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
        });
        requests.push(ExecCommands {
            commands: step
                .commands
                .iter()
                .map(|command| command.render(&params))
                .collect::<Result<_, _>>()?,
            working_directory: String::new(),
            environment: [("PIPE_DIR".to_owned(), directory.to_owned())].into(),
            timeout_ms,
        });
    }

    let mut statuses: Vec<_> = (1..)
        .zip(definition.steps())
        .map(|(number, step)| StepStatus {
            step: format!("{number}:{}", step.executor),
            state: StepState::Waiting,
            commands: step.commands.len(),
            commands_ended: 0,
        })
        .collect();
    let mut outputs = Outputs::default();
    for (index, (step, request)) in definition.steps().iter().zip(requests).enumerate() {
        statuses[index].state = StepState::Running;
        watcher.steps(&statuses).await;
        let (ended, mut count) = watch::channel(0);
        let mut call = pin!(executors.run(&step.executor, request, ended));
        let result = loop {
            tokio::select! {
                result = &mut call => break result,
                Ok(()) = count.changed() => {
                    statuses[index].commands_ended = *count.borrow_and_update();
                    watcher.steps(&statuses).await;
                }
            }
        };
        let failed = result.is_err();
        statuses[index].state = if failed {
            StepState::Failed
        } else {
            StepState::Succeeded
        };
        let (output, error) = match result {
            Ok(output) => (output, None),
            Err(error) => (error.output.clone(), Some(error)),
        };
        statuses[index].commands_ended = output.len();
        outputs.steps.push((statuses[index].step.clone(), output));
        watcher.steps(&statuses).await;
        if let Some(error) = error {
            return Err(RunError::Step {
                number: index + 1,
                executor: step.executor.clone(),
                error,
                outputs,
            });
        }
    }
    Ok(outputs)
}

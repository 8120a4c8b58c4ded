use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use scheduler_pipeline::{Params, PipelineDefinition};
use scheduler_sdk::{Context, TaskError};
use serde_json::{Map, Value};

use crate::executor::Executors;
use crate::run::{Outputs, RunError, StepStatus, Watcher, run_pipeline};
use crate::workspace::Workspace;

/// What tasks need to be run: executors and a workspace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Agent {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    executors: Executors,
    workspace: Workspace,
    /// The definition that was read last; all tasks have the same until it changes.
    definition: Mutex<Option<(Bytes, Arc<PipelineDefinition>)>>,
}

impl Agent {
    /// An agent with these executors, whose tasks share files in this workspace.
    pub fn new(executors: Executors, workspace: Workspace) -> Self {
        Self {
            inner: Arc::new(Inner {
                executors,
                workspace,
                definition: Mutex::new(None),
            }),
        }
    }

    /// The executors.
    pub fn executors(&self) -> &Executors {
        &self.inner.executors
    }

    /// The workspace.
    pub fn workspace(&self) -> &Workspace {
        &self.inner.workspace
    }

    /// Runs one task: the handler for [`scheduler_sdk::WorkerBuilder::handler`].
    ///
    /// # Errors
    ///
    /// Permanent when the params do not fit the pipeline; retryable when a step fails, an executor is away, or the task
    /// is stopped.
    pub async fn run(
        &self,
        params: Option<Map<String, Value>>,
        context: Context,
    ) -> Result<Outputs, TaskError> {
        let definition = self.definition(context.definition())?;
        let params = definition
            .check(Params::new(params.unwrap_or_default()))
            .map_err(TaskError::permanent)?;
        let lease = context.lease();
        let name = format!(
            "{}-{}-{}-{}",
            lease.partition, lease.offset, lease.epoch, lease.attempt
        );
        let work = async {
            let share = self.inner.workspace.enter(&name).await?;
            let outputs = run_pipeline(
                &definition,
                &params,
                share.path(),
                &self.inner.executors,
                &context,
            )
            .await;
            outputs.map_err(|error| match error {
                RunError::Params(error) => TaskError::permanent(error),
                RunError::Step { .. } => TaskError::retryable(error),
            })
        };
        tokio::select! {
            outputs = work => outputs,
            // Dropping the work ends the call, and with it the commands.
            () = context.cancelled().cancelled() => Err(TaskError::retryable("the task was stopped")),
        }
    }

    fn definition(&self, json: &Bytes) -> Result<Arc<PipelineDefinition>, TaskError> {
        if json.is_empty() {
            return Err(TaskError::retryable(
                "the scheduler has no definition of this pipeline; give it one",
            ));
        }
        let mut known = self
            .inner
            .definition
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((known_json, definition)) = &*known
            && known_json == json
        {
            return Ok(definition.clone());
        }
        // The document may say more about the pipeline than what workers have to know.
        let document = serde_json::from_slice(json).map_err(|error| error.to_string());
        let definition = document
            .and_then(|document| PipelineDefinition::from_value(&document).map_err(|error| error.to_string()))
            .map_err(|error| TaskError::retryable(format!("the pipeline's definition: {error}")))?;
        let definition = Arc::new(definition);
        *known = Some((json.clone(), definition.clone()));
        Ok(definition)
    }
}

impl Watcher for Context {
    async fn steps(&self, steps: &[StepStatus]) {
        self.progress(&serde_json::json!({ "steps": steps })).await;
    }
}

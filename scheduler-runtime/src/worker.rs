//! A worker in the same process, for services that embed the scheduler.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use scheduler_core::id::WorkerId;
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{
    ApiError, HeldLease, Lease, Report, WorkerApi as _, WorkerCommand, WorkerEvent, WorkerHello,
};

use crate::node::Node;

/// How an attempt in this process failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// Another attempt may succeed.
    Retryable(String),
    /// It always will.
    Permanent(String),
}

impl Node {
    /// Works on tasks of a pipeline in this process, `concurrency` at a time, until the node shuts down or the pipeline is deleted.
    ///
    /// The handler gets a task's params and answers its output. It is not interrupted: a task that is cancelled while it runs ends
    /// with its handler. For workers in processes of their own there is the SDK.
    pub async fn work<F, H>(&self, path: &PipelinePath, concurrency: u32, handler: H) -> Result<(), ApiError>
    where
        H: Fn(Bytes) -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| ApiError::Internal(error.to_string().into()))?;
        let worker = WorkerId(u128::from_le_bytes(id));
        let hello = WorkerHello {
            worker,
            name: "in process".into(),
            held: Vec::new(),
            reported: Vec::new(),
        };
        let mut session = self.attach(path, hello).await?;
        session
            .commands
            .send(vec![WorkerCommand::Credit(concurrency)])
            .await?;
        let handler = Arc::new(handler);
        let run = |lease: Lease| {
            let handler = handler.clone();
            async move {
                let outcome = match handler(lease.spec.params).await {
                    Ok(output) => AttemptOutcome::Succeeded { output },
                    Err(Failure::Retryable(error)) => AttemptOutcome::Failed { error },
                    Err(Failure::Permanent(error)) => AttemptOutcome::Rejected { error },
                };
                let Lease {
                    partition,
                    offset,
                    token,
                    ..
                } = lease;
                Report {
                    lease: HeldLease {
                        partition,
                        offset,
                        token,
                    },
                    outcome,
                }
            }
        };
        let mut running = FuturesUnordered::new();
        let mut alive = tokio::time::interval(session.heartbeat);
        let mut is_draining = false;
        while !(is_draining && running.is_empty()) {
            tokio::select! {
                events = session.events.next(), if !is_draining => {
                    for event in events.unwrap_or_else(|| vec![WorkerEvent::GoAway]) {
                        match event {
                            WorkerEvent::Leases(leases) => running.extend(leases.into_iter().map(&run)),
                            WorkerEvent::GoAway => is_draining = true,
                            // There is nothing to keep for a reconnect: the worker lives and dies with its node.
                            WorkerEvent::Settled { .. } | WorkerEvent::Stop(_) => (),
                            WorkerEvent::Definition(_) | WorkerEvent::Moved(_) => (),
                        }
                    }
                }
                Some(report) = running.next() => {
                    let commands = vec![WorkerCommand::Reports(vec![report]), WorkerCommand::Credit(1)];
                    session.commands.send(commands).await?;
                }
                _ = alive.tick() => session.commands.send(vec![WorkerCommand::Alive]).await?,
            }
        }
        Ok(())
    }
}

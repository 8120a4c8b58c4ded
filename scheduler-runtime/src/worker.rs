//! A worker in the same process, for services that embed the scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::outcome::AttemptOutcome;
use scheduler_core::port::gateway::{
    ApiError, CommandSink, HeldLease, Lease, Report, WorkerApi as _, WorkerCommand, WorkerEvent, WorkerHello,
};

use crate::actor::text_of;
use crate::node::Node;

/// How an attempt in this process failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// Another attempt may succeed.
    Retryable(String),
    /// No attempt will ever succeed; the task becomes a dead letter at once.
    Permanent(String),
}

/// Before a session that ended is followed by another.
const PAUSE: Duration = Duration::from_millis(100);

/// What a worker has to show when it opens a session.
#[derive(Default)]
struct Record {
    held: Vec<HeldLease>,
    /// Reports that no checkpoint covers, and how many of the session's reports for the partition are settled.
    reported: BTreeMap<Partition, (VecDeque<Report>, u64)>,
}

impl Record {
    fn hello(&mut self, worker: WorkerId) -> WorkerHello {
        let mut reported = Vec::new();
        for (reports, settled) in self.reported.values_mut() {
            *settled = 0;
            reported.extend(reports.iter().cloned());
        }
        WorkerHello {
            worker,
            name: "in process".into(),
            held: self.held.clone(),
            reported,
            shares: false,
            number: 0,
        }
    }

    fn ended(&mut self, report: &Report) {
        self.held.retain(|held| *held != report.lease);
        let (reports, _) = self.reported.entry(report.lease.partition).or_default();
        reports.push_back(report.clone());
    }

    fn settled(&mut self, partition: Partition, count: u64) {
        if let Some((reports, settled)) = self.reported.get_mut(&partition) {
            let more = usize::try_from(count.saturating_sub(*settled)).unwrap_or(usize::MAX);
            reports.drain(..more.min(reports.len()));
            *settled = count.max(*settled);
        }
    }
}

impl Node {
    /// Works on tasks of a pipeline in this process, `concurrency` at a time, until the node shuts down or the pipeline is deleted.
    ///
    /// The handler gets a task's params and answers its output. If it panics, the attempt has failed and may be tried again. It is not
    /// interrupted: a task that is cancelled while it runs ends with its handler. All of them share the task that calls this, so a handler
    /// must not block. For workers in processes of their own there is the SDK.
    pub async fn work<F, H>(&self, path: &PipelinePath, concurrency: u32, handler: H) -> Result<(), ApiError>
    where
        H: Fn(Bytes) -> F,
        F: Future<Output = Result<Bytes, Failure>>,
    {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| ApiError::Internal(error.to_string().into()))?;
        let worker = WorkerId(u128::from_le_bytes(id));
        let run = async |lease: HeldLease, params: Bytes| {
            // What a panic left behind is the handler's own affair: nothing of the worker is behind this border.
            let outcome = match AssertUnwindSafe(async { handler(params).await })
                .catch_unwind()
                .await
            {
                Ok(Ok(output)) => AttemptOutcome::Succeeded { output },
                Ok(Err(Failure::Retryable(error))) => AttemptOutcome::Failed { error },
                Ok(Err(Failure::Permanent(error))) => AttemptOutcome::Rejected { error },
                Err(panic) => AttemptOutcome::Failed {
                    error: format!("panicked: {}", text_of(&*panic)),
                },
            };
            Report { lease, outcome }
        };
        let mut record = Record::default();
        let mut running = FuturesUnordered::new();
        let mut session = self.attach(path, record.hello(worker)).await?;
        loop {
            let room = concurrency.saturating_sub(u32::try_from(running.len()).unwrap_or(u32::MAX));
            let mut is_over = tell(&*session.commands, vec![WorkerCommand::Credit(room)]).await;
            let mut is_leaving = false;
            let mut alive = tokio::time::interval(session.heartbeat);
            while !(is_over || is_leaving && running.is_empty()) {
                tokio::select! {
                    events = session.events.next() => match events {
                        Some(events) => for event in events {
                            match event {
                                WorkerEvent::Leases(leases) => {
                                    for Lease { partition, offset, token, spec, .. } in leases {
                                        let lease = HeldLease { partition, offset, token };
                                        record.held.push(lease);
                                        running.push(run(lease, spec.params));
                                    }
                                }
                                WorkerEvent::Settled { partition, count, .. } => record.settled(partition, count),
                                WorkerEvent::GoAway => is_leaving = true,
                                WorkerEvent::Moved(_) => is_over = !is_leaving,
                                WorkerEvent::Stop(_)
                                | WorkerEvent::Definition(_)
                                | WorkerEvent::Waiting(_)
                                | WorkerEvent::Recalled(_) => (),
                            }
                        },
                        None => is_over = true,
                    },
                    Some(report) = running.next() => {
                        record.ended(&report);
                        is_over = tell(&*session.commands, vec![WorkerCommand::Reports(vec![report]), WorkerCommand::Credit(1)]).await;
                    }
                    _ = alive.tick() => is_over = tell(&*session.commands, vec![WorkerCommand::Alive]).await,
                }
            }
            if is_leaving {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
            session = match self.attach(path, record.hello(worker)).await {
                Ok(session) => session,
                // The pipeline is deleted, or the node is going down: whatever still runs is of no use to anybody.
                Err(_) => return Ok(()),
            };
        }
    }
}

/// Says something in a session; answers whether the session is over.
async fn tell(session: &dyn CommandSink, commands: Vec<WorkerCommand>) -> bool {
    session.send(commands).await.is_err()
}

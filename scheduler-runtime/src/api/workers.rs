//! Workers: sessions, and single calls for simple ones.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{Partition, ShardId, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::pipeline::PipelineNode;
use scheduler_core::port::gateway::{
    ApiError, CommandSink, HeldLease, Lease, Location, Report, Verdict, WorkerApi, WorkerCommand,
    WorkerHello, WorkerSession,
};
use scheduler_core::session::SessionId;
use scheduler_core::shard::Answer;
use tokio::sync::oneshot;

use super::LocalNode;
use super::{error, saved};
use crate::actor::{Events, Mailbox, Message, Outbox, Teller};
use crate::directory::Served;

/// Most leases in one answer to a poll.
const MOST_POLLED: u32 = 1_000;
/// Longest wait of a poll.
const LONGEST_POLL: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Commands {
    session: SessionId,
    mailbox: Mailbox,
    outbox: Arc<Outbox>,
    /// Closes the session when the transport lets go of it.
    _closing: Closing,
}

#[async_trait]
impl CommandSink for Commands {
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError> {
        if self.outbox.is_over() {
            return Err(error::unavailable("the session is over; open another"));
        }
        let told = self.mailbox.tell(Message::Commands(self.session, commands)).await;
        told.then_some(())
            .ok_or_else(|| error::unavailable("the pipeline has left this node"))
    }
}

/// Tells the actor that a session or poll is over: when it is dropped, or complete.
#[derive(Debug)]
struct Closing(oneshot::Sender<()>);

impl Closing {
    fn of(node: &LocalNode, session: SessionId, mailbox: Mailbox) -> Self {
        let (alive, closed) = oneshot::channel::<()>();
        // A task of its own, because nothing can wait for room in the mailbox while it is dropped.
        node.inner.spawn_background(async move {
            let complete = closed.await.is_ok();
            mailbox.tell(Message::Close(session, complete)).await;
        });
        Self(alive)
    }

    /// A poll has what it was answered.
    fn complete(self) {
        let _ = self.0.send(());
    }
}

#[async_trait]
impl WorkerApi for LocalNode {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        let served = self.served(path)?;
        // What runs may end while the node goes down, and only those who have it can say so: whoever lost the connection may come back.
        let has_nothing = hello.held.is_empty() && hello.reported.is_empty();
        if self.inner.is_stopping() && has_nothing {
            return Err(error::unavailable("the node is going down"));
        }
        self.check_any_here(&served)?;
        let session = self.inner.next_session();
        let outbox = Arc::new(Outbox::default());
        let mailbox = served.mailbox.clone();
        let definition = served.pipeline.definition.clone();
        let open = Message::Open(session, hello, Teller(outbox.clone()), definition.clone());
        let opened = mailbox.tell(open).await;
        opened
            .then_some(())
            .ok_or_else(|| error::unavailable("the pipeline has left this node"))?;
        Ok(WorkerSession {
            definition,
            heartbeat: PipelineNode::heartbeat_of(&served.pipeline.policy),
            commands: Box::new(Commands {
                session,
                _closing: Closing::of(self, session, mailbox.clone()),
                mailbox,
                outbox: outbox.clone(),
            }),
            events: Box::new(Events(outbox)),
        })
    }

    async fn poll(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<Lease>, ApiError> {
        let served = self.served(path)?;
        if self.inner.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        self.check_any_here(&served)?;
        let session = self.inner.next_session();
        let (reply, leases) = oneshot::channel();
        let limit = limit.clamp(1, MOST_POLLED);
        let asked = served
            .mailbox
            .tell(Message::Poll(session, worker, limit, reply))
            .await;
        if !asked {
            return Err(error::unavailable("the pipeline has left this node"));
        }
        let closing = Closing::of(self, session, served.mailbox.clone());
        // If the caller goes, or patience ends as the answer is on its way, the leases return.
        match tokio::time::timeout(patience.min(LONGEST_POLL), leases).await {
            Ok(Ok(leases)) => {
                closing.complete();
                Ok(leases)
            }
            Ok(Err(_)) | Err(_) => Ok(Vec::new()),
        }
    }

    async fn report(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        reports: Vec<Report>,
    ) -> Result<Vec<Verdict>, ApiError> {
        let served = self.served(path)?;
        let gone = || error::unavailable("a task's shard is not here now; report again");
        for (index, report) in reports.iter().enumerate() {
            let field = || format!("reports[{index}].lease.partition");
            check_partition(&served, report.lease.partition, field)?;
            self.check_here(ShardId::new(served.pipeline.id, report.lease.partition))?;
        }
        let (answers, durable) = served
            .mailbox
            .ask(|reply| Message::Report(worker, reports, reply))
            .await
            .ok_or_else(gone)?;
        if answers.contains(&Answer::Elsewhere) {
            return Err(gone());
        }
        for durable in durable {
            saved(durable).await?.map_err(|_| gone())?;
        }
        let verdict = |answer| {
            if answer == Answer::Done {
                Verdict::Taken
            } else {
                Verdict::Late
            }
        };
        Ok(answers.into_iter().map(verdict).collect())
    }

    async fn extend(
        &self,
        path: &PipelinePath,
        worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        let served = self.served(path)?;
        for (index, lease) in leases.iter().enumerate() {
            check_partition(&served, lease.partition, || format!("refs[{index}].partition"))?;
            self.check_here(ShardId::new(served.pipeline.id, lease.partition))?;
        }
        let answers = served
            .mailbox
            .ask(|reply| Message::Extend(worker, leases, reply))
            .await;
        let answers = answers.ok_or_else(|| error::unavailable("the pipeline has left this node"))?;
        if answers.contains(&Answer::Elsewhere) {
            // The worker is not to give up a task because its shard is just coming up.
            return Err(error::unavailable("a task's shard is not here now; extend again"));
        }
        Ok(answers.into_iter().map(|answer| answer == Answer::Done).collect())
    }

    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        let served = self.served(path)?;
        let address = self.inner.address();
        let locate = |shard: ShardId| Location {
            partition: shard.partition,
            address: address.to_owned(),
        };
        Ok(self.shards_here(&served).into_iter().map(locate).collect())
    }
}

pub(crate) fn check_partition(
    served: &Served,
    partition: Partition,
    field: impl FnOnce() -> String,
) -> Result<(), ApiError> {
    let partitions = served.pipeline.partitions;
    if partition.0 < partitions {
        return Ok(());
    }
    let problem = format!("is {}; the pipeline has {partitions}", partition.0);
    Err(ApiError::invalid(field(), problem))
}

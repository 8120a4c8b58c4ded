//! Workers: sessions, and single calls for simple ones.

use std::time::Duration;

use async_trait::async_trait;
use scheduler_core::id::{Partition, WorkerId};
use scheduler_core::name::PipelinePath;
use scheduler_core::pipeline::PipelineNode;
use scheduler_core::port::gateway::{
    ApiError, CommandSink, EventSource, HeldLease, Lease, Location, Report, Verdict, WorkerApi,
    WorkerCommand, WorkerEvent, WorkerHello, WorkerSession,
};
use scheduler_core::session::SessionId;
use scheduler_core::shard::Answer;
use tokio::sync::{mpsc, oneshot};

use super::error;
use crate::actor::{Mailbox, Message};
use crate::node::Node;

/// Most leases in one answer to a poll.
const MOST_POLLED: u32 = 1_000;
/// Longest wait of a poll.
const LONGEST_POLL: Duration = Duration::from_mins(1);

#[derive(Debug)]
struct Commands {
    session: SessionId,
    mailbox: Mailbox,
    /// Closes the session when the transport lets go of it.
    _closing: Closing,
}

#[async_trait]
impl CommandSink for Commands {
    async fn send(&self, commands: Vec<WorkerCommand>) -> Result<(), ApiError> {
        let told = self.mailbox.tell(Message::Commands(self.session, commands)).await;
        told.then_some(())
            .ok_or_else(|| error::unavailable("the pipeline has left this node"))
    }
}

#[derive(Debug)]
struct Events(mpsc::UnboundedReceiver<Vec<WorkerEvent>>);

#[async_trait]
impl EventSource for Events {
    async fn next(&mut self) -> Option<Vec<WorkerEvent>> {
        let mut events = self.0.recv().await?;
        // What has come meanwhile goes along.
        while let Ok(more) = self.0.try_recv() {
            events.extend(more);
        }
        Some(events)
    }
}

/// Tells the actor that a session or poll is over, when it is dropped.
#[derive(Debug)]
struct Closing {
    _alive: oneshot::Sender<()>,
}

impl Closing {
    fn of(session: SessionId, mailbox: Mailbox) -> Self {
        let (alive, closed) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let _ = closed.await;
            mailbox.tell(Message::Close(session)).await;
        });
        Self { _alive: alive }
    }
}

#[async_trait]
impl WorkerApi for Node {
    async fn attach(&self, path: &PipelinePath, hello: WorkerHello) -> Result<WorkerSession, ApiError> {
        let served = self.served(path)?;
        if self.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let session = self.next_session();
        let (send, receive) = mpsc::unbounded_channel();
        let mailbox = served.mailbox.clone();
        let opened = mailbox.tell(Message::Open(session, hello, send)).await;
        opened
            .then_some(())
            .ok_or_else(|| error::unavailable("the pipeline has left this node"))?;
        Ok(WorkerSession {
            definition: served.pipeline.definition.clone(),
            heartbeat: PipelineNode::heartbeat_of(&served.pipeline.policy),
            commands: Box::new(Commands {
                session,
                _closing: Closing::of(session, mailbox.clone()),
                mailbox,
            }),
            events: Box::new(Events(receive)),
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
        if self.is_stopping() {
            return Err(error::unavailable("the node is going down"));
        }
        let session = self.next_session();
        let (reply, leases) = oneshot::channel();
        let limit = limit.clamp(1, MOST_POLLED);
        served
            .mailbox
            .tell(Message::Poll(session, worker, limit, reply))
            .await;
        let _closing = Closing::of(session, served.mailbox.clone());
        match tokio::time::timeout(patience.min(LONGEST_POLL), leases).await {
            Ok(Ok(leases)) => Ok(leases),
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
        let gone = || error::unavailable("a task's shard is moving to another node; report again");
        let (answers, durable) = served
            .mailbox
            .ask(|reply| Message::Report(worker, reports, reply))
            .await
            .ok_or_else(gone)?;
        if answers.contains(&Answer::Elsewhere) {
            return Err(gone());
        }
        for durable in durable {
            durable.await.map_err(|_| gone())?;
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
        _worker: WorkerId,
        leases: Vec<HeldLease>,
    ) -> Result<Vec<bool>, ApiError> {
        let served = self.served(path)?;
        let answers = served.mailbox.ask(|reply| Message::Extend(leases, reply)).await;
        let answers = answers.ok_or_else(|| error::unavailable("the pipeline has left this node"))?;
        Ok(answers.into_iter().map(|answer| answer == Answer::Done).collect())
    }

    async fn locate(&self, path: &PipelinePath) -> Result<Vec<Location>, ApiError> {
        let served = self.served(path)?;
        let address = &self.inner.config.address;
        let here = |partition| Location {
            partition: Partition(partition),
            address: address.clone(),
        };
        Ok((0..served.pipeline.partitions).map(here).collect())
    }
}

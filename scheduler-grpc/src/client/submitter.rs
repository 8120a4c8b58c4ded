//! Many submissions under way on one stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use scheduler_proto::api as wire;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::{Client, ClientError, NewTask, PipelineRef};

/// Submits batches without waiting for the answers of earlier ones.
///
/// At most [`submit_in_flight`](super::ClientConfig::submit_in_flight) batches are under way; [`send`](Self::send) waits for room. When one
/// is refused or the connection breaks the stream ends, and every batch without an answer fails: the first of them with the
/// cause. Those may have been taken or not; a new submitter can send them again, safely if the tasks have idempotency keys.
#[derive(Debug)]
pub struct Submitter {
    pipeline: PipelineRef,
    requests: mpsc::Sender<wire::SubmitRequest>,
    room: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

/// The coming answer to a batch.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Vec<String>, ClientError>>);

/// Batches without an answer, in the order of the answers to come.
#[derive(Debug, Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    /// Why the stream is over, once it is.
    over: Option<ClientError>,
}

#[derive(Debug)]
struct Batch {
    answer: oneshot::Sender<Result<Vec<String>, ClientError>>,
    _room: OwnedSemaphorePermit,
}

impl Client {
    /// Opens a stream of submissions to `pipeline`.
    ///
    /// # Errors
    ///
    /// The node does not take it.
    pub async fn submitter(&self, pipeline: &PipelineRef) -> Result<Submitter, ClientError> {
        let in_flight = self.config.submit_in_flight.max(1);
        let (requests, outbound) = mpsc::channel(in_flight);
        let request = self.stream_request(ReceiverStream::new(outbound));
        let answers = self.tasks().submit_stream(request).await?.into_inner();
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let room = Arc::new(Semaphore::new(in_flight));
        tokio::spawn(take_answers(answers, Arc::clone(&waiting), Arc::clone(&room)));
        Ok(Submitter {
            pipeline: pipeline.clone(),
            requests,
            room,
            waiting,
        })
    }
}

impl Submitter {
    /// Sends a batch of up to 10,000 tasks, waiting while too many are under way.
    ///
    /// # Errors
    ///
    /// The stream is over; the tasks were not sent.
    pub async fn send(&mut self, tasks: Vec<NewTask>) -> Result<Receipt, ClientError> {
        let Ok(room) = Arc::clone(&self.room).acquire_owned().await else {
            return Err(self.why_over());
        };
        let slot = self.requests.reserve().await.map_err(|_| self.why_over())?;
        let (answer, receipt) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &waiting.over {
            return Err(error.clone());
        }
        waiting.batches.push_back(Batch { answer, _room: room });
        // Under the lock, so that answers are awaited in the order in which the requests leave.
        slot.send(wire::SubmitRequest {
            application: self.pipeline.application.clone(),
            pipeline: self.pipeline.pipeline.clone(),
            tasks: tasks.into_iter().map(|task| task.0).collect(),
        });
        Ok(Receipt(receipt))
    }

    fn why_over(&self) -> ClientError {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.over.clone().unwrap_or_else(broken)
    }
}

impl Receipt {
    /// The ids of the batch's tasks, in order, once they are durable.
    ///
    /// # Errors
    ///
    /// The batch was refused, or the stream ended before its answer: whether its tasks were taken is not known then.
    pub async fn ids(self) -> Result<Vec<String>, ClientError> {
        self.0.await.unwrap_or_else(|_| Err(broken()))
    }
}

fn broken() -> ClientError {
    ClientError::new(
        Code::Unavailable,
        "the stream of submissions ended; whether the tasks were taken is not known",
    )
}

/// Hands each answer to the oldest batch without one, until the stream ends; then fails those that are left.
async fn take_answers(
    mut answers: Streaming<wire::SubmitResponse>,
    waiting: Arc<Mutex<Waiting>>,
    room: Arc<Semaphore>,
) {
    let error = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let batch = waiting
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .batches
                    .pop_front();
                if let Some(batch) = batch {
                    // Nobody may want to know any more.
                    let _ = batch.answer.send(Ok(answer.ids));
                }
            }
            Ok(None) => break broken(),
            Err(status) => break ClientError::from(status),
        }
    };
    room.close();
    let left = {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.over = Some(error.clone());
        std::mem::take(&mut waiting.batches)
    };
    for (index, batch) in left.into_iter().enumerate() {
        let cause = if index == 0 { error.clone() } else { broken() };
        let _ = batch.answer.send(Err(cause));
    }
}

//! Clients that submit over HTTP without a pause, and try again as a client should: at another node, with the same idempotency key,
//! until they have an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use scheduler_examples::{Answer, Api};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Accepted, now};

/// Numbers of one submitter's tasks begin here, times its own number from 1.
pub(crate) const NUMBERS: u64 = 1 << 32;
/// Until the next try.
const BACKOFF: Duration = Duration::from_millis(100);
/// A try that has no answer by then is given up: the server may be stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// What submitters know.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Tasks that were accepted, by their number.
    pub(crate) accepted: Mutex<BTreeMap<u64, Accepted>>,
    /// Tries that were not accepted, by why.
    pub(crate) refusals: Mutex<BTreeMap<String, u64>>,
}

/// How much they submit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// How many clients.
    pub(crate) clients: u32,
    /// Tasks in a second of all clients together.
    pub(crate) rate: f64,
    /// The longest work of a task, in milliseconds; at least 1.
    pub(crate) longest: u64,
}

/// Starts them; they end, each with an answer to its last task, when the token is cancelled.
pub(crate) fn start(
    apis: &[Api],
    path: &str,
    seed: u64,
    load: Load,
    known: &Arc<Known>,
    stop: &CancellationToken,
) -> JoinSet<anyhow::Result<()>> {
    let mut clients = JoinSet::new();
    let between = Duration::from_secs_f64(f64::from(load.clients) / load.rate);
    for client in 0..load.clients {
        let (apis, path, known, stop) = (apis.to_vec(), path.to_owned(), Arc::clone(known), stop.clone());
        let offset = between.mul_f64(f64::from(client) / f64::from(load.clients));
        clients.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(client) << 32));
            let mut at = random.usize(0..apis.len());
            let begin = tokio::time::Instant::now() + offset;
            let mut ticks = tokio::time::interval_at(begin, between);
            // A client that had to wait makes up for it, so that waiting is seen in the times and not in the load.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            for number in (u64::from(client) + 1) * NUMBERS.. {
                let due = tokio::select! {
                    due = ticks.tick() => due,
                    () = stop.cancelled() => break,
                };
                let late = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
                let task = json!({
                    "number": number,
                    "milliseconds": random.u64(1..=load.longest),
                    "due": now().saturating_sub(late),
                });
                let accepted = submit(&apis, &mut at, &path, number, &task, &known).await?;
                known.accepted.lock().await.insert(number, accepted);
            }
            Ok(())
        });
    }
    clients
}

/// Submits until it is accepted. A refusal that trying again cannot change is an error.
async fn submit(
    apis: &[Api],
    at: &mut usize,
    path: &str,
    number: u64,
    task: &serde_json::Value,
    known: &Known,
) -> anyhow::Result<Accepted> {
    let asked = now();
    loop {
        let request = apis[*at]
            .request(Method::POST, path)
            .header("Idempotency-Key", number.to_string())
            .timeout(PATIENCE)
            .json(task);
        let answer = match request.send().await {
            Ok(response) => Answer::of(response).await,
            Err(problem) => Err(problem.into()),
        };
        let refusal = match answer {
            Ok(answer) => {
                if let (true, Some(id)) = (answer.status.is_success(), answer.body["id"].as_str()) {
                    return Ok(Accepted {
                        id: id.to_owned(),
                        asked,
                        answered: now(),
                        has_key: true,
                    });
                }
                anyhow::ensure!(
                    answer.status.is_server_error() || answer.status.as_u16() == 429,
                    "task {number} was refused: {} {}",
                    answer.status,
                    answer.body
                );
                let detail = answer.body["detail"].as_str().unwrap_or_default();
                // Which shard it is makes no difference.
                let detail: String = detail.chars().filter(|letter| !letter.is_ascii_digit()).collect();
                format!("{}: {detail}", answer.status.as_u16())
            }
            Err(problem) => match problem.downcast_ref::<reqwest::Error>() {
                Some(error) if error.is_timeout() => format!("no answer in {} s", PATIENCE.as_secs()),
                Some(error) if error.is_connect() => "no connection".to_owned(),
                _ => "the connection broke".to_owned(),
            },
        };
        *known.refusals.lock().await.entry(refusal).or_default() += 1;
        *at = (*at + 1) % apis.len();
        tokio::time::sleep(BACKOFF).await;
    }
}

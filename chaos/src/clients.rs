//! Clients that submit without a pause, and try again as a client should: with the same idempotency key until they have an answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use scheduler_examples::{Answer, Api};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How many there are.
const CLIENTS: u64 = 8;
/// Numbers of one client's tasks begin here, times its own number.
const NUMBERS: u64 = 1_000_000_000;
/// Until the next try.
const BACKOFF: Duration = Duration::from_millis(200);
/// A try that has no answer by then is given up: the server may be stopped.
const PATIENCE: Duration = Duration::from_secs(5);

/// What clients know: the ids of tasks that were accepted, by their number, and how often they had to try again.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) accepted: Mutex<BTreeMap<u64, String>>,
    pub(crate) retries: AtomicU64,
}

/// Starts them; they end, each with an answer to its last task, when the token is cancelled.
pub(crate) fn start(
    api: &Api,
    path: &str,
    seed: u64,
    rate: u32,
    known: &Arc<Known>,
    stop: &CancellationToken,
) -> JoinSet<anyhow::Result<()>> {
    let mut clients = JoinSet::new();
    let between =
        Duration::from_secs_f64(f64::from(u32::try_from(CLIENTS).unwrap_or(1)) / f64::from(rate.max(1)));
    for client in 0..CLIENTS {
        let (api, path, known, stop) = (api.clone(), path.to_owned(), Arc::clone(known), stop.clone());
        clients.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed ^ (client << 32));
            let mut ticks = tokio::time::interval(between);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in client * NUMBERS.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => break,
                }
                let id = submit(&api, &path, number, random.u64(1..30), &known).await?;
                known.accepted.lock().await.insert(number, id);
            }
            Ok(())
        });
    }
    clients
}

/// Submits until it is accepted. A refusal that trying again cannot change is an error.
async fn submit(
    api: &Api,
    path: &str,
    number: u64,
    milliseconds: u64,
    known: &Known,
) -> anyhow::Result<String> {
    let body = json!({"number": number, "milliseconds": milliseconds});
    loop {
        let request = api
            .request(reqwest::Method::POST, path)
            .header("Idempotency-Key", number.to_string())
            .timeout(PATIENCE)
            .json(&body);
        let answer = match request.send().await {
            Ok(response) => Answer::of(response).await.ok(),
            Err(_) => None,
        };
        if let Some(answer) = answer {
            if let (true, Some(id)) = (answer.status.is_success(), answer.body["id"].as_str()) {
                return Ok(id.to_owned());
            }
            anyhow::ensure!(
                answer.status.is_server_error() || answer.status.as_u16() == 429,
                "task {number} was refused: {} {}",
                answer.status,
                answer.body
            );
        }
        known.retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(BACKOFF).await;
    }
}

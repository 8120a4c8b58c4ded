//! When the faults are over: has every accepted task ended, and do the shards' accounts add up?

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::{StreamExt as _, stream};
use scheduler_examples::Api;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::ledger::Accepted;

/// How long accepted tasks may take to end when everything is whole again.
pub(crate) const HEALING: Duration = Duration::from_mins(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(300);
/// Tasks that are asked for at once.
const ASKING: usize = 32;
/// Tasks on a page.
const PAGE: usize = 1_000;

/// What a node answers about one of its partitions.
#[derive(Clone, Debug, Deserialize)]
pub struct Audit {
    /// Which.
    pub partition: u32,
    /// Offsets of its log.
    pub offsets: u64,
    /// Ended as results.
    pub finished: u64,
    /// Dead letters.
    pub dead: u64,
    /// In memory.
    pub live: u64,
    /// In the store.
    pub parked: u64,
    /// Offsets that never had a task.
    pub absent: u64,
    /// Lost by the log.
    pub lost: u64,
    /// Whether these are all offsets.
    pub adds_up: bool,
}

/// Waits until nothing is waiting or running any more. Not in time is no error here: the states tell.
pub(crate) async fn drained(apis: &[Api], path: &str) {
    let deadline = Instant::now() + HEALING;
    for api in apis.iter().cycle() {
        if Instant::now() > deadline {
            return;
        }
        let counts = api
            .get(path)
            .await
            .ok()
            .filter(|answer| answer.status.is_success());
        let rest = counts.and_then(|answer| {
            let counts = &answer.body["counts"];
            ["backlog", "ready", "delayed", "running"]
                .iter()
                .map(|which| counts[which].as_u64())
                .sum::<Option<u64>>()
        });
        if rest == Some(0) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Accepted tasks that have not succeeded, with what they are. A duplicate of another task has not to succeed by itself.
pub(crate) async fn unfinished(
    api: &Api,
    path: &str,
    accepted: &BTreeMap<u64, Accepted>,
) -> anyhow::Result<Vec<String>> {
    let mut missing: BTreeMap<&str, u64> = accepted
        .iter()
        .map(|(number, task)| (task.id.as_str(), *number))
        .collect();
    let mut cursor = String::new();
    loop {
        let page = format!("{path}/tasks?state=succeeded&limit={PAGE}{cursor}");
        let page = api.get(&page).await?.ok().context("a list of tasks")?;
        for task in page["items"].as_array().into_iter().flatten() {
            missing.remove(task["id"].as_str().unwrap_or_default());
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let deadline = Instant::now() + HEALING;
    let unfinished = stream::iter(missing.into_iter().map(|(id, number)| (id.to_owned(), number)))
        .map(|(id, number)| async move {
            let mut last = "no answer".to_owned();
            let ended = timeout_at(deadline, async {
                loop {
                    match api.get(&format!("{path}/tasks/{id}?wait=10s")).await {
                        Ok(answer) if answer.status == reqwest::StatusCode::OK => {
                            last = answer.body.to_string();
                            let error = answer.body["error"].as_str().unwrap_or_default();
                            return answer.body["state"] == "succeeded"
                                || error.starts_with("a duplicate of task");
                        }
                        Ok(answer) => last = format!("{} {}", answer.status, answer.body),
                        Err(error) => last = error.to_string(),
                    }
                    sleep(LOOK).await;
                }
            })
            .await;
            (!ended.unwrap_or(false)).then(|| format!("{id} (number {number}): {last}"))
        })
        .buffer_unordered(ASKING)
        .filter_map(std::future::ready)
        .collect()
        .await;
    Ok(unfinished)
}

/// The audits of all partitions, when each has one node that audits it.
pub(crate) async fn audits(apis: &[Api], path: &str, partitions: u32) -> anyhow::Result<Vec<Audit>> {
    let deadline = Instant::now() + HEALING;
    loop {
        let mut audits = Vec::new();
        for api in apis {
            let answer = api.get(&format!("{path}/audit")).await?;
            if answer.status.is_success() {
                audits.extend(serde_json::from_value::<Vec<Audit>>(answer.body)?);
            }
        }
        audits.sort_by_key(|audit| audit.partition);
        let found: Vec<u32> = audits.iter().map(|audit| audit.partition).collect();
        // What is still on its way, or not all read again, has not settled.
        let has_settled = audits.iter().all(|audit| audit.adds_up && audit.live == 0);
        if found.iter().copied().eq(0..partitions) && (has_settled || Instant::now() > deadline) {
            return Ok(audits);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "of {partitions} partitions nodes audit {found:?}, although everything is whole again"
        );
        sleep(LOOK).await;
    }
}

/// What the audits say that must not be; `ends` is how long the log says that each partition is.
pub(crate) fn problems(audits: &[Audit], ends: Option<&[u64]>) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, audit) in audits.iter().enumerate() {
        let end = ends.and_then(|ends| ends.get(at)).copied();
        if !audit.adds_up {
            problems.push(format!("an audit does not add up: {audit:?}"));
        }
        if audit.lost + audit.dead + audit.live > 0 {
            problems.push(format!("an audit has what nobody should find: {audit:?}"));
        }
        if end.is_some_and(|end| end != audit.offsets) {
            problems.push(format!(
                "the log of partition {} ends at {}, and its shard has seen {}",
                audit.partition,
                end.unwrap_or_default(),
                audit.offsets
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_that_is_short_of_the_log_or_of_itself_is_a_problem() {
        let good = Audit {
            partition: 0,
            offsets: 10,
            finished: 9,
            dead: 0,
            live: 0,
            parked: 0,
            absent: 1,
            lost: 0,
            adds_up: true,
        };
        assert!(problems(std::slice::from_ref(&good), Some(&[10])).is_empty());
        assert!(problems(std::slice::from_ref(&good), Some(&[11]))[0].contains("ends at 11"));
        let lossy = Audit {
            lost: 1,
            ..good.clone()
        };
        assert!(problems(&[lossy], None)[0].contains("nobody should find"));
        let short = Audit {
            adds_up: false,
            ..good
        };
        assert!(problems(&[short], None)[0].contains("does not add up"));
    }
}

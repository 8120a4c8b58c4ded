//! Every server is restarted, one after the other, under load: what do those who submit and those who wait notice?

use std::fmt;
use std::time::Duration;

use tokio::time::sleep;

use super::Percentiles;
use crate::ledger::{Accepted, Happened, Ran, now};
use crate::options::Options;
use crate::plan::Fault;
use crate::report::Report;
use crate::scene::{Flow, Scene};

const FLOW: Flow = Flow {
    partitions: 12,
    longest: 10,
    over_http: 1.0,
};
/// Load before anything counts: connections, shards on their places.
const WARM_UP: Duration = Duration::from_secs(10);
/// Between two restarts, as whoever restarts a cluster waits until a node has proved itself.
const BETWEEN: Duration = Duration::from_secs(5);

/// What was noticed.
#[derive(Clone, Debug)]
pub struct Rolling {
    /// From the first SIGTERM until some seconds after the last server was back.
    pub took: Duration,
    /// From when a task was to be submitted to its start, before the restarts.
    pub start_before: Percentiles,
    /// The same while servers were restarted.
    pub start_during: Percentiles,
    /// From the request to its answer, with all retries, before the restarts.
    pub answer_before: Percentiles,
    /// The same while servers were restarted.
    pub answer_during: Percentiles,
    /// What came of all tasks.
    pub report: Report,
}

/// Restarts every server once under load.
///
/// # Errors
///
/// As [`run`](crate::run).
pub async fn rolling(options: &Options) -> anyhow::Result<Rolling> {
    let scene = Scene::begin(options, FLOW).await?;
    sleep(WARM_UP).await;
    let steady = now();
    sleep(options.length).await;
    let begin = now();
    let mut faults = Vec::new();
    for node in 0..scene.cast.nodes.len() {
        let from = now();
        crate::say(&format!("restart of server {node}"));
        scene.cast.restart(node).await?;
        faults.push(Happened {
            fault: Fault::RestartServer(node),
            from,
            to: now(),
        });
        sleep(BETWEEN).await;
    }
    let end = now();
    let title = format!(
        "Rolling restart of {} servers under {} tasks/s",
        faults.len(),
        options.rate
    );
    let again = format!("--release rolling --rate {}", options.rate);
    let evidence = scene.end(title, &again, faults).await?;
    let waited = |from: u64, to: u64| {
        let due = move |ran: &&Ran| (from..to).contains(&ran.due) && ran.attempt == 1;
        let ran = evidence.ran.iter().filter(due);
        Percentiles::of(ran.map(|ran| ran.started.saturating_sub(ran.due)))
    };
    let answered = |from: u64, to: u64| {
        let asked = move |task: &&Accepted| (from..to).contains(&task.asked);
        let tasks = evidence.accepted.values().filter(asked);
        Percentiles::of(tasks.map(|task| task.answered - task.asked))
    };
    Ok(Rolling {
        took: Duration::from_millis(end - begin),
        start_before: waited(steady, begin),
        start_during: waited(begin, end),
        answer_before: answered(steady, begin),
        answer_during: answered(begin, end),
        report: evidence.report,
    })
}

impl fmt::Display for Rolling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.report)?;
        writeln!(f, "It took {:.1} s.\n", self.took.as_secs_f64())?;
        writeln!(f, "| milliseconds | tasks | p50 | p90 | p99 | longest |")?;
        writeln!(f, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for (what, times) in [
            ("from due to start, before", &self.start_before),
            ("from due to start, while servers restart", &self.start_during),
            ("from request to answer, before", &self.answer_before),
            (
                "from request to answer, while servers restart",
                &self.answer_during,
            ),
        ] {
            writeln!(f, "| {what} | {times} |")?;
        }
        Ok(())
    }
}

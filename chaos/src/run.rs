use tokio::time::sleep;

use crate::options::Options;
use crate::plan::draw;
use crate::report::Report;
use crate::scene::{Flow, Scene};

const FLOW: Flow = Flow {
    partitions: 6,
    longest: 30,
    over_http: 0.75,
};

/// Starts everything, lets the faults happen, heals, waits for every accepted task, and weighs the evidence.
///
/// # Errors
///
/// The harness itself failed: a process did not start, or ended by itself. A broken promise is no error but in the report.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let scene = Scene::begin(options, FLOW).await?;
    let mut faults = Vec::new();
    for step in draw(options.seed, options.length, &options.scope()) {
        sleep(step.after).await;
        faults.extend(scene.cast.suffer(&step).await?);
    }
    let Options {
        seed, length, rate, ..
    } = options;
    let minutes = length.as_secs_f64() / 60.0;
    let title = format!("Chaos, seed {seed}, {minutes:.1} minutes, {rate} tasks/s");
    let mut again = format!("--minutes {minutes} --seed {seed} --rate {rate}");
    for name in &options.only {
        again.push_str(" --only ");
        again.push_str(name);
    }
    Ok(scene.end(title, &again, faults).await?.report)
}

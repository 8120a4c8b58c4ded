//! Short runs with fixed seeds, on real processes.

use std::time::Duration;

use scheduler_chaos::{Options, Report, Stage, run};

async fn report(stage: Stage, seed: u64, seconds: u64) -> anyhow::Result<Report> {
    let options = Options {
        stage,
        seed,
        length: Duration::from_secs(seconds),
        rate: 100,
        ..Options::default()
    };
    run(&options).await
}

#[tokio::test]
async fn a_cluster_under_faults_loses_nothing_and_repeats_nothing_without_an_excuse() {
    let stage = Stage::Cluster { nodes: 3, brokers: 1 };
    let report = report(stage, 5, 60).await.unwrap();
    assert_eq!(report.problems(), Vec::<String>::new(), "{report}");
}

#[tokio::test]
async fn a_server_alone_under_faults_loses_nothing_and_repeats_nothing_without_an_excuse() {
    let report = report(Stage::Embedded, 5, 20).await.unwrap();
    assert_eq!(report.problems(), Vec::<String>::new(), "{report}");
}

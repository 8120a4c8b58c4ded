//! Short runs with fixed seeds, on real processes.

use std::time::Duration;

use scheduler_chaos::{Options, Stage, run};

async fn holds(stage: Stage, seed: u64, seconds: u64) {
    let options = Options {
        stage,
        seed,
        length: Duration::from_secs(seconds),
        rate: 100,
        ..Options::default()
    };
    let report = run(&options).await.unwrap();
    println!("{report}");
    assert_eq!(report.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_cluster_under_faults_loses_nothing_and_repeats_nothing_without_an_excuse() {
    let stage = Stage::Cluster {
        nodes: 3,
        brokers: 1,
    };
    holds(stage, 5, 60).await;
}

#[tokio::test]
async fn a_server_alone_under_faults_loses_nothing_and_repeats_nothing_without_an_excuse() {
    holds(Stage::Embedded, 5, 20).await;
}

//! A short run with a fixed seed, on real processes.

use std::time::Duration;

use scheduler_chaos::{Options, run};

#[tokio::test]
async fn a_minute_of_faults_loses_nothing_and_repeats_nothing_without_an_excuse() {
    let options = Options {
        seed: 5,
        length: Duration::from_mins(1),
        ..Options::default()
    };
    let report = run(&options).await.unwrap();
    println!("{report}");
    assert_eq!(report.problems(), Vec::<String>::new());
}

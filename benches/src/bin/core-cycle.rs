//! A number of task lives on one shard, for a program that counts instructions: `core-cycle LIVE TASKS`.

use std::process::ExitCode;

use scheduler_benches::{BATCH, Harness};

fn main() -> ExitCode {
    let numbers: Vec<u32> = std::env::args()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    let [live, tasks] = numbers[..] else {
        return ExitCode::from(2);
    };
    let mut harness = Harness::new(live);
    for _ in 0..tasks / BATCH {
        harness.cycle();
    }
    ExitCode::SUCCESS
}

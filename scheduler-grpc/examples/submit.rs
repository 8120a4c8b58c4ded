//! Submits many tasks over one stream, waits for the last of them, and says how fast that went.
//!
//! ```sh
//! cargo run -p scheduler-grpc --example submit -- http://127.0.0.1:50050 examples coreutils '{"text": "to be or not to be"}' 1000
//! ```
//!
//! `SCHEDULER_API_KEY` is the key, where the scheduler wants one.
#![expect(clippy::print_stdout, reason = "it is a program for people")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use scheduler_grpc::client::{Client, ClientConfig, NewTask, PipelineRef};

/// Tasks of one batch.
const BATCH: usize = 500;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, application, pipeline, params, count] = &arguments[..] else {
        return Err("usage: submit ADDRESS APPLICATION PIPELINE PARAMS COUNT".into());
    };
    let mut left: usize = count.parse()?;
    let config = ClientConfig {
        api_key: std::env::var("SCHEDULER_API_KEY").ok(),
        ..ClientConfig::default()
    };
    let pipeline = PipelineRef {
        application: application.clone(),
        pipeline: pipeline.clone(),
    };

    let client = Client::connect(address, config).await?;
    let mut submitter = client.submitter(&pipeline).await?;
    let began = Instant::now();
    let mut receipts = VecDeque::new();
    let (mut taken, mut last) = (0, None);
    while left > 0 || !receipts.is_empty() {
        // A receipt is redeemed once the submitter has no room anyway, so what is kept stays small.
        if left == 0 || receipts.len() >= ClientConfig::default().submit_in_flight {
            if let Some(receipt) = receipts.pop_front() {
                let receipt: scheduler_grpc::client::Receipt = receipt;
                let ids = receipt.ids().await?;
                taken += ids.len();
                last = ids.into_iter().next_back();
            }
        } else {
            let size = left.min(BATCH);
            left -= size;
            let batch = vec![NewTask::json(params.clone()); size];
            receipts.push_back(submitter.send(batch).await?);
        }
    }
    let rate = f64::from(u32::try_from(taken)?) / began.elapsed().as_secs_f64();
    println!("{taken} tasks are durable: {rate:.0} a second");

    if let Some(id) = last {
        let task = client.wait(&pipeline, &id, Duration::from_mins(1)).await?;
        println!(
            "{id}: {:?} {}",
            task.state(),
            String::from_utf8_lossy(&task.output)
        );
    }
    Ok(())
}

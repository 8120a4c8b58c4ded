//! A worker of its own kind: counts the words of texts. It runs until Ctrl-C or SIGTERM, and then ends its tasks first.
//!
//! With a server running (`cargo run -p scheduler-server`), in three terminals:
//!
//! ```sh
//! curl localhost:8080/api/applications/texts/pipelines -H 'content-type: application/json' -d '{"name":"count"}'
//! cargo run -p scheduler-examples --example worker
//! curl 'localhost:8080/api/applications/texts/pipelines/count?wait=10s' -H 'content-type: application/json' -d '{"text":"to be or not to be"}'
//! ```

use std::collections::BTreeMap;

use scheduler_sdk::{Context, TaskError, Worker};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
struct Count {
    words: usize,
    most_frequent: String,
}

async fn count(params: Text, context: Context) -> Result<Count, TaskError> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for word in params.text.split_whitespace() {
        *counts.entry(word).or_default() += 1;
    }
    context
        .progress(&format!("{} different words", counts.len()))
        .await;
    let Some((most_frequent, _)) = counts.iter().max_by_key(|(_, count)| **count) else {
        // Trying again will not add words.
        return Err(TaskError::permanent("the text has no words"));
    };
    Ok(Count {
        words: counts.values().sum(),
        most_frequent: (*most_frequent).to_owned(),
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A worker that cannot reach its scheduler, or has no pipeline there, says so here and tries on.
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let setting = |name, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let mut worker = Worker::builder()
        .server(setting("SCHEDULER_URL", "http://127.0.0.1:50050"))
        .application(setting("SCHEDULER_APPLICATION", "texts"))
        .pipeline(setting("SCHEDULER_PIPELINE", "count"))
        .concurrency(8)
        .handler(count);
    if let Ok(key) = std::env::var("SCHEDULER_API_KEY") {
        worker = worker.api_key(key);
    }
    worker
        .build()?
        .with_shutdown(scheduler_sdk::terminated())
        .run()
        .await?;
    Ok(())
}

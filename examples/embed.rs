//! A service that embeds the scheduler: tasks that survive a crash, in one process and one directory, with no other service.
//!
//! `cargo run -p scheduler-examples --example embed [DIRECTORY]`
#![expect(clippy::print_stdout, reason = "it shows what comes of it")]

use std::time::Duration;

use bytes::Bytes;
use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::gateway::{AdminApi as _, Caller, NewPipeline, TaskApi as _};
use scheduler_core::task::TaskSpec;
use scheduler_embedded::{Embedded, EmbeddedConfig};
use scheduler_runtime::{Failure, Node};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // A directory that is given is kept: what was accepted in it is done by the next run, whatever became of this one.
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args_os()
        .nth(1)
        .unwrap_or_else(|| temporary.path().into());
    let embedded = Embedded::open(directory, EmbeddedConfig::default())?;
    let node = Node::builder(embedded.log, embedded.store).start().await?;

    let me = Caller {
        client: "default".parse()?,
    };
    node.add_client(me.client.clone()).await?;
    let (application, pipeline): (Name, Name) = ("letters".parse()?, "shout".parse()?);
    let path = PipelinePath {
        client: me.client.clone(),
        application,
        pipeline: pipeline.clone(),
    };
    let new = NewPipeline {
        name: pipeline,
        deployment: None,
        definition: None,
        partitions: None,
        topic: None,
        policy: None,
    };
    if node.pipeline(&path).await.is_err() {
        node.create_pipeline(&me, &path.application, new).await?;
    }

    // Eight at once in this process; workers in other processes could help with the same pipeline.
    let worker = tokio::spawn({
        let (node, path) = (node.clone(), path.clone());
        async move {
            node.work(&path, 8, async |params: Bytes| {
                match std::str::from_utf8(&params) {
                    Ok(text) => Ok(text.to_uppercase().into()),
                    Err(error) => Err(Failure::Permanent(format!("the params are no text: {error}"))),
                }
            })
            .await
        }
    });

    let words = ["nothing", "accepted", "is", "lost"];
    // When this answers, the tasks are on the disk.
    let ids = node.submit(&path, words.map(TaskSpec::new).into()).await?;
    for id in ids {
        let task = node.wait(&path, id, Duration::from_secs(30)).await?;
        println!(
            "{id}: {:?}, {}",
            task.state,
            String::from_utf8_lossy(&task.output)
        );
    }

    node.shutdown().await;
    worker.await??;
    Ok(())
}

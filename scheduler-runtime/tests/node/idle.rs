use std::time::Duration;

use bytes::Bytes;
use scheduler_core::id::PipelineId;
use scheduler_core::policy::PipelinePolicy;
use scheduler_core::port::catalog::{Application, Catalog as _, Client, Pipeline};
use scheduler_core::port::gateway::{TaskApi as _, WorkerApi as _};
use scheduler_core::port::log::TopicSettings;
use scheduler_core::time::Timestamp;
use scheduler_testkit::fault::Fault;

use crate::world::{ANNA, EVER, World, me, path, soon, tasks};

/// A world whose catalog has so many pipelines, of which none was ever used.
async fn world(pipelines: usize) -> World {
    let world = World::default();
    let (client, created_at) = (me().client, Timestamp::ZERO);
    let of_client = Client {
        name: client.clone(),
        created_at,
    };
    world.store.add_client(of_client).await.unwrap();
    let application = Application {
        client,
        name: path("p").application,
        created_at,
    };
    world.store.add_application(application).await.unwrap();
    for number in 0..pipelines {
        let pipeline = Pipeline {
            id: PipelineId(0),
            path: path(&format!("p{number}")),
            version: 0,
            created_at,
            partitions: 1,
            key_partitions: 1,
            topic: TopicSettings::default(),
            policy: PipelinePolicy::default(),
            paused: false,
            definition: Bytes::new(),
            deployment: None,
            deleting: false,
        };
        world.store.add_pipeline(pipeline).await.unwrap();
    }
    world
}

#[tokio::test(start_paused = true)]
async fn shards_come_up_a_few_at_a_time() {
    let world = world(500).await;
    world.faults.set("claim", Fault::Held);
    let _node = world.start().await;
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert_eq!(world.faults.calls("claim"), 64);
    world.faults.heal("claim");
    soon(world.faults.called("claim", 500)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_idle_pipelines_do_nothing_but_find_out_every_five_minutes_whether_they_were_replaced() {
    let world = world(1_000).await;
    let node = world.start().await;
    soon(world.faults.called("next", 1_000)).await;
    // Each has said once that it lives, many in one transaction.
    tokio::time::sleep(Duration::from_mins(1)).await;
    let calls = || {
        ["claim", "keys", "ensure", "bounds", "parked", "next", "truncate"]
            .map(|call| world.faults.calls(call))
    };
    let (before, saves) = (calls(), world.faults.calls("save"));
    assert_eq!(before[0], 1_000);
    assert!(saves <= 1_000 / 10, "{saves} transactions");
    tokio::time::sleep(Duration::from_hours(5)).await;
    assert_eq!(calls(), before);
    // One transaction each time, for all of them.
    assert_eq!(world.faults.calls("save") - saves, 5 * 12);
    // And any of them is there when it is wanted.
    let path = path("p777");
    soon(node.submit(&path, tasks(1))).await.unwrap();
    assert_eq!(soon(node.poll(&path, ANNA, 1, EVER)).await.unwrap().len(), 1);
}

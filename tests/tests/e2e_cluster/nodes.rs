//! What there is only with several nodes, or with Kafka.

use nix::sys::signal::Signal;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::util::Timeout;
use reqwest::Method;
use serde_json::{Value, json};

use crate::worker::{Ledger, LedgerWorker};
use crate::world::{Pipeline, World, run};

/// Both workers' ledgers.
fn ledger(workers: &[LedgerWorker]) -> Ledger {
    let mut ledger = Ledger::default();
    for worker in workers {
        ledger.add(worker.ledger());
    }
    ledger
}

/// Tasks on all partitions, half of which wait in their workers' hands.
async fn half_held(pipeline: &Pipeline, workers: &mut [LedgerWorker]) -> Vec<String> {
    let mut ids = pipeline
        .submit_all((0..100).map(|n| json!({"n": n, "hold": true})))
        .await;
    for worker in workers {
        worker.says("start").await;
    }
    ids.extend(pipeline.submit_all((0..100).map(|n| json!({"n": n}))).await);
    ids
}

#[test]
fn a_killed_nodes_tasks_end_at_the_other_and_nothing_that_a_living_worker_did_is_repeated() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("killed", json!({"partitions": 8})).await;
        // Neither has room for all that is held.
        let mut workers: Vec<_> = (0..2)
            .map(|n| LedgerWorker::start(&world, &pipeline, &format!("worker-{n}"), 75))
            .collect();
        let ids = half_held(&pipeline, &mut workers).await;
        world.nodes[0].server.take().unwrap().kill().await.unwrap();
        for worker in &mut workers {
            worker.release().await;
        }
        let pipeline = Pipeline {
            api: world.nodes[1].server().api(),
            ..pipeline
        };
        for id in &ids {
            ended(&pipeline, id).await;
        }
        let ledger = ledger(&workers);
        assert_eq!(ledger.ended.len(), 200);
        assert_eq!(ledger.repeated(), []);
        world.nodes[0].start().await;
        world.stop().await;
    });
}

/// Waits for a task's success, also while its shard is on no node.
async fn ended(pipeline: &Pipeline, id: &str) {
    loop {
        let path = format!("{}?wait=60s", pipeline.task_path(id));
        let answer = pipeline.api.get(&path).await.unwrap();
        match answer.status.as_u16() {
            200 => return assert_eq!(answer.body["state"], "succeeded", "{}", answer.body),
            // On its way from the dead node; the answer comes after it was looked for.
            202 | 503 => (),
            _ => panic!("{}: {}", answer.status, answer.body),
        }
    }
}

#[test]
fn nodes_that_come_and_go_in_order_repeat_nothing_and_refuse_nothing() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("moves", json!({"partitions": 8})).await;
        let mut workers = [LedgerWorker::start(&world, &pipeline, "worker-0", 150)];
        let mut ids = half_held(&pipeline, &mut workers).await;
        world.add_node(&[]);
        world.nodes[2].start().await;
        world.nodes[0].server().signal(Signal::SIGTERM).unwrap();
        let survivor = Pipeline {
            api: world.nodes[2].server().api(),
            ..pipeline
        };
        for n in 0..100 {
            ids.push(survivor.submit(json!({"later": n})).await);
        }
        workers[0].release().await;
        world.nodes[0].stop().await;
        for id in &ids {
            ended(&survivor, id).await;
        }
        let ledger = ledger(&workers);
        assert_eq!(ledger.ended.len(), 300);
        assert_eq!(ledger.repeated(), []);
        world.stop().await;
    });
}

#[test]
fn partitions_that_a_live_pipeline_gets_are_worked_on() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("grows", json!({})).await;
        let mut worker = LedgerWorker::start(&world, &pipeline, "worker", 4);
        pipeline.submit(json!({})).await;
        worker.says("end").await;
        let change = json!({"partitions": 6});
        let grown = pipeline.api.send(Method::PATCH, &pipeline.path, &change);
        assert_eq!(grown.await.unwrap().ok().unwrap()["partitions"], 6);
        let ids: Vec<String> = {
            let mut ids = Vec::new();
            for n in 0..60 {
                ids.push(pipeline.submit(json!({"n": n})).await);
            }
            ids
        };
        for id in &ids {
            pipeline.output(id).await;
        }
        let partitions: std::collections::BTreeSet<u64> =
            ids.iter().map(|id| crate::worker::place_of(id).0).collect();
        assert!(partitions.len() > 1, "tasks lie in new partitions as well");
        world.stop().await;
    });
}

#[test]
fn records_of_any_kafka_producer_are_tasks_and_wrong_ones_are_dead_letters() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("plain", json!({})).await;
        let number = pipeline.view().await["number"].clone();
        let topic = format!("{}.default.myname.plain.{number}", world.storage.name);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &world.storage.kafka)
            .create()
            .unwrap();
        for (priority, params) in [("9", r#"{"plain":1}"#), ("urgent", r#"{"plain":2}"#)] {
            let header = Header {
                key: "scheduler-priority",
                value: Some(priority),
            };
            let record = BaseRecord::<str, str>::to(&topic)
                .payload(params)
                .headers(OwnedHeaders::new().insert(header));
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Timeout::Never).unwrap();
        let worker = LedgerWorker::start(&world, &pipeline, "worker", 1);
        let view = pipeline
            .until_view("one is done and one is dead", |view| {
                view["counts"]["succeeded"] == 1 && view["counts"]["dead"] == 1
            })
            .await;
        assert_eq!(view["counts"]["ready"], 0, "{view}");
        assert_eq!(worker.ledger().ended.len(), 1);
        let letters = format!("{}/dead-letters", pipeline.path);
        let letters = pipeline.api.get(&letters).await.unwrap().ok().unwrap();
        let letter: &Value = &letters["items"][0];
        assert_eq!(letter["reason"], "undecodable", "{letter}");
        assert!(letter.to_string().contains("scheduler-priority"), "{letter}");
        world.stop().await;
    });
}

//! Nothing that was accepted is lost, whatever is killed; and what lives on is not done twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::worker::{LedgerWorker, place_of};
use crate::world::{Pipeline, World, eventually, run};

/// Submits tasks one after the other until the server is there no more; the ids that it answered.
async fn submit_until_cut_off(
    pipeline: Pipeline,
    count: usize,
    accepted: Arc<AtomicUsize>,
    half: Arc<Notify>,
) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let Ok(answer) = pipeline.api.post(&pipeline.path, &json!({"n": n})).await else {
            break;
        };
        if answer.status != 202 {
            break;
        }
        ids.push(answer.body["id"].as_str().unwrap().to_owned());
        if accepted.fetch_add(1, Ordering::Relaxed) + 1 == 5_000 {
            half.notify_one();
        }
    }
    ids
}

#[test]
fn a_server_killed_amid_ten_thousand_submissions_and_a_thousand_leases_loses_nothing_and_repeats_nothing() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("crash", json!({"partitions": 4})).await;
        let mut workers: Vec<LedgerWorker> = (0..2)
            .map(|n| LedgerWorker::start(&world, &pipeline, &format!("worker-{n}"), 500))
            .collect();
        let held = pipeline
            .submit_all((0..1_000).map(|n| json!({"n": n, "hold": true})))
            .await;
        for worker in &mut workers {
            for _ in 0..500 {
                worker.says("start").await;
            }
        }

        let (accepted, half) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut clients = JoinSet::new();
        for _ in 0..20 {
            clients.spawn(submit_until_cut_off(
                pipeline.clone(),
                500,
                accepted.clone(),
                half.clone(),
            ));
        }
        half.notified().await;
        world.kill().await;
        let mut ids: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
        assert!(
            (5_000..10_000).contains(&ids.len()),
            "it was killed in the middle: {}",
            ids.len()
        );

        world.restart().await;
        ids.extend(
            pipeline
                .submit_all((ids.len()..10_000).map(|n| json!({"n": n})))
                .await,
        );
        ids.extend(held);
        for worker in &mut workers {
            worker.release().await;
        }
        assert_eq!(
            ids.iter().collect::<BTreeSet<_>>().len(),
            11_000,
            "ids are unique"
        );
        all_succeed(&pipeline, &ids).await;

        let mut ledger = workers[0].ledger();
        ledger.add(workers[1].ledger());
        let ran: BTreeSet<_> = ledger.ended.keys().copied().collect();
        let lost: Vec<_> = ids.iter().filter(|id| !ran.contains(&place_of(id))).collect();
        assert!(lost.is_empty(), "answered with 202 and never run: {lost:?}");
        assert_eq!(ledger.repeated(), [], "the workers lived, so nothing runs twice");
        world.stop().await;
    });
}

async fn all_succeed(pipeline: &Pipeline, ids: &[String]) {
    let mut asking = JoinSet::new();
    for part in ids.chunks(ids.len().div_ceil(16)) {
        let (pipeline, part) = (pipeline.clone(), part.to_vec());
        asking.spawn(async move {
            for id in part {
                let task = pipeline.ended(&id).await;
                assert_eq!(task["state"], "succeeded", "{task}");
            }
        });
    }
    asking.join_all().await;
}

#[test]
fn results_and_waiting_tasks_survive_crash_after_crash() {
    run(async {
        let mut world = World::start_with(&["--grace-seconds", "1"]).await;
        let pipeline = world.pipeline("crash", json!({})).await;
        let worker = LedgerWorker::start(&world, &pipeline, "worker", 10);
        let mut ids = Vec::new();
        for round in 0..4 {
            let more = pipeline
                .submit_all((0..100).map(|n| json!({"round": round, "n": n})))
                .await;
            // The last of them may have ended or not, and may have been saved or not.
            pipeline.ended(&more[50]).await;
            ids.extend(more);
            world.kill().await;
            world.restart().await;
        }
        all_succeed(&pipeline, &ids).await;
        assert_eq!(worker.ledger().repeated(), []);
        assert_eq!(pipeline.list("&state=succeeded", 70).await.len(), 400);
        world.stop().await;
    });
}

#[test]
fn a_window_much_smaller_than_the_backlog_and_parked_tasks_survive_crash_after_crash() {
    run(async {
        let mut world = World::start().await;
        let policy = json!({
            "window": {"max_tasks": 200, "max_span": 1_000, "park_after": "1s"},
            "checkpoint": {"interval": "50ms"},
            "retry": {"initial_backoff": "5ms"},
        });
        let pipeline = world
            .pipeline("window", json!({"policy": policy, "partitions": 2}))
            .await;
        let worker = LedgerWorker::start(&world, &pipeline, "worker", 20);
        let mut delayed = Vec::new();
        for n in 0..50 {
            delayed.push(pipeline.submit_with("?delay=4s", json!({"delayed": n})).await);
        }
        let ids = pipeline.submit_all((0..6_000).map(|n| json!({"n": n}))).await;
        for crash in 1..4 {
            pipeline.ended(&ids[crash * 1_500]).await;
            world.kill().await;
            world.restart().await;
        }
        all_succeed(&pipeline, &ids).await;
        all_succeed(&pipeline, &delayed).await;
        assert_eq!(worker.ledger().ended.len(), 6_050);
        assert_eq!(worker.ledger().repeated(), []);
        assert_eq!(pipeline.list("&state=succeeded", 1_000).await.len(), 6_050);
        world.stop().await;
    });
}

#[test]
fn a_task_whose_worker_is_killed_runs_again_on_another_and_its_commands_are_gone() {
    run(async {
        let mut world = World::start().await;
        let mark = world.path().join("mark");
        let mark = mark.to_str().unwrap();
        let first = format!("if [ -e {mark} ]; then touch {mark}.again; else touch {mark}; fi");
        let second = format!("if [ -e {mark}.again ]; then echo again; else sleep 1000 & wait; fi");
        let policy = json!({"timeouts": {"heartbeat": "1s"}, "retry": {"initial_backoff": "10ms"}});
        let pipeline = world
            .shell("crash", &[&first, &second], json!({"policy": policy}))
            .await;
        let id = pipeline.submit(json!({})).await;
        pipeline
            .until(&id, |task| task["progress"]["steps"][0]["commandsEnded"] == 1)
            .await;
        eventually("the second command runs", || {
            world.worker_processes().iter().any(|(_, name)| name == "sleep")
        })
        .await;
        let processes = world.worker_processes();
        let (worker, _) = processes
            .iter()
            .find(|(_, name)| name == "scheduler-worke")
            .unwrap();
        kill(Pid::from_raw(*worker), Signal::SIGKILL).unwrap();

        let output = pipeline.output(&id).await;
        assert_eq!(output["1:shell"][1], "again\n", "{output}");
        assert_eq!(pipeline.task(&id).await["attempts"], 2);
        eventually("its commands are gone", || {
            let now = world.worker_processes();
            processes
                .iter()
                .filter(|(_, name)| name == "sleep")
                .all(|old| !now.contains(old))
        })
        .await;
        world.stop().await;
        assert_eq!(world.worker_processes(), []);
    });
}

#[test]
fn workers_do_not_outlive_a_server_that_is_killed() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.shell("crash", &["sleep 1000 & wait"], json!({})).await;
        let id = pipeline.submit(json!({})).await;
        pipeline.until_state(&id, "running").await;
        eventually("the command runs", || {
            world.worker_processes().iter().any(|(_, name)| name == "sleep")
        })
        .await;
        world.kill().await;
        eventually("everything is gone", || world.worker_processes().is_empty()).await;
    });
}

#[test]
fn deployed_workers_come_back_with_a_server_that_was_killed_and_end_what_was_begun() {
    run(async {
        let mut world = World::start_with(&["--grace-seconds", "1"]).await;
        let policy = json!({"retry": {"initial_backoff": "10ms"}, "timeouts": {"heartbeat": "1s"}});
        let more = json!({"policy": policy, "replicas": {"min": 2, "max": 2}});
        let pipeline = world
            .shell("crash", &["echo {{n}} > {{pipe}}/n", "cat {{pipe}}/n"], more)
            .await;
        let ids = pipeline.submit_all((0..200).map(|n| json!({"n": n}))).await;
        pipeline.ended(&ids[60]).await;
        world.kill().await;
        world.restart().await;
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(
                pipeline.output(id).await,
                json!({"1:shell": ["", format!("{n}\n")]})
            );
        }
        world.stop().await;
        assert_eq!(world.worker_processes(), []);
    });
}

#[test]
fn a_worker_whose_executor_is_killed_is_replaced_and_its_task_runs_again() {
    run(async {
        let mut world = World::start().await;
        let mark = world.path().join("mark");
        let mark = mark.to_str().unwrap();
        let command = format!("if [ -e {mark} ]; then echo again; else touch {mark}; sleep 1000 & wait; fi");
        let policy = json!({"retry": {"initial_backoff": "10ms"}, "timeouts": {"heartbeat": "1s"}});
        let pipeline = world
            .shell("executor", &[&command], json!({"policy": policy}))
            .await;
        let id = pipeline.submit(json!({})).await;
        eventually("the command runs", || {
            world.worker_processes().iter().any(|(_, name)| name == "sleep")
        })
        .await;
        let processes = world.worker_processes();
        let (executor, _) = processes
            .iter()
            .find(|(_, name)| name == "command-executo")
            .unwrap();
        kill(Pid::from_raw(*executor), Signal::SIGKILL).unwrap();
        assert_eq!(pipeline.output(&id).await, json!({"1:shell": ["again\n"]}));
        world.stop().await;
        assert_eq!(
            world.worker_processes(),
            [],
            "what the executor had started is gone too"
        );
    });
}

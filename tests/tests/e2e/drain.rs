//! SIGTERM: what runs ends, nothing new begins, nothing is lost.

use nix::sys::signal::Signal;
use reqwest::StatusCode;
use serde_json::json;

use crate::worker::{LedgerWorker, place_of};
use crate::world::{World, run};

#[test]
fn a_worker_that_is_asked_to_end_finishes_its_task_and_takes_no_other() {
    run(async {
        let mut world = World::start().await;
        let pipeline = world.pipeline("drain", json!({})).await;
        let mut worker = LedgerWorker::start(&world, &pipeline, "first", 2);
        let running = pipeline.submit(json!({"hold": true})).await;
        worker.says("start").await;
        worker.signal(Signal::SIGTERM);
        worker.says("draining").await;
        let later = pipeline.submit(json!({})).await;
        worker.release().await;
        assert_eq!(pipeline.output(&running).await, json!({"hold": true}));
        assert!(worker.ended().await.success());
        let ledger = worker.ledger();
        assert_eq!(ledger.started.keys().collect::<Vec<_>>(), [&place_of(&running)]);
        // A lease that was on its way as the worker drained has come back; the ledger says that it was not begun.
        pipeline.until_state(&later, "queued").await;

        let _second = LedgerWorker::start(&world, &pipeline, "second", 1);
        pipeline.output(&later).await;
        world.stop().await;
    });
}

#[test]
fn a_server_that_is_asked_to_end_lets_tasks_finish_and_takes_its_workers_along() {
    run(async {
        let mut world = World::start_alone().await;
        let go = world.path().join("go");
        let started = "touch started";
        let wait = format!(
            "until [ -e {} ]; do sleep 0.02; done; echo finished",
            go.display()
        );
        let pipeline = world.shell("drain", &[started, &wait], json!({})).await;
        let running = pipeline.submit(json!({})).await;
        pipeline
            .until(&running, |task| {
                task["progress"]["steps"][0]["commandsEnded"] == 1
            })
            .await;
        let waiting = pipeline.submit(json!({})).await;
        let mut events = pipeline
            .api
            .events(&format!("{}/events", pipeline.path))
            .await
            .unwrap();
        world.signal(Signal::SIGTERM);
        // The signal is on its way: the task may end only once the server has heard it.
        while pipeline.api.get("/ready").await.unwrap().status != StatusCode::SERVICE_UNAVAILABLE {}
        std::fs::write(&go, "").unwrap();
        // The stream shows the end of the task before its own.
        let mut finished = false;
        while let Some(event) = events.next().await.unwrap() {
            finished |= event.data["id"] == running.as_str() && event.data["state"] == "succeeded";
            assert!(
                !(event.data["id"] == waiting.as_str() && event.data["state"] == "running"),
                "nothing new begins"
            );
        }
        assert!(finished);
        world.stop().await;
        assert_eq!(world.worker_processes(), [], "no worker is left");

        world.restart().await;
        let task = pipeline.task(&running).await;
        assert_eq!(
            (&task["state"], &task["attempts"]),
            (&json!("succeeded"), &json!(1)),
            "{task}"
        );
        assert_eq!(task["output"]["1:shell"][1], "finished\n");
        assert_eq!(pipeline.output(&waiting).await["1:shell"][1], "finished\n");
        world.stop().await;
    });
}

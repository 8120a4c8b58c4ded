//! The life of a pipeline.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::world::{World, eventually, run};

#[test]
fn a_pipeline_is_created_changed_paused_scaled_deleted_and_created_anew() {
    run(async {
        let mut world = World::start().await;
        let api = world.api();
        let echo = ["echo {{word}}"];
        let pipeline = world
            .shell("life", &echo, json!({"replicas": {"min": 1, "max": 3}}))
            .await;
        let pipelines = "/api/applications/myname/pipelines";

        let again = api.post(pipelines, &json!({"name": "life"})).await.unwrap();
        assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.body);
        let list = api.get(pipelines).await.unwrap().ok().unwrap();
        assert_eq!(list["items"][0]["name"], "life");
        assert_eq!(list["items"].as_array().unwrap().len(), 1);
        let applications = api.get("/api/applications").await.unwrap().ok().unwrap();
        assert_eq!(applications["items"][0]["name"], "myname");

        let first = pipeline.submit(json!({"word": "hello"})).await;
        assert_eq!(pipeline.output(&first).await, json!({"1:shell": ["hello\n"]}));

        assert_eq!(pipeline.post("/pause", &json!({})).await["paused"], true);
        let waiting = pipeline.submit(json!({"word": "patience"})).await;
        pipeline
            .until_view("it is paused with a task", |view| view["counts"]["ready"] == 1)
            .await;
        assert_eq!(pipeline.task(&waiting).await["state"], "queued");
        assert_eq!(pipeline.post("/resume", &json!({})).await["paused"], false);
        pipeline.output(&waiting).await;

        let change = json!({"policy": {"retry": {"max_attempts": 2}}});
        let changed = api
            .send(Method::PATCH, &pipeline.path, &change)
            .await
            .unwrap()
            .ok()
            .unwrap();
        assert_eq!(changed["policy"]["retry"]["max_attempts"], 2);
        assert_eq!(
            changed["policy"]["timeouts"]["run"], "1h",
            "what is not said stays: {changed}"
        );
        let change = json!({"pipeline": [{"executor": "shell", "commands": ["echo new {{word}}"]}]});
        api.send(Method::PATCH, &pipeline.path, &change)
            .await
            .unwrap()
            .ok()
            .unwrap();
        let second = pipeline.submit(json!({"word": "hello"})).await;
        assert_eq!(
            pipeline.output(&second).await,
            json!({"1:shell": ["new hello\n"]})
        );

        pipeline.post("/scale", &json!({"workers": 3})).await;
        pipeline
            .until_view("three workers", |view| view["counts"]["workers"] == 3)
            .await;
        let beyond = api
            .post(&format!("{}/scale", pipeline.path), &json!({"workers": 4}))
            .await
            .unwrap();
        assert_eq!(
            (beyond.status.as_u16(), &beyond.body["field"]),
            (400, &json!("workers"))
        );
        let number = pipeline.view().await["number"].clone();

        let busy = api.delete("/api/applications/myname").await.unwrap();
        assert_eq!(busy.status, StatusCode::CONFLICT, "{}", busy.body);
        assert_eq!(
            api.delete(&pipeline.path).await.unwrap().status,
            StatusCode::NO_CONTENT
        );
        // Another node than the one that was asked may have started them.
        eventually("its workers are gone", || world.worker_processes().is_empty()).await;
        for path in [pipeline.path.clone(), pipeline.task_path(&first)] {
            assert_eq!(
                api.get(&path).await.unwrap().status,
                StatusCode::NOT_FOUND,
                "{path}"
            );
        }

        let anew = world.shell("life", &echo, json!({})).await;
        assert_ne!(anew.view().await["number"], number, "numbers are not given again");
        assert_eq!(
            anew.list("", 10).await,
            [] as [serde_json::Value; 0],
            "no old tasks"
        );
        for old in [&first, &second] {
            let status = api.get(&anew.task_path(old)).await.unwrap().status;
            assert_eq!(status, StatusCode::NOT_FOUND, "an id of the pipeline before");
        }
        let id = anew.submit(json!({"word": "again"})).await;
        assert!(id != first && id != second);
        assert_eq!(anew.output(&id).await, json!({"1:shell": ["again\n"]}));

        assert_eq!(
            api.delete(&anew.path).await.unwrap().status,
            StatusCode::NO_CONTENT
        );
        assert_eq!(
            api.delete("/api/applications/myname").await.unwrap().status,
            StatusCode::NO_CONTENT
        );
        world.stop().await;
    });
}

#[test]
fn workers_are_scaled_to_the_work_that_waits_and_back_to_none() {
    run(async {
        let mut world = World::start().await;
        let go = world.path().join("go");
        let wait = format!("until [ -e {} ]; do sleep 0.05; done", go.display());
        let pipeline = world
            .shell("scale", &[&wait], json!({"replicas": {"min": 0, "max": 2}}))
            .await;
        assert_eq!(pipeline.view().await["counts"]["workers"], 0);
        let ids = pipeline.submit_all((0..20).map(|n| json!({"n": n}))).await;
        pipeline.until_state(&ids[0], "running").await;
        std::fs::write(&go, "").unwrap();
        for id in &ids {
            pipeline.output(id).await;
        }
        world.stop().await;
    });
}

#[test]
fn what_was_created_paused_and_changed_is_so_after_a_restart() {
    run(async {
        let mut world = World::start().await;
        let policy = json!({"retry": {"max_attempts": 7}});
        let pipeline = world
            .pipeline("keeps", json!({"policy": policy, "partitions": 3}))
            .await;
        pipeline.post("/pause", &json!({})).await;
        let before = pipeline.view().await;
        world.kill().await;
        world.restart().await;
        let after = pipeline.view().await;
        for field in [
            "number",
            "version",
            "created_at",
            "paused",
            "partitions",
            "policy",
        ] {
            assert_eq!(before[field], after[field], "{field}");
        }
        world.stop().await;
    });
}

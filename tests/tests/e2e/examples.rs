//! The example of a worker, as the README names it.

use scheduler_examples::{Api, binaries};
use serde_json::json;
use tokio::process::Command;

use crate::world::{World, run};

#[test]
fn a_worker_of_its_own_kind_works_for_a_server() {
    run(async {
        let mut world = World::start().await;
        let api: Api = world.api();
        let new = json!({"name": "count"});
        api.post("/api/applications/texts/pipelines", &new)
            .await
            .unwrap()
            .ok()
            .unwrap();
        let mut worker = Command::new(binaries().unwrap().join("examples/worker"))
            .env("SCHEDULER_URL", world.grpc())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let count = "/api/applications/texts/pipelines/count?wait=60s";
        let task = api
            .post(count, &json!({"text": "to be or not to be to"}))
            .await
            .unwrap();
        assert_eq!(
            (task.status.as_u16(), &task.body["output"]),
            (200, &json!({"words": 7, "most_frequent": "to"}))
        );
        let none = api.post(count, &json!({"text": " "})).await.unwrap();
        assert_eq!(
            (&none.body["state"], &none.body["error"]),
            (&json!("dead"), &json!("the text has no words"))
        );

        let pid = nix::unistd::Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(worker.wait().await.unwrap().success());
        world.stop().await;
    });
}

//! The examples, as the README names them.

use std::process::{Output, Stdio};

use scheduler_examples::{Api, binaries};
use serde_json::json;
use tokio::process::Command;

use crate::world::{World, run};

async fn output(program: &str, arguments: &[&str]) -> Output {
    let program = binaries().unwrap().join(program);
    let command = Command::new(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    command
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_demo_reads_the_pictures_and_leaves_nothing_behind() {
    run(async {
        let demo = output("demo", &["--once"]).await;
        let shown = text(&demo);
        assert!(demo.status.success(), "{shown}");
        assert!(shown.contains("The city library opens at nine"), "{shown}");
        let (_, rest) = shown.split_once("with its data in ").unwrap();
        let directory = rest.split_once("/data").unwrap().0;
        assert!(!std::path::Path::new(directory).exists(), "{directory}");
    });
}

#[test]
fn a_service_that_embeds_the_scheduler_keeps_its_tasks_from_run_to_run() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        for first in [0, 4] {
            let embed = output("examples/embed", &[directory.path().to_str().unwrap()]).await;
            let shown = text(&embed);
            assert!(embed.status.success(), "{shown}");
            for (offset, word) in (first..).zip(["NOTHING", "ACCEPTED", "IS", "LOST"]) {
                assert!(
                    shown.contains(&format!("t1-0-{offset}: Succeeded, {word}\n")),
                    "{shown}"
                );
            }
        }
    });
}

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
            .env("SCHEDULER_URL", world.server().grpc())
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

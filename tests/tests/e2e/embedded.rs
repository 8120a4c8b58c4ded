//! What is about the embedded files alone: nothing of it has to do with Kafka or TiDB.

use std::process::{Output, Stdio};

use scheduler_examples::{Server, ServerOptions, binaries};
use tokio::process::Command;

use crate::world::run;

#[test]
fn a_second_server_on_the_same_embedded_files_says_so_and_ends() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let mut options = ServerOptions {
            data: directory.path().join("data"),
            log: directory.path().join("first.log"),
            arguments: Vec::new(),
        };
        let first = Server::start(&options).await.unwrap();
        options.log = directory.path().join("second.log");
        let error = Server::start(&options)
            .await
            .expect_err("the directory is in use")
            .to_string();
        assert!(error.contains("exit status: 1"), "{error}");
        assert!(
            error.contains("another") && error.contains(options.data.to_str().unwrap()),
            "{error}"
        );
        assert_eq!(
            first.api().get("/ready").await.unwrap().status,
            200,
            "the first goes on"
        );
        first.stop().await.unwrap();
    });
}

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

//! The binary as its users meet it: configured by environment, called over gRPC, stopped by signals.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

mod support;

use std::fs;

use scheduler_proto::exec::exec_event::Event;
use scheduler_proto::exec::exec_failure::Cause;
use scheduler_proto::exec::{ExecCommands, ExecEvent};
use tokio_stream::StreamExt;
use tonic::{Code, Streaming};

use self::support::{Process, commands, eventually, runs};

#[tokio::test]
async fn commands_run_in_order_and_stop_at_the_first_failure() {
    let executor = Process::start(&[]).await;
    let mut client = executor.client().await;

    let answer = client
        .execute_commands(commands(&["echo 'a  b'", "printf %s \"$0\""]))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.result, "{answer:?}");
    assert_eq!(answer.output, ["a  b\n", "sh"]);
    assert_eq!((answer.error_message.as_str(), answer.failure), ("", None));

    let answer = client
        .execute_commands(commands(&[
            "echo one",
            "echo two; echo why >&2; exit 7",
            "echo three",
        ]))
        .await
        .unwrap()
        .into_inner();
    assert!(!answer.result);
    assert_eq!(answer.output, ["one\n", "two\n"]);
    assert_eq!(
        answer.error_message,
        "command 2 of 3 (`echo two; echo why >&2; exit 7`) ended with exit code 7: why"
    );
    let failure = answer.failure.unwrap();
    assert_eq!(
        (failure.cause(), failure.command, failure.exit_code),
        (Cause::ExitCode, 1, 7)
    );
    assert_eq!(failure.stderr_tail, "why");

    let answer = client
        .execute_commands(commands(&["kill -9 $$"]))
        .await
        .unwrap()
        .into_inner();
    let failure = answer.failure.unwrap();
    assert_eq!((failure.cause(), failure.signal), (Cause::Signal, 9));

    let answer = client
        .execute_commands(commands(&["echo a\0b"]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.failure.unwrap().cause(), Cause::Spawn);
}

#[tokio::test]
async fn debug_selects_bash() {
    let executor = Process::start(&[
        ("COMMAND_EXECUTOR_DEBUG", "true"),
        ("COMMAND_EXECUTOR_NAME", "wget"),
    ])
    .await;
    let answer = executor
        .client()
        .await
        .execute_commands(commands(&["printf %s \"$0\""]))
        .await
        .unwrap();
    assert_eq!(answer.into_inner().output, ["bash"]);
}

#[tokio::test]
async fn the_extensions_set_directory_and_variables() {
    let executor = Process::start(&[]).await;
    let mut client = executor.client().await;
    let directory = tempfile::tempdir().unwrap();
    let mut request = commands(&["pwd; printf %s \"$GREETING\""]);
    request.working_directory = directory.path().to_str().unwrap().into();
    request.environment.insert("GREETING".into(), "it's me".into());
    let answer = client
        .execute_commands(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        answer.output,
        [format!("{}\nit's me", directory.path().display())]
    );

    request.environment.insert("A=B".into(), String::new());
    assert_eq!(
        client.execute_commands(request).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group_even_what_ignores_sigterm() {
    let executor = Process::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let mut request =
        commands(&["trap '' TERM; (trap '' TERM; sleep 1000) & echo $! >child; echo $$; sleep 1000"]);
    request.working_directory = directory.path().to_str().unwrap().into();
    request.timeout_ms = 300;
    let answer = executor
        .client()
        .await
        .execute_commands(request)
        .await
        .unwrap()
        .into_inner();
    let failure = answer.failure.unwrap();
    assert_eq!(failure.cause(), Cause::Timeout, "{}", answer.error_message);
    let child = fs::read_to_string(directory.path().join("child")).unwrap();
    for id in [answer.output[0].as_str(), &child] {
        eventually("the end of the process", || !runs(id)).await;
    }
}

#[tokio::test]
async fn a_command_may_not_leave_processes_behind() {
    let executor = Process::start(&[]).await;
    let mut client = executor.client().await;
    for command in ["sleep 1000 >/dev/null 2>&1 & echo $!", "sleep 1000 & echo $!"] {
        let answer = client
            .execute_commands(commands(&[command]))
            .await
            .unwrap()
            .into_inner();
        assert!(answer.result);
        eventually("the end of the background process", || !runs(&answer.output[0])).await;
    }
}

async fn first_output(events: &mut Streaming<ExecEvent>) -> String {
    loop {
        if let Some(Event::Output(output)) = events.next().await.unwrap().unwrap().event {
            return String::from_utf8(output.stdout.to_vec()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_commands() {
    let executor = Process::start(&[]).await;
    let mut client = executor.client().await;
    let request = || commands(&["sleep 1000 & echo $!; wait"]);

    let mut events = client.execute_stream(request()).await.unwrap().into_inner();
    let child = first_output(&mut events).await;
    assert!(runs(&child));
    drop(events);
    eventually("the end of the process after the stream was dropped", || {
        !runs(&child)
    })
    .await;

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("child");
    let mut unary = commands(&["sleep 1000 & echo $! >child.new; mv child.new child; wait"]);
    unary.working_directory = directory.path().to_str().unwrap().into();
    let call = tokio::spawn(async move { client.execute_commands(unary).await });
    eventually("the start of the process", || file.exists()).await;
    call.abort();
    let child = fs::read_to_string(file).unwrap();
    eventually("the end of the process after the call was dropped", || {
        !runs(&child)
    })
    .await;
}

#[tokio::test]
async fn a_stream_tells_what_happens_as_it_happens() {
    let executor = Process::start(&[]).await;
    let mut client = executor.client().await;
    let events = client
        .execute_stream(commands(&["echo out; echo err >&2", "exit 3"]))
        .await
        .unwrap()
        .into_inner();
    let events: Vec<_> = events.map(|event| event.unwrap().event.unwrap()).collect().await;

    let (mut stdout, mut stderr, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Output(output) => {
                assert_eq!(output.command, 0);
                stdout.extend(output.stdout);
                stderr.extend(output.stderr);
            }
            other => others.push(other),
        }
    }
    assert_eq!(
        (stdout.as_slice(), stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    let [
        Event::Started(a),
        Event::Ended(b),
        Event::Started(c),
        Event::Ended(d),
        Event::Finished(result),
    ] = &others[..]
    else {
        panic!("{others:?}")
    };
    assert_eq!([a.command, b.command, c.command, d.command], [0, 0, 1, 1]);
    assert_eq!((b.exit_code, d.exit_code), (0, 3));
    assert_eq!(result.output, ["out\n", ""]);
    assert_eq!(result.failure.as_ref().unwrap().exit_code, 3);
}

#[tokio::test]
async fn long_outputs_are_drained_together_and_bounded() {
    let executor = Process::start(&[("COMMAND_EXECUTOR_MAX_OUTPUT_BYTES", "100000")]).await;
    let mut client = executor.client().await;
    let both = "head -c 3000000 /dev/zero | tr '\\0' a | tee /dev/stderr";
    let answer = client
        .execute_commands(commands(&[both, "echo next"]))
        .await
        .unwrap()
        .into_inner();
    assert!(answer.result, "{}", answer.error_message);
    assert_eq!(
        answer.output[0],
        format!(
            "{}\n[output truncated: 2900000 more bytes]\n",
            "a".repeat(100_000)
        )
    );
    assert_eq!(answer.output[1], "next\n");

    let mut events = client
        .execute_stream(commands(&[both]))
        .await
        .unwrap()
        .into_inner();
    let mut seen = 0;
    while let Some(event) = events.next().await {
        match event.unwrap().event.unwrap() {
            Event::Output(output) => seen += output.stdout.len(),
            Event::Finished(result) => assert!(result.result),
            _ => {}
        }
    }
    assert_eq!(seen, 100_000);
}

#[tokio::test]
async fn more_calls_than_configured_are_refused() {
    let executor = Process::start(&[("COMMAND_EXECUTOR_MAX_CALLS", "1")]).await;
    let mut client = executor.client().await;
    let mut events = client
        .execute_stream(commands(&["sleep 1000 & echo $!; wait"]))
        .await
        .unwrap()
        .into_inner();
    let child = first_output(&mut events).await;
    assert_eq!(
        client
            .execute_commands(commands(&["true"]))
            .await
            .unwrap_err()
            .code(),
        Code::ResourceExhausted
    );
    // Its end makes room.
    drop(events);
    eventually("the end of the process", || !runs(&child)).await;
    while client.execute_commands(commands(&["true"])).await.is_err() {}
}

#[tokio::test]
async fn sigterm_lets_calls_end() {
    let mut executor = Process::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let request = ExecCommands {
        working_directory: directory.path().to_str().unwrap().into(),
        ..commands(&["echo on; while [ ! -e go ]; do sleep 0.01; done; echo done"])
    };
    let mut client = executor.client().await;
    let mut events = client.execute_stream(request).await.unwrap().into_inner();
    first_output(&mut events).await;
    executor.terminate();
    // A worker that drains at the same time still gets its next step done.
    assert!(
        client
            .execute_commands(commands(&["true"]))
            .await
            .unwrap()
            .into_inner()
            .result
    );
    fs::write(directory.path().join("go"), "").unwrap();
    let last = events
        .map(|event| event.unwrap().event.unwrap())
        .collect::<Vec<_>>()
        .await
        .pop();
    assert!(matches!(last, Some(Event::Finished(result)) if result.output == ["on\ndone\n"]));
    assert!(executor.child.wait().await.unwrap().success());
}

#[tokio::test]
async fn calls_that_outlast_the_drain_timeout_are_ended() {
    let mut executor = Process::start(&[("COMMAND_EXECUTOR_DRAIN_TIMEOUT_MS", "50")]).await;
    let mut client = executor.client().await;
    let mut events = client
        .execute_stream(commands(&["sleep 1000 & echo $!; wait"]))
        .await
        .unwrap()
        .into_inner();
    let child = first_output(&mut events).await;
    executor.terminate();
    assert!(executor.child.wait().await.unwrap().success());
    assert!(!runs(&child));
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_response::MessageResponse};

    let executor = Process::start(&[]).await;
    let channel = tonic::transport::Endpoint::new(format!("http://{}", executor.address))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut health = HealthClient::new(channel.clone());
    let request = HealthCheckRequest {
        service: "exec.ExecService".into(),
    };
    assert_eq!(
        health.check(request).await.unwrap().into_inner().status(),
        ServingStatus::Serving
    );

    let mut reflection = ServerReflectionClient::new(channel);
    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("another answer than the list of services")
    };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["exec.ExecService", "grpc.health.v1.Health"]);
}

#[tokio::test]
async fn it_puts_itself_where_other_containers_find_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("command-executor");
    let install = |program: &str, file: &std::path::Path| {
        std::process::Command::new(program)
            .arg("--install")
            .arg(file)
            .output()
            .unwrap()
    };
    let installed = install(env!("CARGO_BIN_EXE_command-executor"), &file);
    assert!(installed.status.success(), "{installed:?}");
    // What was put there is the program: it does the same again.
    let again = directory.path().join("again");
    assert!(install(file.to_str().unwrap(), &again).status.success());
    assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());
    let nowhere = install(file.to_str().unwrap(), &directory.path().join("missing/file"));
    assert!(!nowhere.status.success());
    let problem = String::from_utf8_lossy(&nowhere.stderr);
    assert!(
        problem.contains("--install") && problem.contains("missing/file"),
        "{problem}"
    );
}

//! A whole worker against a fake server of `worker.proto` that says what a test tells it to: the edges of the protocol
//! that a well-behaved server shows seldom. Work with the real server is tested with the server.

#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something unexpected happens"
)]

mod server;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use scheduler_proto::worker::report::Outcome;
use scheduler_proto::worker::session_request::Kind as Request;
use scheduler_proto::worker::session_response::Kind as Response;
use scheduler_proto::worker::{Report, Stop};
use scheduler_sdk::{Context, RunError, TaskError, Worker, WorkerBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::Status;

use server::{Owners, name, server, server_that_is_asked, server_that_knows};

fn builder(url: &str) -> WorkerBuilder {
    Worker::builder()
        .server(url)
        .application("app")
        .pipeline("p")
        .backoff(Duration::from_millis(1), Duration::from_millis(5))
}

#[derive(Deserialize)]
struct Number {
    number: i64,
}

async fn act(task: Value, ctx: Context) -> Result<Value, TaskError> {
    match task["do"].as_str() {
        Some("panic") => panic!("oh no"),
        Some("fail") => Err(std::io::Error::other("disk full"))?,
        Some("reject") => Err(TaskError::permanent("never")),
        Some("define") => Ok(serde_json::from_slice(ctx.definition())?),
        Some("wait") => {
            ctx.progress(&"waiting").await;
            ctx.cancelled().cancelled().await;
            Err(TaskError::retryable("cancelled"))
        }
        Some("hang") => std::future::pending().await,
        Some("long") => Ok("a".repeat(2_000_000).into()),
        _ => Ok(task),
    }
}

#[tokio::test]
async fn outcomes_are_what_handlers_do() {
    let (url, mut sessions) = server().await;
    let worker = builder(&url)
        .api_key("secret")
        .concurrency(2)
        .handler(act)
        .build()
        .unwrap();
    tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    assert_eq!(session.authorization.as_deref(), Some("Bearer secret"));
    session.welcome().await;
    for (offset, (task, outcome)) in (0..).zip([
        (
            json!({"a": 1}),
            Outcome::Succeeded(Bytes::from_static(b"{\"a\":1}")),
        ),
        (
            json!({"do": "define"}),
            Outcome::Succeeded(Bytes::from_static(b"{\"v\":1}")),
        ),
        (json!({"do": "fail"}), Outcome::Failed("disk full".into())),
        (json!({"do": "reject"}), Outcome::Rejected("never".into())),
        (json!({"do": "panic"}), Outcome::Failed("panicked: oh no".into())),
    ]) {
        session.lease(offset, &task).await;
        assert_eq!(
            session.report().await,
            Report {
                r#ref: Some(name(offset)),
                outcome: Some(outcome)
            }
        );
    }
    session.lease(9, &json!({"do": "long"})).await;
    assert!(matches!(session.outcome().await, Outcome::Rejected(text) if text.contains("at most 1048576")));
}

#[tokio::test]
async fn params_that_do_not_fit_are_rejected() {
    let (url, mut sessions) = server().await;
    let double = |task: Number, _: Context| async move { Ok::<_, TaskError>(task.number * 2) };
    tokio::spawn(builder(&url).handler(double).build().unwrap().run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    session.lease(0, &json!({"number": 4})).await;
    assert_eq!(
        session.outcome().await,
        Outcome::Succeeded(Bytes::from_static(b"8"))
    );
    session.lease(1, &json!({"number": "four"})).await;
    assert!(
        matches!(session.outcome().await, Outcome::Rejected(text) if text.starts_with("params: invalid type"))
    );
}

#[tokio::test]
async fn a_stopped_handler_may_end_by_itself_and_is_dropped_otherwise() {
    let (url, mut sessions) = server().await;
    let worker = builder(&url)
        .concurrency(2)
        .cancel_grace(Duration::from_millis(10))
        .handler(act)
        .build()
        .unwrap();
    tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    for (offset, what) in [(0, "wait"), (1, "hang")] {
        session.lease(offset, &json!({"do": what})).await;
        session
            .say(Response::Stop(Stop {
                refs: vec![name(offset)],
            }))
            .await;
        assert!(matches!(session.outcome().await, Outcome::Stopped(_)));
    }
}

#[tokio::test]
async fn a_lost_connection_comes_back_with_what_is_held_and_unsettled() {
    let (url, mut sessions) = server().await;
    tokio::spawn(builder(&url).concurrency(3).handler(act).build().unwrap().run());
    let mut session = sessions.recv().await.unwrap();
    let first = session.welcome().await;
    session.lease(0, &json!({"do": "wait"})).await;
    session.lease(1, &json!(1)).await;
    let report = session.report().await;
    drop(session);

    let mut session = sessions.recv().await.unwrap();
    let again = session.welcome().await;
    assert_eq!(again.worker_id, first.worker_id);
    assert_eq!(again.held, [name(0)]);
    assert_eq!(again.reported, [report]);
    session.settle(1).await;
    session.lease(2, &json!(2)).await;
    session.report().await;
    session
        .responses
        .send(Err(Status::unavailable("the node went down")))
        .await
        .unwrap();

    let hello = sessions.recv().await.unwrap().hello().await;
    assert_eq!(
        hello
            .reported
            .iter()
            .map(|report| report.r#ref.unwrap())
            .collect::<Vec<_>>(),
        [name(2)]
    );
}

#[tokio::test]
async fn shutdown_drains() {
    let (url, mut sessions) = server().await;
    let (release, released) = oneshot::channel::<()>();
    let released = Arc::new(tokio::sync::Mutex::new(Some(released)));
    let handler = move |_: Value, ctx: Context| {
        let released = released.clone();
        async move {
            ctx.progress(&"started").await;
            released.lock().await.take().unwrap().await?;
            Ok::<_, TaskError>(())
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = builder(&url)
        .handler(handler)
        .build()
        .unwrap()
        .with_shutdown(async { drop(stopped.await) });
    let status = worker.status();
    let run = tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    session.lease(0, &json!(null)).await;
    while !matches!(session.request().await, Request::Progress(_)) {}
    stop.send(()).unwrap();
    while !matches!(session.request().await, Request::Drain(_)) {}
    session.lease_unasked(1, &json!(null)).await;
    assert!(matches!(session.outcome().await, Outcome::Returned(_)));
    assert_eq!(status.running(), 1);
    release.send(()).unwrap();
    assert_eq!(
        session.outcome().await,
        Outcome::Succeeded(Bytes::from_static(b"null"))
    );
    session.settle(2).await;
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_worker_ends_as_soon_as_the_node_says_that_nothing_is_on_its_way() {
    let (url, mut sessions) = server().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = builder(&url)
        .handler(act)
        .build()
        .unwrap()
        .with_shutdown(async { drop(stopped.await) });
    let mut status = worker.status();
    let run = tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    assert!(status.connected().await);
    stop.send(()).unwrap();
    while !matches!(session.request().await, Request::Drain(_)) {}
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_that_takes_too_long_cancels_and_says_what_is_unsettled() {
    let (url, mut sessions) = server().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = builder(&url)
        .handler(act)
        .drain_timeout(Duration::from_millis(10))
        .settle_timeout(Duration::from_millis(10))
        .build()
        .unwrap()
        .with_shutdown(async { drop(stopped.await) });
    let run = tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    session.lease(0, &json!({"do": "wait"})).await;
    while !matches!(session.request().await, Request::Progress(_)) {}
    stop.send(()).unwrap();
    assert_eq!(session.outcome().await, Outcome::Failed("cancelled".into()));
    assert!(matches!(
        run.await.unwrap(),
        Err(RunError::Unsettled { reports: 1 })
    ));
}

#[tokio::test]
async fn a_worker_without_rights_gives_up_and_one_without_a_server_waits() {
    let (url, mut sessions) = server().await;
    let refused = builder(&url)
        .api_key("wrong")
        .handler(act)
        .build()
        .unwrap()
        .run()
        .await;
    assert!(matches!(refused, Err(RunError::Refused(status)) if status.message() == "no such key"));

    // Nothing listens on the first server's port; the second is tried next.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let worker = builder(&format!("http://{closed}"))
        .server(&url)
        .handler(act)
        .build()
        .unwrap();
    tokio::spawn(worker.run());
    sessions.recv().await.unwrap().welcome().await;
}

#[tokio::test]
async fn layers_wrap_the_handler() {
    let (url, mut sessions) = server().await;
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let count = tower::layer::layer_fn(move |service: scheduler_sdk::TaskService| {
        let counted = counted.clone();
        tower::ServiceBuilder::new()
            .map_request(move |attempt: scheduler_sdk::Attempt| {
                counted.fetch_add(1, Ordering::Relaxed);
                attempt
            })
            .service(service)
    });
    let worker = builder(&url)
        .handler(|(): (), _: Context| async { Ok::<_, Infallible>(1) })
        .layer(count)
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_mins(1)))
        .build()
        .unwrap();
    tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    session.lease(0, &json!(null)).await;
    assert_eq!(
        session.outcome().await,
        Outcome::Succeeded(Bytes::from_static(b"1"))
    );
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_owner_of_a_partition_that_was_added_is_heard_of_though_nobody_says_so() {
    let owners = Owners::default();
    let (first, mut sessions) = server_that_knows(Arc::clone(&owners)).await;
    let (second, mut others) = server().await;
    owners.lock().unwrap().push(first.clone());
    let worker = builder(&first)
        .look_again(Duration::from_millis(5))
        .handler(act)
        .build()
        .unwrap();
    tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    session.welcome().await;
    owners.lock().unwrap().push(second);
    others.recv().await.unwrap().welcome().await;
}

#[test]
fn a_worker_says_what_it_lacks() {
    let error = |builder: WorkerBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(error(Worker::builder()), "server: is missing");
    assert!(error(Worker::builder().server("127.0.0.1:50050")).starts_with("server: `127.0.0.1:50050`"));
    assert!(error(Worker::builder().server("https://127.0.0.1:50050")).contains("speak no TLS; use http://"));
    let url = "http://127.0.0.1:1";
    assert_eq!(error(Worker::builder().server(url)), "application: is missing");
    assert_eq!(error(builder(url)), "handler: is missing");
    assert_eq!(
        error(builder(url).concurrency(0)),
        "concurrency: must be 1 to 100000"
    );
    assert!(error(builder(url).api_key("\n")).starts_with("api_key:"));
}

#[tokio::test]
async fn who_has_a_session_asks_for_owners_over_its_connection() {
    let owners = Owners::default();
    let (url, mut sessions, mut questions) = server_that_is_asked(Arc::clone(&owners)).await;
    owners.lock().unwrap().push(url.clone());
    let worker = builder(&url)
        .handler(act)
        .look_again(Duration::from_millis(5))
        .build()
        .unwrap();
    let run = tokio::spawn(worker.run());
    let mut session = sessions.recv().await.unwrap();
    let peer = session.peer.unwrap();
    session.welcome().await;
    // Those that were asked before the welcome came over connections of their own.
    while questions.recv().await.unwrap() != Some(peer) {}
    for _ in 0..3 {
        assert_eq!(questions.recv().await.unwrap(), Some(peer));
    }
    run.abort();
}

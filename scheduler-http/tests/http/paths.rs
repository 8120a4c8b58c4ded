//! Paths and methods that there are none of, and clients that came to the wrong port.

use axum::body::Body;
use http::{Method, Request, StatusCode};

use crate::bad_input::problem;
use crate::client::{OCR, World};

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let world = World::new();
    for path in [
        "/api",
        "/api/",
        "/api/applications/",
        "/api/applications/a/pipelines/",
        "/api/applications/a/pipelines/b/tasks/",
        "/api/applications/a/pipelines/b/tasks/t1-0-1/explode",
        "/api/docs/nothing.js",
        "/dashboard/nothing.js",
        "/%ff",
        "/favicon.ico",
    ] {
        problem(&world.get(path).await, 404, path);
    }
    for (method, path, allow) in [
        (Method::PUT, OCR, "PATCH"),
        (Method::PATCH, "/api/applications", "POST"),
        (Method::POST, "/healthz", "GET"),
        (Method::DELETE, "/api/openapi.json", "GET"),
    ] {
        let answer = world.call(method, path).await;
        problem(&answer, 405, path);
        assert!(
            answer.header("allow").contains(allow),
            "{path}: {:?}",
            answer.headers
        );
    }
}

#[tokio::test]
async fn a_client_of_grpc_is_told_in_its_own_way_that_this_is_another_port() {
    let world = World::new();
    let request = Request::post("/scheduler.worker.v1.WorkerService/Session")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    let answer = world.send(request).await;
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (StatusCode::OK, "12")
    );
    assert!(answer.header("grpc-message").contains("50050"));
}

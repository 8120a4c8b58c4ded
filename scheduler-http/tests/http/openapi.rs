//! The document of the API is valid in its structure, and it and the router say the same.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;

use crate::client::World;

const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
];

/// What the document does not list: the pages about the API itself, the dashboard, and the answer to everything else.
const UNLISTED: [&str; 9] = [
    // Where axum keeps the fallback.
    "/",
    "/{*__private__axum_fallback}",
    "/api/openapi.json",
    "/api/docs",
    "/api/docs/",
    "/api/docs/{*file}",
    "/dashboard",
    "/dashboard/",
    "/dashboard/{file}",
];

async fn document(world: &World) -> Value {
    world.get("/api/openapi.json").await.json()
}

fn paths(document: &Value) -> BTreeSet<String> {
    document["paths"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn the_router_and_the_document_have_the_same_paths() {
    let world = World::new();
    // The only list that the router gives of its routes is its debug text.
    let debug = format!("{:?}", world.router);
    let routed: BTreeSet<String> = debug
        .split('"')
        .filter(|text| text.starts_with('/') && !UNLISTED.contains(text))
        .map(str::to_owned)
        .collect();
    assert!(routed.len() > 15, "{debug}");
    assert_eq!(routed, paths(&document(&world).await));
}

#[tokio::test]
async fn the_router_and_the_document_have_the_same_methods() {
    let world = World::new();
    let document = document(&world).await;
    for path in paths(&document) {
        let concrete = path
            .replace("{app}", "myname")
            .replace("{name}", "ocr")
            .replace("{id}", "t1-0-1");
        for method in METHODS {
            let documented = document["paths"][&path]
                .get(method.as_str().to_lowercase())
                .is_some();
            // Without a key, so that nothing is done: what is routed is refused otherwise than with 404 or 405.
            let request = http::Request::builder()
                .method(method.clone())
                .uri(&concrete)
                .body(axum::body::Body::empty())
                .unwrap();
            let status = world.send(request).await.status;
            assert_ne!(status, StatusCode::NOT_FOUND, "{method} {path}");
            assert_eq!(
                documented,
                status != StatusCode::METHOD_NOT_ALLOWED,
                "{method} {path}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn the_document_is_openapi_3_1() {
    let world = World::new();
    let document = document(&world).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(!document["info"]["title"].as_str().unwrap().is_empty());
    assert!(!document["info"]["version"].as_str().unwrap().is_empty());
    let tags: BTreeSet<&str> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            check_operation(&what, path, operation);
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{what}: {id} is not unique");
            for tag in operation["tags"].as_array().unwrap() {
                assert!(tags.contains(tag.as_str().unwrap()), "{what}: {tag}");
            }
        }
    }
    check_references(&document, &document);
}

fn check_operation(what: &str, path: &str, operation: &Value) {
    assert!(!operation["summary"].as_str().unwrap().is_empty(), "{what}");
    let in_path: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
    let mut named = BTreeSet::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let place = parameter["in"].as_str().unwrap();
        assert!(["path", "query", "header"].contains(&place), "{what}: {name}");
        assert!(parameter["schema"].is_object(), "{what}: {name}");
        assert!(
            !parameter["description"].as_str().unwrap().is_empty(),
            "{what}: {name}"
        );
        if place == "path" {
            assert_eq!(parameter["required"], true, "{what}: {name}");
            named.insert(name);
        } else {
            assert_ne!(parameter["required"], true, "{what}: {name}");
        }
    }
    assert_eq!(named, in_path, "{what}");
    if let Some(body) = operation.get("requestBody") {
        assert!(!body["content"].as_object().unwrap().is_empty(), "{what}");
        assert_eq!(body["required"], true, "{what}");
    }
    let responses = operation["responses"].as_object().unwrap();
    assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
    for (status, response) in responses {
        assert!(status.parse::<u16>().is_ok(), "{what}: {status}");
        assert!(
            response.get("$ref").is_some() || response["description"].is_string(),
            "{what}: {status}"
        );
    }
}

/// Every reference leads somewhere.
fn check_references(document: &Value, at: &Value) {
    match at {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            fields
                .values()
                .for_each(|value| check_references(document, value));
        }
        Value::Array(values) => values.iter().for_each(|value| check_references(document, value)),
        _ => {}
    }
}

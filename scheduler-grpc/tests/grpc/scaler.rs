//! KEDA's external scaler over loopback.

use std::time::Duration;

use scheduler_core::port::gateway::PipelineLoad;
use scheduler_grpc::server::GrpcConfig;
use scheduler_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use scheduler_proto::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use tonic::{Code, Streaming};

use crate::fake::{Server, idle};

async fn start() -> (Server, ExternalScalerClient<tonic::transport::Channel>) {
    let config = GrpcConfig {
        scaler_interval: Duration::from_millis(1),
        max_scaler_streams: 1,
        ..GrpcConfig::default()
    };
    let server = Server::with(config, |_| {}).await;
    let client = ExternalScalerClient::new(server.channel().await);
    (server, client)
}

/// What a trigger of pipeline `ocr` says, with `more` laid over it.
fn scaled(more: &[(&str, &str)]) -> ScaledObjectRef {
    let base = [("application", "myname"), ("pipeline", "ocr"), ("apiKey", "good")];
    let all = base.iter().chain(more);
    ScaledObjectRef {
        name: "ocr".into(),
        namespace: "myname".into(),
        scaler_metadata: all.map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    }
}

fn metrics(scaled: ScaledObjectRef) -> GetMetricsRequest {
    GetMetricsRequest {
        scaled_object_ref: Some(scaled),
        metric_name: "workers".into(),
    }
}

fn waiting(ready: u64) -> PipelineLoad {
    PipelineLoad { ready, ..idle() }
}

fn set(server: &Server, load: Result<PipelineLoad, String>) {
    drop(server.fake.load.send_replace(load));
}

async fn next(stream: &mut Streaming<IsActiveResponse>) -> bool {
    stream.message().await.unwrap().unwrap().result
}

#[tokio::test]
async fn as_many_workers_are_wanted_as_the_policy_says() {
    let (server, mut client) = start().await;
    let spec = client.get_metric_spec(scaled(&[])).await.unwrap().into_inner();
    assert_eq!(spec.metric_specs.len(), 1);
    let spec = &spec.metric_specs[0];
    assert_eq!((spec.metric_name.as_str(), spec.target_size), ("workers", 1));
    assert!((spec.target_size_float - 1.0).abs() < f64::EPSILON);

    let measured = PipelineLoad {
        backlog: 30,
        timed: 10,
        busy_ms: 20_000,
        ..waiting(10)
    };
    let paused = PipelineLoad {
        paused: true,
        running: 3,
        ..waiting(40)
    };
    for (load, more, wanted) in [
        (idle(), &[][..], 0),
        // 41 tasks, assumed to take a second each, in 10 s.
        (waiting(41), &[], 5),
        (waiting(41), &[("targetSeconds", "1")], 41),
        (waiting(41), &[("targetSeconds", "1"), ("concurrency", "8")], 6),
        (waiting(41), &[("taskSeconds", "5")], 21),
        // What was measured goes over what is assumed: 40 tasks of 2 s.
        (measured, &[("taskSeconds", "500")], 8),
        // Running tasks keep their workers.
        (paused, &[("taskSeconds", "0.001")], 3),
    ] {
        set(&server, Ok(load));
        let answer = client
            .get_metrics(metrics(scaled(more)))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(answer.metric_values.len(), 1);
        let value = &answer.metric_values[0];
        assert_eq!(
            (value.metric_name.as_str(), value.metric_value),
            ("workers", wanted),
            "{load:?} {more:?}"
        );
        let active = client.is_active(scaled(more)).await.unwrap().into_inner().result;
        assert_eq!(active, wanted > 0, "{load:?}");
    }
}

#[tokio::test]
async fn a_stream_tells_of_changes_alone_and_outlives_what_is_not_known() {
    let (server, mut client) = start().await;
    let mut stream = client.stream_is_active(scaled(&[])).await.unwrap().into_inner();
    assert!(!next(&mut stream).await);
    set(&server, Ok(waiting(1)));
    assert!(next(&mut stream).await);
    // Neither more of the same nor silence is a change: the next message is that there is nothing left.
    set(&server, Ok(waiting(9)));
    set(&server, Err("a node is away".into()));
    assert_eq!(
        client.is_active(scaled(&[])).await.unwrap_err().code(),
        Code::Unavailable
    );
    set(&server, Ok(idle()));
    assert!(!next(&mut stream).await);
    server.stop.cancel();
    assert!(
        stream.message().await.unwrap().is_none(),
        "it ends with the server"
    );
}

#[tokio::test]
async fn there_are_so_many_streams_and_one_that_ends_makes_room() {
    let (_server, mut client) = start().await;
    let mut stream = client.stream_is_active(scaled(&[])).await.unwrap().into_inner();
    assert!(!next(&mut stream).await);
    let refused = client.stream_is_active(scaled(&[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(stream);
    // The server hears of it a moment later.
    let another = loop {
        match client.stream_is_active(scaled(&[])).await {
            Ok(stream) => break stream,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    };
    assert!(!next(&mut another.into_inner()).await);
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let (_server, mut client) = start().await;
    for (more, code, field) in [
        (
            ("apiKey", "bad"),
            Code::Unauthenticated,
            "scalerMetadata.apiKey: ",
        ),
        (
            ("application", "Upper"),
            Code::InvalidArgument,
            "scalerMetadata.application: ",
        ),
        (
            ("pipeline", ""),
            Code::InvalidArgument,
            "scalerMetadata.pipeline: ",
        ),
        (("pipeline", "other"), Code::NotFound, "there is no pipeline "),
        (
            ("targetSeconds", "soon"),
            Code::InvalidArgument,
            "scalerMetadata.targetSeconds: ",
        ),
        (
            ("threshold", "5"),
            Code::InvalidArgument,
            "scalerMetadata.threshold: ",
        ),
    ] {
        let request = || scaled(&[more]);
        for status in [
            client.is_active(request()).await.unwrap_err(),
            client.stream_is_active(request()).await.unwrap_err(),
            client.get_metric_spec(request()).await.unwrap_err(),
            client.get_metrics(metrics(request())).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), code, "{more:?}: {status}");
            assert!(status.message().starts_with(field), "{more:?}: {status}");
        }
    }
    let mut other = metrics(scaled(&[]));
    other.metric_name = "s0-workers".into();
    let status = client.get_metrics(other).await.unwrap_err();
    assert!(status.message().starts_with("metricName: "), "{status}");
    let status = client
        .get_metrics(GetMetricsRequest::default())
        .await
        .unwrap_err();
    assert!(status.message().starts_with("scaledObjectRef: "), "{status}");
}

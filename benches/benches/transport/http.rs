//! HTTP: one task a request, on one connection that is kept, and on 64 of them at once.

use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput};
use futures::future::join_all;
use scheduler_http::{HttpConfig, router, serve};
use scheduler_load::http::Connection;

use crate::gateway::Easy;
use crate::{listener, runtime};

const CONNECTIONS: [u32; 2] = [1, 64];

pub(crate) fn submissions(criterion: &mut Criterion) {
    let runtime = runtime();
    let (address, listener) = listener(&runtime);
    runtime.spawn(async move {
        let config = HttpConfig::default();
        let router = router(Arc::new(Easy::new()), config.clone());
        serve(listener, router, &config, std::future::pending()).await
    });
    let pipeline = format!("http://{address}/api/applications/bench/pipelines/submit")
        .parse()
        .expect("an address");
    let mut group = criterion.benchmark_group("http_submit_per_task");
    group.throughput(Throughput::Elements(1));
    for connections in CONNECTIONS {
        let open = join_all((0..connections).map(|_| Connection::open(&pipeline)));
        let mut open: Vec<Connection> = runtime
            .block_on(open)
            .into_iter()
            .map(|connection| connection.expect("the server is there"))
            .collect();
        group.bench_function(BenchmarkId::from_parameter(connections), |bencher| {
            bencher.iter_custom(|iters| {
                let each = iters.div_ceil(connections.into());
                let begin = Instant::now();
                runtime.block_on(join_all(open.iter_mut().map(async |connection| {
                    for number in 0..each {
                        connection.submit(number).await.expect("the task is taken");
                    }
                })));
                begin.elapsed()
            });
        });
    }
    group.finish();
}

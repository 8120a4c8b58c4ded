//! Resource: the machine's cores, which client and server share; one process, on loopback. What the transports cost, with nothing behind them.

mod gateway;
mod grpc;
mod http;

use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What the server sets it to.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime starts")
}

fn listener(runtime: &Runtime) -> (SocketAddr, TcpListener) {
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("loopback has a free port");
    (listener.local_addr().expect("it is bound"), listener)
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(15);
    targets = grpc::sessions, http::submissions
}
criterion_main!(benches);

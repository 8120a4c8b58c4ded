//! The wire types of the workload scheduler: `.proto` files and the code generated of them.
//!
//! | module | file | who speaks it |
//! | --- | --- | --- |
//! | [`worker`] | `worker.proto` | workers and scheduler |
//! | [`api`] | `api.proto` | clients and scheduler |
//! | [`exec`] | `exec.proto` | pipeline agent and command executors |
//!
//! ```
//! use scheduler_proto::worker::{LeaseRef, SessionRequest, session_request::Kind};
//!
//! let room_for_eight = SessionRequest { kind: Some(Kind::Credit(8)) };
//! assert_ne!(room_for_eight, SessionRequest::default());
//! # let _ = LeaseRef::default();
//! ```

/// Between workers and scheduler.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated"
)]
pub mod worker {
    tonic::include_proto!("scheduler.worker.v1");
}

/// Between clients and scheduler.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated"
)]
pub mod api {
    tonic::include_proto!("scheduler.api.v1");
}

/// Between pipeline agent and command executors.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::pedantic,
    reason = "generated"
)]
pub mod exec {
    tonic::include_proto!("exec");
}

/// The descriptors of all three files, encoded, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

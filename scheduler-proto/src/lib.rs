//! The wire types of the workload scheduler: `.proto` files and the code generated of them.
//!
//! | module | file | who speaks it |
//! | --- | --- | --- |
//! | [`worker`] | `worker.proto` | workers and scheduler |
//! | [`api`] | `api.proto` | clients and scheduler |
//! | [`node`] | `node.proto` | the nodes of a cluster |
//! | [`exec`] | `exec.proto` | pipeline agent and command executors |
//! | [`externalscaler`] | `externalscaler.proto` | KEDA and scheduler |
//!
//! ```
//! use scheduler_proto::worker::{LeaseRef, SessionRequest, session_request::Kind};
//!
//! let room_for_eight = SessionRequest { kind: Some(Kind::Credit(8)) };
//! assert_ne!(room_for_eight, SessionRequest::default());
//! # let _ = LeaseRef::default();
//! ```

#[doc(inline)]
pub use generated::exec;
#[doc(inline)]
pub use generated::externalscaler;
/// Between clients and scheduler.
pub use generated::scheduler::api::v1 as api;
/// Between the nodes of a cluster.
pub use generated::scheduler::node::v1 as node;
/// Between workers and scheduler.
pub use generated::scheduler::worker::v1 as worker;

/// Modules as the packages are, because generated code finds what other files define by that.
#[allow(
    missing_docs,
    unused_qualifications,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated"
)]
mod generated {
    pub mod scheduler {
        pub mod api {
            pub mod v1 {
                tonic::include_proto!("scheduler.api.v1");
            }
        }
        pub mod node {
            pub mod v1 {
                tonic::include_proto!("scheduler.node.v1");
            }
        }
        pub mod worker {
            pub mod v1 {
                tonic::include_proto!("scheduler.worker.v1");
            }
        }
    }

    /// Between pipeline agent and command executors.
    pub mod exec {
        tonic::include_proto!("exec");
    }

    /// Between KEDA and the scheduler.
    pub mod externalscaler {
        tonic::include_proto!("externalscaler");
    }
}

/// The descriptors of all files, encoded, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

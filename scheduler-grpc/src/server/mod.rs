//! The services, and the listener they are served on.
//!
//! What every call has in common:
//!
//! - The API key comes as metadata `authorization: Bearer KEY`; without one the caller is the node's anonymous client, where it has one.
//! - Calls that wait answer a little before the client's `grpc-timeout` with what they have then, and wait no longer than [`MAX_WAIT`].
//! - Errors carry `google.rpc` details: `BadRequest` names the field, `RetryInfo` says when to try again.
//!
//! | error of the gateway | gRPC status |
//! | --- | --- |
//! | `Invalid` | `INVALID_ARGUMENT`, message `field: problem` |
//! | `NotFound` | `NOT_FOUND` |
//! | `Conflict` | `FAILED_PRECONDITION` |
//! | `Unauthenticated` | `UNAUTHENTICATED` |
//! | `Forbidden` | `PERMISSION_DENIED` |
//! | `Overloaded` | `RESOURCE_EXHAUSTED` |
//! | `Unavailable` | `UNAVAILABLE` |
//! | `Internal` | `INTERNAL`; the cause goes to the log alone |

mod admin;
mod call;
mod config;
mod convert;
pub mod decode;
mod health;
mod incoming;
mod scaler;
mod serve;
mod session;
mod status;
mod task;
mod worker;

pub use call::MAX_WAIT;
pub use config::GrpcConfig;
pub use serve::{GrpcServer, ServeError, serve};

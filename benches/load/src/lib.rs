//! Load on a running scheduler, as its users put it there: the client and the workers of the SDK over gRPC.
//!
//! `load` puts it on a server that runs; `growth` starts servers of its own and shows how the cost of a task changes with the size of
//! things; `nodes` starts some of them on one Kafka and TiDB, and says what each part of the cluster takes.

pub mod cost;
pub mod http;
pub mod lines;
pub mod measure;
pub mod people;
mod seen;
mod work;

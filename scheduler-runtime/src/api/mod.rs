//! The gateway: what transports call, carried out by the actors, the catalog, the log and the store.

mod access;
mod admin;
mod error;
mod list;
mod tasks;
pub(crate) mod view;
mod workers;

pub(crate) use self::access::hash;
pub(crate) use self::admin::finish_deletion;

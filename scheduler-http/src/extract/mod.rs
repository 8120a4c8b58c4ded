//! What is read from a request before a handler runs: who asks, for what, with which body.

mod body;
mod query;
mod target;

pub(crate) use body::{Json, params_of, read_json, read_params, require_media_type};
pub(crate) use query::{FromPairs, Pairs, Query, WaitQuery, limit_of, once, unknown, wait_of};
pub(crate) use target::{InApplication, InPipeline, OfTask, Who, shorten};

//! What workers and clients send: any message is a command or an error that says which field is wrong.

use bytes::Bytes;
use scheduler_grpc::server::decode;

use crate::split_byte;

/// A message of a worker; the first byte says which.
pub fn worker_messages(data: &[u8]) {
    let (kind, data) = split_byte(data);
    let problem = decode::worker_message(kind, Bytes::copy_from_slice(data));
    if let Err(status) = problem {
        assert_eq!(status.code(), decode::INVALID, "{status}");
        assert!(!status.message().is_empty());
    }
}

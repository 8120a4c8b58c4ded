//! What workers, clients and other nodes send: any message says something, or is an error that says which field is wrong.

use bytes::Bytes;
use scheduler_grpc::node::decode::node_message;
use scheduler_grpc::server::decode;
use tonic::Status;

use crate::split_byte;

/// A message of a worker; the first byte says which.
pub fn worker_messages(data: &[u8]) {
    let (kind, data) = split_byte(data);
    refused_with_its_field(decode::worker_message(kind, Bytes::copy_from_slice(data)));
}

/// A message of a client; the first byte says which.
pub fn client_messages(data: &[u8]) {
    let (kind, data) = split_byte(data);
    refused_with_its_field(decode::client_message(kind, Bytes::copy_from_slice(data)));
}

fn refused_with_its_field(read: Result<(), Status>) {
    if let Err(status) = read {
        assert_eq!(status.code(), decode::INVALID, "{status}");
        assert!(!status.message().is_empty());
    }
}

/// A message of another node; the first byte says which. Passed on, it says the same.
pub fn node_messages(data: &[u8]) {
    let (kind, data) = split_byte(data);
    if let Some([said, again]) = node_message(kind, Bytes::copy_from_slice(data)) {
        assert_eq!(said, again);
    }
}

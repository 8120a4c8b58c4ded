//! scheduler-grpc.

//! scheduler-sdk.

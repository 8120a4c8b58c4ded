//! scheduler-runtime.

//! scheduler-examples.

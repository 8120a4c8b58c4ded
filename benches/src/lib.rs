//! scheduler-benches.

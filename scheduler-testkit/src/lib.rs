//! scheduler-testkit.

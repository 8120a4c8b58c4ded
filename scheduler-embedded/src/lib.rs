//! scheduler-embedded.

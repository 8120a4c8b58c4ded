//! scheduler-pipeline.

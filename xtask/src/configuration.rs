//! Writes `docs/configuration.md` from what the programs say of themselves.

use crate::Failed;
use crate::run::{cargo, run as execute};

/// Has the test that compares the document write it instead.
const UPDATE: &str = "SCHEDULER_UPDATE_DOCS";

pub(crate) fn run() -> Result<(), Failed> {
    let mut test = cargo(&["test", "--package", "scheduler-tests", "--test", "configuration"]);
    test.env(UPDATE, "1");
    execute(test)
}

//! What this process asks of the system.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// How long the allocator keeps memory that is free, in milliseconds. With its own second the RSS is at 170 MiB while a backlog of five million tasks
/// goes to disk, with this at 95, and costs no more that could be measured; with 10 ms it costs some percent.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "100");

/// Has the allocator give memory back soon. It reads its options from the environment before `main`, so the program begins once more; should that not be
/// possible, it goes on as it is.
pub(crate) fn have_memory_given_back() {
    let (name, value) = PURGE_DELAY;
    if env::var_os(name).is_some() {
        return;
    }
    let mut arguments = env::args_os();
    let (Ok(program), Some(called)) = (env::current_exe(), arguments.next()) else {
        return;
    };
    let _ = Command::new(program)
        .arg0(called)
        .args(arguments)
        .env(name, value)
        .exec();
}

/// Lets this process have as many files open as it may: each worker is one, and the usual limit of 1,024 is meant for programs that cannot count further.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, files = limit.current, "the limit of open files stays as it is");
    }
}

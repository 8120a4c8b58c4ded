//! The storage ports in memory: deterministic, for the simulator and for tests of what stands on them.

mod catalog;
mod cluster;
mod log;
mod placement;
mod store;

pub use self::log::MemoryLog;
pub use self::placement::{MemoryGroup, MemoryPlacement};
pub use self::store::MemoryStore;

use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

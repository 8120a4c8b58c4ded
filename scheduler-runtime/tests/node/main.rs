//! A whole node: over ports in memory whose time is tokio's and is paused, so that hours pass at once; and over the embedded adapters.

mod faults;
mod gateway;
mod lifecycle;
mod lists;
mod sessions;
mod watches;
mod world;

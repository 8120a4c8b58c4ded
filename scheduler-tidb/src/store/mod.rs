//! The ports, each over its tables.

mod archive;
mod catalog;
mod checkpoint;
mod cluster;
mod row;
mod save;
mod snapshot;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use scheduler_core::time::Timestamp;

use crate::config::TidbConfig;
use crate::database::{Database, Target};
use crate::error::ConnectError;
use crate::schema;

/// The store on TiDB. Clones share its connections. See the crate's front page.
#[derive(Clone)]
pub struct TidbStore {
    database: Database,
    /// What expired by then is no longer shown, though it may still be there.
    horizon: Arc<AtomicU64>,
}

impl fmt::Debug for TidbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TidbStore").finish_non_exhaustive()
    }
}

impl TidbStore {
    /// Connects to a database of TiDB, and brings its tables to the version of this program.
    ///
    /// `url` is `mysql://user:password@host:4000/database`, with `?ssl-mode=` `DISABLED`, `PREFERRED` (the default), `REQUIRED`,
    /// `VERIFY_CA` or `VERIFY_IDENTITY`, and `ssl-ca`, `ssl-cert` and `ssl-key` naming PEM files. The database must exist.
    pub async fn connect(url: &str, config: TidbConfig) -> Result<Self, ConnectError> {
        let target = Target::parse(url)?;
        let connection = target.connect(&config).await?;
        schema::migrate(connection, &target, &config).await?;
        Ok(Self {
            database: Database::new(target, config),
            horizon: Arc::default(),
        })
    }

    /// Rows that expire at this moment or before are not to be shown. One that never expires does so at `u64::MAX`, which is beyond it.
    fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::Relaxed)
    }

    /// Moves the horizon to `now`, if it is not there yet; answers where it is.
    fn raise_horizon(&self, now: Timestamp) -> u64 {
        let now = now.as_millis().min(u64::MAX - 1);
        self.horizon.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

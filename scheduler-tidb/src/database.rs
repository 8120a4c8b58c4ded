//! The connections to TiDB: made, kept bounded, tried again, and cut when they do not answer.

use std::str::FromStr;
use std::time::Duration;

use scheduler_core::port::store::StoreError;
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, Executor, MySql, MySqlConnection, MySqlPool};

use crate::config::TidbConfig;
use crate::error::{ConnectError, Fail};

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that rested longer is asked whether it is still there.
const TRUSTED: Duration = Duration::from_secs(1);

/// What every connection says first: what the statements of this crate count on, whatever the server's defaults are.
const SESSION: &str = "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION', tidb_txn_mode = 'pessimistic', \
                       transaction_isolation = 'REPEATABLE-READ', innodb_lock_wait_timeout = 5";

/// A database of a TiDB cluster.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pool: MySqlPool,
    config: TidbConfig,
}

/// Where a URL leads, without its password.
#[derive(Debug)]
pub(crate) struct Target {
    options: MySqlConnectOptions,
    pub(crate) place: String,
    pub(crate) database: String,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, ConnectError> {
        let wrong = |problem: &str| ConnectError::Url {
            problem: problem.to_owned(),
        };
        if !url.starts_with("mysql://") {
            return Err(wrong("it does not begin with mysql://"));
        }
        let options = MySqlConnectOptions::from_str(url).map_err(|error| match error {
            // Of the others, none speaks of the password either, but they may one day.
            sqlx::Error::Configuration(problem) => wrong(&problem.to_string()),
            _ => wrong("it cannot be read"),
        })?;
        let options = options
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(Some("+00:00".to_owned()))
            .statement_cache_capacity(256);
        let database = options
            .get_database()
            .ok_or_else(|| wrong("it names no database"))?
            .to_owned();
        let place = format!(
            "{}@{}:{}/{database}",
            options.get_username(),
            options.get_host(),
            options.get_port()
        );
        Ok(Self {
            options,
            place,
            database,
        })
    }

    /// The first connection, whose failure says what to mend.
    pub(crate) async fn connect(&self, config: &TidbConfig) -> Result<MySqlConnection, ConnectError> {
        let place = || self.place.clone();
        let attempt = async {
            let mut connection = MySqlConnection::connect_with(&self.options).await?;
            let version: String = sqlx::query_scalar("SELECT VERSION()")
                .fetch_one(&mut connection)
                .await?;
            Ok::<_, sqlx::Error>((connection, version))
        };
        let (mut connection, version) = match tokio::time::timeout(config.acquire_timeout, attempt).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(ConnectError::of(place(), error)),
            Err(_) => {
                return Err(ConnectError::Unreachable {
                    place: place(),
                    source: format!("no answer within {:?}", config.acquire_timeout).into(),
                });
            }
        };
        if !version.contains("TiDB") {
            return Err(ConnectError::NotTidb {
                place: place(),
                version,
            });
        }
        connection
            .execute(SESSION)
            .await
            .map_err(|error| ConnectError::Unreachable {
                place: place(),
                source: error.into(),
            })?;
        Ok(connection)
    }
}

impl Database {
    pub(crate) fn new(target: Target, config: TidbConfig) -> Self {
        let pool = MySqlPoolOptions::new()
            .max_connections(config.max_connections.max(1))
            .acquire_timeout(config.acquire_timeout)
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute(SESSION).await?;
                    Ok(())
                })
            })
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TRUSTED {
                        return Ok(true);
                    }
                    let alive = tokio::time::timeout(TRUSTED, connection.ping()).await;
                    Ok(matches!(alive, Ok(Ok(()))))
                })
            })
            .connect_lazy_with(target.options);
        Self { pool, config }
    }

    pub(crate) fn tries(&self) -> Tries<'_> {
        Tries {
            database: self,
            left: self.config.max_tries.max(1),
            pause: FIRST_PAUSE,
        }
    }
}

/// A connection in use; one that is dropped in the middle of something is cut, and what it did not commit is rolled back by TiDB.
#[derive(Debug)]
pub(crate) struct Held(Option<PoolConnection<MySql>>);

impl Held {
    fn give_back(mut self) {
        drop(self.0.take());
    }

    pub(crate) fn connection(&mut self) -> Result<&mut MySqlConnection, sqlx::Error> {
        self.0.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// The tries of one call.
#[derive(Debug)]
pub(crate) struct Tries<'a> {
    database: &'a Database,
    left: u32,
    pause: Duration,
}

impl Tries<'_> {
    pub(crate) async fn acquire(&mut self) -> Result<Held, StoreError> {
        self.left -= 1;
        let connection = self.database.pool.acquire().await;
        connection
            .map(|connection| Held(Some(connection)))
            .map_err(|error| StoreError::Unavailable(error.into()))
    }

    /// One try, which may not take for ever.
    pub(crate) async fn bounded<T, E>(
        &self,
        work: impl Future<Output = Result<T, Fail<E>>>,
    ) -> Result<T, Fail<E>> {
        let limit = self.database.config.call_timeout;
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or(Err(Fail::Late(limit)))
    }

    /// The call's answer, unless it is worth another try; then comes back after a pause.
    pub(crate) async fn settle<T, E: From<StoreError> + std::fmt::Debug>(
        &mut self,
        held: Held,
        outcome: Result<T, Fail<E>>,
    ) -> Option<Result<T, E>> {
        let fail = match outcome {
            Ok(answer) => {
                held.give_back();
                return Some(Ok(answer));
            }
            Err(fail) => fail,
        };
        if fail.leaves_connection() {
            held.give_back();
        }
        if self.left == 0 || !fail.passes() {
            return Some(Err(fail.into_error()));
        }
        tracing::debug!(?fail, "the store refused a try");
        // Between a half and the whole of the pause, so that those that met once do not meet again.
        tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        None
    }
}

/// Runs `$work`, a future over a connection, until it has an answer.
macro_rules! tries {
    ($database:expr, |$connection:ident| $work:expr) => {{
        let mut tries = $database.tries();
        loop {
            let mut held = match tries.acquire().await {
                Ok(held) => held,
                Err(error) => break Err(error.into()),
            };
            let outcome = match held.connection() {
                Ok($connection) => tries.bounded($work).await,
                Err(error) => Err(error.into()),
            };
            if let Some(answer) = tries.settle(held, outcome).await {
                break answer;
            }
        }
    }};
}
pub(crate) use tries;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "postgres://u:secret@h/db",
            "mysql://u:secret@h:4000",
            "mysql://u:secret@h:port/db",
        ] {
            let error = Target::parse(url).expect_err("it is wrong");
            assert!(matches!(error, ConnectError::Url { .. }));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let target = Target::parse("mysql://u:secret@h:4001/db").expect("it is right");
        assert_eq!(target.place, "u@h:4001/db");
    }
}

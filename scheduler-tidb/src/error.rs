//! Why the store could not be opened, and how the database's errors become the ports' errors.

use std::time::Duration;

use scheduler_core::codec::DecodeError;
use scheduler_core::port::BoxError;
use scheduler_core::port::catalog::CatalogError;
use scheduler_core::port::store::StoreError;
use sqlx::mysql::MySqlDatabaseError;

/// Why [`TidbStore::connect`](crate::TidbStore::connect) failed. No message has the password in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one.
    #[error(
        "the TiDB URL is wrong: {problem}; give mysql://user:password@host:4000/database?ssl-mode=VERIFY_CA&ssl-ca=/path/ca.pem"
    )]
    Url {
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers there, or not as TiDB does.
    #[error(
        "TiDB at {place} cannot be reached: see that it runs, and that host, port and ssl-mode of the URL are right"
    )]
    Unreachable {
        /// User, host, port and database.
        place: String,
        /// What happened.
        source: BoxError,
    },
    /// It is there, and there is no TLS with it as the URL wants it.
    #[error(
        "there is no TLS with TiDB at {place}: `ssl-ca` of the URL must be a PEM file with the certificate of the authority that signed the \
         server's, and `ssl-mode` one that the server offers"
    )]
    Tls {
        /// User, host, port and database.
        place: String,
        /// What happened.
        source: BoxError,
    },
    /// The user may not.
    #[error(
        "TiDB at {place} refuses the user: check user and password of the URL, and GRANT the user its rights on the database"
    )]
    Denied {
        /// User, host, port and database.
        place: String,
        /// What it said.
        source: BoxError,
    },
    /// The database does not exist.
    #[error("TiDB at {place} has no such database: CREATE DATABASE it, or name another one in the URL")]
    NoDatabase {
        /// User, host, port and database.
        place: String,
    },
    /// It is another database product.
    #[error("the server at {place} is {version}, and not TiDB 6.5 or later")]
    NotTidb {
        /// User, host, port and database.
        place: String,
        /// What it says it is.
        version: String,
    },
    /// A newer version of this program has changed the tables.
    #[error(
        "the tables at {place} have version {found} and this program knows {known}: start the version that made them, or a later one"
    )]
    Newer {
        /// User, host, port and database.
        place: String,
        /// The tables' version.
        found: u32,
        /// The latest one that is known here.
        known: u32,
    },
    /// The tables could not be made or changed. It is safe to try again.
    #[error("the tables at {place} cannot be brought to version {version}: {hint}")]
    Migration {
        /// User, host, port and database.
        place: String,
        /// The step that failed.
        version: u32,
        /// What to do.
        hint: &'static str,
        /// What happened.
        source: BoxError,
    },
}

impl ConnectError {
    /// Why the first connection failed.
    pub(crate) fn of(place: String, error: sqlx::Error) -> Self {
        use std::io::ErrorKind;
        // Nothing but the files that the URL names can be missing or unreadable, and what is said of a certificate comes as invalid data.
        let is_about_keys = |kind| {
            matches!(
                kind,
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::InvalidData
            )
        };
        match (&error, number(&error)) {
            (_, Some(NO_DATABASE)) => Self::NoDatabase { place },
            (_, Some(code)) if DENIED.contains(&code) => Self::Denied {
                place,
                source: error.into(),
            },
            (sqlx::Error::Tls(_), _) => Self::Tls {
                place,
                source: error.into(),
            },
            (sqlx::Error::Io(io), _) if is_about_keys(io.kind()) => Self::Tls {
                place,
                source: error.into(),
            },
            _ => Self::Unreachable {
                place,
                source: error.into(),
            },
        }
    }
}

/// A write conflict, a lock that took too long, a deadlock, a changed schema, a busy or moving part of the cluster: the transaction did not
/// happen, and the same one may succeed in a moment. See TiDB's list of error codes.
const PASSING: [u16; 14] = [
    1205, 1213, 8002, 8005, 8022, 8027, 8028, 9001, 9002, 9003, 9004, 9005, 9007, 9012,
];

/// Why one try of a call did not answer.
#[derive(Debug)]
pub(crate) enum Fail<E> {
    /// The database says no, or is not there.
    Sql(sqlx::Error),
    /// Somebody else was faster; the next try sees what they did.
    Raced,
    /// It took longer than a call may.
    Late(Duration),
    /// The call has its answer, which is an error.
    Said(E),
}

impl<E> From<sqlx::Error> for Fail<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Fail<StoreError> {
    fn from(error: StoreError) -> Self {
        Self::Said(error)
    }
}

impl From<CatalogError> for Fail<CatalogError> {
    fn from(error: CatalogError) -> Self {
        Self::Said(error)
    }
}

impl From<StoreError> for Fail<CatalogError> {
    fn from(error: StoreError) -> Self {
        Self::Said(error.into())
    }
}

impl<E> Fail<E> {
    /// Whether the same try may succeed in a moment.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Sql(error) => number(error).is_some_and(|number| PASSING.contains(&number)),
            Self::Raced => true,
            Self::Late(_) | Self::Said(_) => false,
        }
    }

    /// Whether the connection is still at the beginning of a line, so that others can use it.
    pub(crate) fn leaves_connection(&self) -> bool {
        match self {
            Self::Sql(error) => number(error).is_some(),
            Self::Raced | Self::Said(_) => true,
            Self::Late(_) => false,
        }
    }
}

impl<E: From<StoreError>> Fail<E> {
    pub(crate) fn into_error(self) -> E {
        let source: BoxError = match self {
            Self::Said(error) => return error,
            Self::Sql(error) => error.into(),
            Self::Raced => "others changed the same rows each time".into(),
            Self::Late(limit) => format!("TiDB did not answer within {limit:?}").into(),
        };
        E::from(StoreError::Unavailable(source))
    }
}

/// TiDB's number of an error, if it is TiDB that speaks.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// There is a row of that key already.
pub(crate) const DUPLICATE: u16 = 1062;
/// There is no such database.
pub(crate) const NO_DATABASE: u16 = 1049;
/// There is no such table.
pub(crate) const NO_TABLE: u16 = 1146;
/// The user has no right to the database, no right password, no right to the statement or table.
pub(crate) const DENIED: [u16; 5] = [1044, 1045, 1142, 1227, 8121];

/// Says where the bytes are that cannot be decoded.
pub(crate) fn damaged(place: impl ToString) -> impl FnOnce(DecodeError) -> StoreError {
    move |error| StoreError::Damaged {
        place: place.to_string(),
        source: error.into(),
    }
}

//! Connections as they come in.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use futures::stream::{Stream, StreamExt as _};

/// How long nobody is let in after the system could not: it has no more files, and asking it again at once would take a whole core.
const PAUSE: Duration = Duration::from_secs(1);

/// What `incoming` brings, with a pause after whatever is wrong with more than the one connection.
pub(super) fn patient<T>(incoming: impl Stream<Item = Result<T>>) -> impl Stream<Item = Result<T>> {
    incoming.then(async |accepted| {
        if let Err(error) = &accepted
            && !is_of_the_connection(error)
        {
            tracing::warn!(%error, "no connection can be taken; trying again in {PAUSE:?}");
            tokio::time::sleep(PAUSE).await;
        }
        accepted
    })
}

fn is_of_the_connection(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_with_all_is_given_time_and_what_is_wrong_with_one_is_not() {
        let no_files = Error::from_raw_os_error(24);
        let gone = Error::from(ErrorKind::ConnectionAborted);
        let mut incoming = pin!(patient(futures::stream::iter([Err(gone), Err(no_files), Ok(1)])));
        let began = tokio::time::Instant::now();
        assert!(incoming.next().await.is_some_and(|accepted| accepted.is_err()));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(incoming.next().await.is_some_and(|accepted| accepted.is_err()));
        assert_eq!(began.elapsed(), PAUSE);
        assert!(matches!(incoming.next().await, Some(Ok(1))));
        assert_eq!(began.elapsed(), PAUSE);
    }
}

//! Trying again what an adapter could not do now.

use std::error::Error;
use std::time::Duration;

use tracing::warn;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Does `work` until it succeeds, with growing pauses. Nothing else can go on without it.
pub(crate) async fn until_done<T, E: Error + 'static, F>(what: &str, mut work: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match work().await {
            Ok(done) => return done,
            Err(error) => {
                warn!(
                    error = &error as &dyn Error,
                    "{what} failed; trying again in {pause:?}"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

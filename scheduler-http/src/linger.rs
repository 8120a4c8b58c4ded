//! Reads on for a while when a request is answered before its body has come.
//!
//! An HTTP/1 connection on which a body is left unread has to be closed, and closing it while the client still sends
//! resets it: the client sees a broken pipe in place of the answer that says what was wrong. The rest is thrown away as
//! it comes, as other servers do ("lingering close"), within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderMap, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::CancellationToken;

/// Bytes that are read and thrown away, at most; of a larger rest the connection is cut.
const MAX_BYTES: usize = 16 << 20;
/// How long the rest may take.
const MAX_TIME: Duration = Duration::from_secs(10);

/// A request's body, of which the rest is read if it is let go of before its end.
#[derive(Debug)]
pub(crate) struct Lingering {
    /// Nothing once the rest is read elsewhere.
    body: Option<Incoming>,
    draining: CancellationToken,
}

impl Lingering {
    /// Whether the rest of this body has to be read: of HTTP/2 only the stream is reset, and a client that waits for
    /// `100 Continue` sends no more after the answer.
    pub(crate) fn is_due(version: Version, headers: &HeaderMap, body: &Incoming) -> bool {
        version < Version::HTTP_2 && !headers.contains_key(EXPECT) && !body.is_end_stream()
    }

    pub(crate) fn new(body: Incoming, draining: CancellationToken) -> Self {
        Self {
            body: Some(body),
            draining,
        }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            // It has ended or is broken: there is no rest.
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let draining = self.draining.clone();
        // Not in a runtime means that the server is being torn down: there is nobody to answer.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::select! {
                    () = draining.cancelled() => {}
                    _ = tokio::time::timeout(MAX_TIME, throw_away(body)) => {}
                }
            });
        }
    }
}

async fn throw_away(mut body: Incoming) {
    let mut left = MAX_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

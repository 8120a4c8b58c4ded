//! What every call begins with: who calls, and until when an answer is of use.

use std::sync::Arc;
use std::time::Duration;

use scheduler_core::name::{Name, PipelinePath};
use scheduler_core::port::cluster::PeerGateway;
use scheduler_core::port::gateway::{Caller, Gateway};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::metadata::MetadataMap;

use super::GrpcConfig;
use super::status::{from_api, invalid};

/// The longest that a call can wait for something, whatever it asks for.
pub const MAX_WAIT: Duration = Duration::from_mins(1);

/// What all services share.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) gateway: Arc<dyn Gateway>,
    /// For this node's own shards, where there are other nodes.
    pub(crate) local: Option<Arc<dyn PeerGateway>>,
    pub(crate) config: Arc<GrpcConfig>,
    /// The server stops: streams that only watch end.
    pub(crate) stopping: CancellationToken,
    /// The grace is over: every stream ends.
    pub(crate) closing: CancellationToken,
}

/// A call that has been let in.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    deadline: Option<Instant>,
}

impl Node {
    /// Authenticates a call and notes its deadline.
    pub(crate) async fn admit(&self, metadata: &MetadataMap) -> Result<Call, Status> {
        let deadline = timeout_of(metadata)?.map(|timeout| Instant::now() + timeout);
        let caller = self
            .gateway
            .authenticate(key_of(metadata)?)
            .await
            .map_err(from_api)?;
        Ok(Call { caller, deadline })
    }
}

impl Call {
    /// How long to wait when the request asks for `asked` milliseconds: shorter than the client's own deadline by what the
    /// answer needs on its way.
    pub(crate) fn patience(&self, field: &str, asked_ms: u32) -> Result<Duration, Status> {
        let asked = Duration::from_millis(asked_ms.into());
        if asked > MAX_WAIT {
            return Err(invalid(
                field,
                &format!("must be at most {}", MAX_WAIT.as_millis()),
            ));
        }
        Ok(self.deadline.map_or(asked, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            asked.min(left.saturating_sub((left / 10).min(Duration::from_millis(100))))
        }))
    }

    /// Comes when the client's deadline is over; never if it has none.
    pub(crate) async fn expired(deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// The client's deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// A pipeline of the caller.
    pub(crate) fn path(&self, application: &str, pipeline: &str) -> Result<PipelinePath, Status> {
        Ok(PipelinePath {
            client: self.caller.client.clone(),
            application: name("application", application)?,
            pipeline: name("pipeline", pipeline)?,
        })
    }
}

/// The name in `field`.
pub(crate) fn name(field: &str, text: &str) -> Result<Name, Status> {
    text.parse()
        .map_err(|problem: scheduler_core::name::ParseNameError| invalid(field, &problem.to_string()))
}

fn key_of(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(value) = metadata.get("authorization") else {
        return Ok(None);
    };
    value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| Some(key.trim()))
        .ok_or_else(|| Status::unauthenticated("authorization: must be `Bearer` and an API key"))
}

/// The `grpc-timeout` of a call: up to eight digits and a unit.
fn timeout_of(metadata: &MetadataMap) -> Result<Option<Duration>, Status> {
    let Some(value) = metadata.get("grpc-timeout") else {
        return Ok(None);
    };
    let wrong = || {
        invalid(
            "grpc-timeout",
            "must be 1 to 8 digits and one of H, M, S, m, u, n",
        )
    };
    let text = value.to_str().map_err(|_| wrong())?;
    let (unit, digits) = text
        .as_bytes()
        .split_last()
        .filter(|(_, digits)| (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit))
        .ok_or_else(wrong)?;
    let number = digits
        .iter()
        .fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Ok(Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(wrong()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(key: &'static str, value: &'static str) -> MetadataMap {
        let mut map = MetadataMap::new();
        map.insert(key, value.parse().unwrap());
        map
    }

    #[test]
    fn a_timeout_has_a_number_and_a_unit() {
        let parse = |text| timeout_of(&metadata("grpc-timeout", text));
        assert_eq!(parse("2H").unwrap(), Some(Duration::from_hours(2)));
        assert_eq!(parse("30S").unwrap(), Some(Duration::from_secs(30)));
        assert_eq!(
            parse("99999999n").unwrap(),
            Some(Duration::from_nanos(99_999_999))
        );
        for bad in ["", "1", "S", "-1S", "1x", "123456789S"] {
            assert_eq!(
                parse(bad).unwrap_err().code(),
                tonic::Code::InvalidArgument,
                "{bad}"
            );
        }
        assert_eq!(timeout_of(&MetadataMap::new()).unwrap(), None);
    }

    #[test]
    fn a_key_is_a_bearer_token() {
        assert_eq!(
            key_of(&metadata("authorization", "Bearer k1")).unwrap(),
            Some("k1")
        );
        assert_eq!(
            key_of(&metadata("authorization", "bearer k1")).unwrap(),
            Some("k1")
        );
        assert_eq!(key_of(&MetadataMap::new()).unwrap(), None);
        for bad in ["k1", "Basic k1", ""] {
            let status = key_of(&metadata("authorization", bad)).unwrap_err();
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{bad}");
        }
    }
}

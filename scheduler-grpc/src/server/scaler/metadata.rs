//! What a trigger's metadata says: which pipeline, and what its workers are scaled by.

use std::collections::HashMap;
use std::time::Duration;

use scheduler_core::scaling::ScalingPolicy;
use tonic::Status;

use super::super::status::invalid;

/// What KEDA itself reads of a trigger's metadata and sends along.
const OF_KEDA: [&str; 6] = [
    "scalerAddress",
    "enableTLS",
    "unsafeSsl",
    "caCert",
    "tlsClientCert",
    "tlsClientKey",
];
/// The longest time that can be asked for.
const MOST_SECONDS: f64 = 86_400.0;
/// As a worker's own option has it.
const MOST_SLOTS: u32 = 1024;

/// A trigger's metadata, read.
#[derive(Debug, PartialEq)]
pub(super) struct Metadata<'a> {
    pub(super) application: &'a str,
    pub(super) pipeline: &'a str,
    pub(super) api_key: Option<&'a str>,
    pub(super) policy: ScalingPolicy,
}

impl<'a> Metadata<'a> {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Something is missing, unknown or out of its range: the status names the key.
    pub(super) fn read(metadata: &'a HashMap<String, String>) -> Result<Self, Status> {
        let mut read = Self {
            application: "",
            pipeline: "",
            api_key: None,
            policy: ScalingPolicy::default(),
        };
        for (key, value) in metadata {
            match key.as_str() {
                "application" => read.application = value,
                "pipeline" => read.pipeline = value,
                // KEDA puts the value of a variable of the scaled pods under the name that asks for it.
                "apiKey" | "apiKeyFromEnv" => read.api_key = Some(value),
                "targetSeconds" => read.policy.target = seconds(key, value)?,
                "taskSeconds" => read.policy.assumed_service_time = seconds(key, value)?,
                "concurrency" => read.policy.slots_per_worker = slots(key, value)?,
                key if OF_KEDA.contains(&key) => (),
                key => {
                    let known = "is not known; there are application, pipeline, apiKey, apiKeyFromEnv, targetSeconds, taskSeconds and concurrency";
                    return Err(invalid(&field(key), known));
                }
            }
        }
        for (key, value) in [("application", read.application), ("pipeline", read.pipeline)] {
            if value.is_empty() {
                return Err(invalid(
                    &field(key),
                    "is missing; the trigger's metadata must have it",
                ));
            }
        }
        Ok(read)
    }
}

/// The name of a key in errors. What a stranger sent is shown in part only.
pub(super) fn field(key: &str) -> String {
    let key: String = key.chars().take(64).collect();
    format!("scalerMetadata.{key}")
}

fn seconds(key: &str, value: &str) -> Result<Duration, Status> {
    let number: Option<f64> = value.parse().ok();
    number
        .filter(|seconds| (0.001..=MOST_SECONDS).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| {
            invalid(
                &field(key),
                "must be seconds from 0.001 to 86400, as in \"10\" or \"0.5\"",
            )
        })
}

fn slots(key: &str, value: &str) -> Result<u32, Status> {
    let number: Option<u32> = value.parse().ok();
    number
        .filter(|slots| (1..=MOST_SLOTS).contains(slots))
        .ok_or_else(|| {
            let rule =
                format!("must be a whole number from 1 to {MOST_SLOTS}: tasks that one worker runs at once");
            invalid(&field(key), &rule)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn what_is_not_said_is_as_in_the_local_deployer() {
        let metadata = map(&[("application", "a"), ("pipeline", "p"), ("scalerAddress", "s:1")]);
        let read = Metadata::read(&metadata).unwrap();
        let wanted = Metadata {
            application: "a",
            pipeline: "p",
            api_key: None,
            policy: ScalingPolicy::default(),
        };
        assert_eq!(read, wanted);
    }

    #[test]
    fn what_is_said_counts() {
        let metadata = map(&[
            ("application", "a"),
            ("pipeline", "p"),
            ("apiKeyFromEnv", "k"),
            ("targetSeconds", "0.5"),
            ("taskSeconds", "30"),
            ("concurrency", "8"),
        ]);
        let read = Metadata::read(&metadata).unwrap();
        assert_eq!(read.api_key, Some("k"));
        assert_eq!(read.policy.target, Duration::from_millis(500));
        assert_eq!(read.policy.assumed_service_time, Duration::from_secs(30));
        assert_eq!(read.policy.slots_per_worker, 8);
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let whole = [("application", "a"), ("pipeline", "p")];
        for (key, value) in [
            ("application", ""),
            ("pipeline", ""),
            ("targetSeconds", "0"),
            ("targetSeconds", "NaN"),
            ("targetSeconds", "inf"),
            ("targetSeconds", "-1"),
            ("targetSeconds", "10s"),
            ("taskSeconds", "86401"),
            ("concurrency", "0"),
            ("concurrency", "1025"),
            ("concurrency", "1.5"),
            ("targetSecond", "10"),
        ] {
            let mut metadata = map(&whole);
            metadata.insert(key.to_owned(), value.to_owned());
            let status = Metadata::read(&metadata).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{key}={value}");
            assert!(
                status.message().starts_with(&format!("scalerMetadata.{key}: ")),
                "{status}"
            );
        }
    }
}

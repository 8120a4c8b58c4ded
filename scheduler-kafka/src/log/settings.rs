//! What may be asked of a pipeline's topic, and why not.

use scheduler_core::port::log::{LogError, TopicSettings};

/// Settings on which no promise of the log rests, and which cost nobody else anything.
const FREE: [&str; 6] = [
    "compression.type",
    "flush.messages",
    "flush.ms",
    IN_SYNC,
    "segment.bytes",
    "segment.ms",
];
const IN_SYNC: &str = "min.insync.replicas";
/// Most copies of a partition, and bytes of a value: far more than any cluster has use for.
const MOST_COPIES: u16 = 1_000;
const MOST_BYTES: usize = 100;

fn refused(field: String, problem: String) -> LogError {
    LogError::Refused { field, problem }
}

fn field(name: &str) -> String {
    format!("topic_settings.{name}")
}

/// Refuses what can be seen without the brokers; `replication` is what the adapter is configured with.
pub(super) fn check(asked: &TopicSettings, replication: i16) -> Result<(), LogError> {
    if let Some(name) = asked.settings.keys().find(|name| !FREE.contains(&name.as_str())) {
        let problem = format!("cannot be asked for; these can: {}", FREE.join(", "));
        return Err(refused(field(name), problem));
    }
    let is_bad = |value: &str| value.is_empty() || value.len() > MOST_BYTES || value.contains('\0');
    if let Some((name, _)) = asked.settings.iter().find(|(_, value)| is_bad(value)) {
        let problem = format!("must be 1 to {MOST_BYTES} bytes, and none of them 0");
        return Err(refused(field(name), problem));
    }
    if let Some(copies) = asked.replication.filter(|copies| *copies > MOST_COPIES) {
        let problem = format!("is {copies}; must be at most {MOST_COPIES}");
        return Err(refused("replication".to_owned(), problem));
    }
    let Some(in_sync) = asked.settings.get(IN_SYNC) else {
        return Ok(());
    };
    let in_sync: u16 = in_sync.parse().map_err(|_| {
        refused(
            field(IN_SYNC),
            format!("is `{in_sync}`; must be a number of copies"),
        )
    })?;
    let copies = asked.replication.or(u16::try_from(replication).ok());
    match copies {
        Some(copies) if in_sync > copies => {
            let problem =
                format!("is {in_sync}, and there are {copies} copies: nothing could ever be appended");
            Err(refused(field(IN_SYNC), problem))
        }
        _ => Ok(()),
    }
}

/// The brokers are fewer than the copies.
pub(super) fn too_many_copies(asked: &TopicSettings, brokers: usize) -> LogError {
    let problem = match asked.replication {
        Some(copies) => format!("is {copies}; Kafka has brokers for at most {brokers}"),
        None => format!(
            "is not said, and by the server's configuration more than the {brokers} that Kafka has brokers for: ask for fewer copies"
        ),
    };
    refused("replication".to_owned(), problem)
}

/// The brokers take one of the values for none, and do not say which to a client of ours.
pub(super) fn unknown_value(asked: &TopicSettings) -> LogError {
    let said: Vec<String> = asked
        .settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let problem = format!("have a value that Kafka does not take: {}", said.join(", "));
    refused("topic_settings".to_owned(), problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(replication: Option<u16>, name: &str, value: &str, configured: i16) -> Result<(), String> {
        let asked = TopicSettings {
            replication,
            settings: [(name.to_owned(), value.to_owned())].into(),
        };
        check(&asked, configured).map_err(|problem| problem.to_string())
    }

    #[test]
    fn what_promises_rest_on_cannot_be_asked_for() {
        for name in [
            "retention.ms",
            "cleanup.policy",
            "message.timestamp.type",
            "max.message.bytes",
        ] {
            let problem = checked(None, name, "1", -1).unwrap_err();
            assert!(
                problem.starts_with(&format!("topic_settings.{name} cannot")),
                "{problem}"
            );
        }
        assert_eq!(checked(None, "compression.type", "zstd", -1), Ok(()));
    }

    #[test]
    fn values_that_no_broker_could_read_are_not_sent() {
        for value in ["", "a\0b", &"9".repeat(101)] {
            let problem = checked(None, "segment.ms", value, -1).unwrap_err();
            assert!(
                problem.starts_with("topic_settings.segment.ms must be"),
                "{problem}"
            );
        }
        let problem = checked(Some(1_001), "segment.ms", "1000", -1).unwrap_err();
        assert!(problem.starts_with("replication is 1001"), "{problem}");
    }

    #[test]
    fn more_copies_in_sync_than_there_are_would_take_nothing() {
        let in_sync = |replication, value, configured| checked(replication, IN_SYNC, value, configured);
        assert!(in_sync(Some(2), "3", -1).unwrap_err().contains("2 copies"));
        assert!(in_sync(None, "3", 2).unwrap_err().contains("2 copies"));
        assert!(in_sync(None, "x", -1).unwrap_err().contains("must be a number"));
        assert_eq!(in_sync(Some(3), "2", 1), Ok(()));
        // The brokers know how many there are.
        assert_eq!(in_sync(None, "3", -1), Ok(()));
    }
}

//! Names of topics: `<cluster>.<client>.<application>.<pipeline>.<number>`.
//!
//! The number alone tells topics apart; the rest is for people. At most 40 + 3 × 63 + 10 + 4 = 243 of the 249 characters that Kafka allows.

use std::sync::Arc;

use scheduler_core::id::PipelineId;
use scheduler_core::port::log::Topic;

/// Makes and reads the names of one cluster's topics.
#[derive(Clone, Debug)]
pub(crate) struct TopicNames {
    cluster: Arc<str>,
}

impl TopicNames {
    pub(crate) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.into(),
        }
    }

    pub(crate) fn of(&self, topic: &Topic) -> String {
        let path = &topic.path;
        format!(
            "{}.{}.{}.{}.{}",
            self.cluster, path.client, path.application, path.pipeline, topic.pipeline.0
        )
    }

    /// Whose topic this is; none if it is not one of this cluster's.
    pub(crate) fn pipeline(&self, name: &str) -> Option<PipelineId> {
        let rest = name.strip_prefix(&*self.cluster)?.strip_prefix('.')?;
        let mut parts = rest.split('.');
        let names = [parts.next()?, parts.next()?, parts.next()?];
        let number = parts.next()?;
        let canonical = number == "0" || !number.starts_with('0');
        let ours = names.iter().all(|name| !name.is_empty())
            && parts.next().is_none()
            && canonical
            && number.bytes().all(|b| b.is_ascii_digit());
        if ours {
            number.parse().ok().map(PipelineId)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::name::PipelinePath;

    fn topic(name: &str, number: u32) -> Topic {
        let name: scheduler_core::name::Name = name.parse().unwrap();
        Topic {
            pipeline: PipelineId(number),
            path: PipelinePath {
                client: name.clone(),
                application: name.clone(),
                pipeline: name,
            },
            partitions: 1,
            settings: scheduler_core::port::log::TopicSettings::default(),
        }
    }

    #[test]
    fn a_name_says_whose_topic_it_is() {
        let names = TopicNames::new("prod.eu-1");
        for number in [0, 7, u32::MAX] {
            let name = names.of(&topic("ocr-2", number));
            assert_eq!(names.pipeline(&name), Some(PipelineId(number)), "{name}");
        }
        assert_eq!(names.of(&topic("ocr", 7)), "prod.eu-1.ocr.ocr.ocr.7");
    }

    #[test]
    fn the_longest_name_is_one_that_kafka_allows() {
        let names = TopicNames::new(&"c".repeat(40));
        assert!(names.of(&topic(&"n".repeat(63), u32::MAX)).len() <= 249);
    }

    #[test]
    fn topics_of_others_are_not_ours() {
        let names = TopicNames::new("prod");
        for other in [
            "prod",
            "prod.",
            "prod.a.b.c",
            "prod.a.b.c.",
            "prod.a.b.c.x",
            "prod.a.b.c.01",
            "prod.a.b.c.+1",
            "prod.a..c.1",
            "prod.eu.a.b.c.1",
            "production.a.b.c.1",
            "prod.a.b.c.4294967296",
            "__consumer_offsets",
        ] {
            assert_eq!(names.pipeline(other), None, "{other}");
        }
    }
}

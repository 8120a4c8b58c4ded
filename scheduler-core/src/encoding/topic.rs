//! What was asked of a pipeline's topic.

use bytes::Bytes;

use crate::codec::{DecodeError, Reader, put_bytes, put_varint};
use crate::port::log::TopicSettings;

/// Appends what was asked of a topic, which takes the rest of what it is in; nothing if nothing was asked.
pub fn put_topic_settings(out: &mut Vec<u8>, topic: &TopicSettings) {
    let TopicSettings {
        replication,
        settings,
    } = topic;
    if *topic == TopicSettings::default() {
        return;
    }
    put_varint(out, replication.unwrap_or_default().into());
    for (name, value) in settings {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

/// What [`put_topic_settings`] wrote.
pub fn topic_settings(bytes: Bytes) -> Result<TopicSettings, DecodeError> {
    let mut from = Reader::new(bytes);
    let mut topic = TopicSettings::default();
    if from.is_empty() {
        return Ok(topic);
    }
    topic.replication = Some(from.number()?).filter(|copies| *copies > 0);
    while !from.is_empty() {
        topic.settings.insert(from.text()?, from.text()?);
    }
    Ok(topic)
}

//! Durations, sizes and moments as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scheduler_core::time::Timestamp;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// A duration as text: `30s`, `5m`, `1h30m`, `250ms`, `7d`. Whole milliseconds, at most ten years.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ToSchema)]
#[schema(value_type = String, examples("30s", "5m", "1h30m"))]
pub(crate) struct HumanDuration(pub(crate) Duration);

const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);
const EXPECTED_DURATION: &str = "a duration such as 30s, 5m, 1h30m or 250ms";

/// Reads a duration; the error says what would be right.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|_| format!("must be {EXPECTED_DURATION}, found {text:?}"))?;
    if duration > LONGEST {
        return Err(format!("must be at most 10 years, found {text:?}"));
    }
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(format!("must be in whole milliseconds, found {text:?}"));
    }
    Ok(duration)
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = HumanDuration;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTED_DURATION)
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HumanDuration, E> {
                parse_duration(text).map(HumanDuration).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&humantime::format_duration(self.0).to_string().replace(' ', ""))
    }
}

/// A number of bytes: a plain number, or text with a unit: `16MiB`, `64KiB`, `1GB`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ToSchema)]
#[schema(value_type = String, examples("16MiB", "64KiB"))]
pub(crate) struct HumanSize(pub(crate) usize);

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];
const EXPECTED_SIZE: &str = "a number of bytes such as 65536, 64KiB or 16MiB";

fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1));
    let bytes = digits.trim_end().parse::<u64>().ok()?.checked_mul(unit)?;
    usize::try_from(bytes).ok()
}

impl<'de> Deserialize<'de> for HumanSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;
        impl Visitor<'_> for Size {
            type Value = HumanSize;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTED_SIZE)
            }
            fn visit_u64<E: serde::de::Error>(self, bytes: u64) -> Result<HumanSize, E> {
                usize::try_from(bytes)
                    .map(HumanSize)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<HumanSize, E> {
                parse_size(text)
                    .map(HumanSize)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Size)
    }
}

impl Serialize for HumanSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (unit, shift) = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)]
            .into_iter()
            .find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or(("B", 0));
        serializer.collect_str(&format_args!("{}{unit}", self.0 >> shift))
    }
}

/// A moment as RFC 3339 text in UTC with milliseconds: `2026-11-24T08:00:00.000Z`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2026-11-24T08:00:00.000Z")]
pub(crate) struct Moment(pub(crate) Timestamp);

/// The end of the year 9999, the last that RFC 3339 can write.
const LAST_MILLIS: u64 = 253_402_300_799_999;

/// Reads a moment; the error says what would be right.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    humantime::parse_rfc3339(text)
        .ok()
        .and_then(|moment| moment.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .map(Timestamp::from_millis)
        .ok_or_else(|| format!("must be a moment in UTC such as 2026-11-24T08:00:00Z, found {text:?}"))
}

/// The moment that it is.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let moment = UNIX_EPOCH + Duration::from_millis(self.0.as_millis().min(LAST_MILLIS));
        serializer.collect_str(&humantime::format_rfc3339_millis(moment))
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        parse_moment(&text).map(Self).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(value: &impl Serialize) -> String {
        serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
    }

    #[test]
    fn durations_are_written_as_people_write_them() {
        for text in ["0s", "250ms", "30s", "1h30m", "1day"] {
            assert_eq!(text_of(&HumanDuration(parse_duration(text).unwrap())), text);
        }
        for bad in ["", "30", "abc", "-5s", "1us", "11years", "9999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_take_numbers_and_units() {
        for (json, bytes) in [
            ("7", 7),
            ("\"7\"", 7),
            ("\"7B\"", 7),
            ("\"64KiB\"", 65_536),
            ("\"1MB\"", 1_000_000),
        ] {
            assert_eq!(serde_json::from_str::<HumanSize>(json).unwrap().0, bytes);
        }
        for bad in ["\"\"", "\"KiB\"", "-1", "\"1 TiB\"", "\"99999999999GiB\"", "true"] {
            assert!(serde_json::from_str::<HumanSize>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_moment_beyond_what_can_be_written_is_the_last_that_can() {
        assert_eq!(text_of(&Moment(Timestamp::MAX)), "9999-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn a_size_survives_its_text(bytes: usize) {
            prop_assert_eq!(parse_size(&text_of(&HumanSize(bytes))), Some(bytes));
        }

        #[test]
        fn a_duration_survives_its_text(millis in 0..315_360_000_000u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&text_of(&HumanDuration(duration))), Ok(duration));
        }

        #[test]
        fn a_moment_survives_its_text(millis in 0..LAST_MILLIS) {
            let moment = Timestamp::from_millis(millis);
            prop_assert_eq!(parse_moment(&text_of(&Moment(moment))), Ok(moment));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text in ".*") {
            let _ = (parse_duration(&text), parse_size(&text), parse_moment(&text));
        }
    }
}

//! A chart's values, with those of a deployment laid over them.

use scheduler_core::port::deploy::DeployError;
use serde_json::Value;

use super::files::ChartFiles;
use super::{invalid, parse_yaml};

pub(super) fn read(files: &ChartFiles, overrides: &[u8]) -> Result<Value, DeployError> {
    const FILE: &str = "values.yaml";
    let mut values = match files.read(FILE)? {
        Some(text) => parse_yaml(FILE, &text)?,
        None => Value::Null,
    };
    if values.is_null() {
        values = Value::Object(serde_json::Map::new());
    }
    if !values.is_object() {
        return Err(invalid(FILE, "must be a map"));
    }
    if !overrides.is_empty() {
        let overrides: Value = serde_json::from_slice(overrides)
            .map_err(|error| invalid("values", format!("must be JSON: {error}")))?;
        if !overrides.is_object() {
            return Err(invalid("values", "must be a JSON object"));
        }
        merge(&mut values, overrides);
    }
    Ok(values)
}

/// Lays `over` over `base`: maps merge, `null` removes, everything else replaces.
fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    _ if value.is_null() => drop(base.remove(&key)),
                    Some(old) => merge(old, value),
                    None => drop(base.insert(key, value)),
                }
            }
        }
        (base, over) => *base = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn maps_merge_lists_replace_and_null_removes() {
        let mut base = json!({"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"d": 1}});
        merge(
            &mut base,
            json!({"a": {"y": [3], "z": true}, "b": null, "c": 2, "e": {"f": 1}, "g": null}),
        );
        assert_eq!(
            base,
            json!({"a": {"x": 1, "y": [3], "z": true}, "c": 2, "e": {"f": 1}})
        );
    }
}

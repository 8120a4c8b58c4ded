//! Bounds on the number of workers.

use scheduler_core::port::catalog::Replicas;
use scheduler_core::port::deploy::DeployError;
use serde_json::Value;

use super::invalid;

pub(super) fn find(values: &Value) -> Result<Option<Replicas>, DeployError> {
    let Some((key, value)) = ["replicas", "replicaCount"]
        .into_iter()
        .map(|key| (key, &values[key]))
        .find(|(_, value)| !value.is_null())
    else {
        return Ok(None);
    };
    let field = |part: &str| format!("values.yaml: {key}{part}");
    if value.is_number() {
        let count = number(value, &field(""))?;
        return bounds(&field(""), count, count).map(Some);
    }
    if !value.is_object() {
        return Err(invalid(field(""), "must be a number, or a map of min and max"));
    }
    let part = |name: &str| match &value[name] {
        Value::Null => Ok(None),
        value => number(value, &field(&format!(".{name}"))).map(Some),
    };
    match (part("min")?, part("max")?) {
        (None, None) => Ok(None),
        (Some(min), None) => bounds(&field(".min"), min, min.max(1)).map(Some),
        (None, Some(max)) => bounds(&field(".max"), max.min(1), max).map(Some),
        (Some(min), Some(max)) => bounds(&field(".max"), min, max).map(Some),
    }
}

fn number(value: &Value, field: &str) -> Result<u32, DeployError> {
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| invalid(field, format!("must be a whole number, is {value}")))
}

fn bounds(field: &str, min: u32, max: u32) -> Result<Replicas, DeployError> {
    if max == 0 || max < min {
        return Err(invalid(
            field,
            format!("must be at least 1 and not below min; min is {min}, max {max}"),
        ));
    }
    Ok(Replicas { min, max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bounds_come_in_several_spellings() {
        let found = |values: Value| find(&values).unwrap().map(|bounds| (bounds.min, bounds.max));
        assert_eq!(found(json!({"replicas": {"min": 0, "max": 4}})), Some((0, 4)));
        assert_eq!(
            found(json!({"replicaCount": {"min": 1, "max": 10}})),
            Some((1, 10))
        );
        assert_eq!(found(json!({"replicaCount": 2})), Some((2, 2)));
        assert_eq!(found(json!({"replicas": {"min": 2}})), Some((2, 2)));
        assert_eq!(found(json!({"replicas": {"max": 3}})), Some((1, 3)));
        assert_eq!(found(json!({"replicas": {}})), None);
        assert_eq!(found(json!({})), None);
        assert_eq!(
            found(json!({"replicas": {"min": 1, "max": 2}, "replicaCount": 9})),
            Some((1, 2))
        );
    }

    #[test]
    fn what_are_no_bounds_is_refused_by_name() {
        for (values, field) in [
            (
                json!({"replicas": {"min": 3, "max": 2}}),
                "values.yaml: replicas.max",
            ),
            (json!({"replicas": {"max": 0}}), "values.yaml: replicas.max"),
            (
                json!({"replicaCount": {"min": -1}}),
                "values.yaml: replicaCount.min",
            ),
            (json!({"replicaCount": 1.5}), "values.yaml: replicaCount"),
            (json!({"replicaCount": "two"}), "values.yaml: replicaCount"),
        ] {
            let error = find(&values).unwrap_err();
            assert!(
                matches!(&error, DeployError::Invalid { field: f, .. } if f == field),
                "{error}"
            );
        }
    }
}

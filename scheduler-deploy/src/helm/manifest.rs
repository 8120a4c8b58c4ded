//! What a chart renders to: objects, read once, and written again in a form that has one meaning.

use scheduler_core::port::deploy::DeployError;
use serde::Deserialize as _;
use serde_json::Value;

use crate::chart::invalid;

/// Annotations of a chart's hooks.
const HOOK: &str = "helm.sh/hook";

/// An object of Kubernetes, as it was rendered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object {
    pub(crate) value: Value,
}

impl Object {
    /// The group of its kind; empty for the core's.
    pub(crate) fn group(&self) -> &str {
        self.text("/apiVersion")
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The namespace that it names; empty if it names none.
    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// When it is to be run as a hook; empty if it is none.
    pub(crate) fn hook(&self) -> &str {
        self.value["metadata"]["annotations"][HOOK]
            .as_str()
            .unwrap_or_default()
    }

    /// `Kind/name`, for people.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    fn text(&self, pointer: &str) -> &str {
        self.value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The template of its pods, if it is of a kind that has one: a pod itself, or what makes pods.
    pub(crate) fn pod_mut(&mut self) -> Option<&mut Value> {
        let pointer = pod_pointer(self.kind())?;
        self.value.pointer_mut(pointer)
    }

    /// The same, to be read.
    pub(crate) fn pod(&self) -> Option<&Value> {
        self.value.pointer(pod_pointer(self.kind())?)
    }
}

/// Where the template of pods is: an object with `metadata` and `spec`.
fn pod_pointer(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "PodTemplate" => Some("/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController" | "Job" => {
            Some("/spec/template")
        }
        _ => None,
    }
}

/// The objects of rendered YAML. Lists are taken apart; hooks for tests, which nobody runs, are left out.
pub(crate) fn parse(rendered: &str, most: usize) -> Result<Vec<Object>, DeployError> {
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(rendered) {
        let value = Value::deserialize(document)
            .map_err(|error| invalid("chart", format!("renders to what is not YAML: {error}")))?;
        take(value, most, &mut objects)?;
    }
    Ok(objects)
}

fn take(value: Value, most: usize, objects: &mut Vec<Object>) -> Result<(), DeployError> {
    if value.is_null() {
        return Ok(());
    }
    let mut object = Object { value };
    if object.kind() == "List" && object.value["items"].is_array() {
        if let Some(items) = object.value["items"].as_array_mut() {
            for item in std::mem::take(items) {
                take(item, most, objects)?;
            }
        }
        return Ok(());
    }
    if object.kind().is_empty() || object.text("/apiVersion").is_empty() || object.name().is_empty() {
        let what = object.title();
        let problem = format!("renders to an object ({what}) without apiVersion, kind or metadata.name");
        return Err(invalid("chart", problem));
    }
    if is_test(object.hook()) {
        return Ok(());
    }
    if objects.len() >= most {
        return Err(invalid("chart", format!("renders to more than {most} objects")));
    }
    octal_modes(&mut object.value);
    objects.push(object);
    Ok(())
}

fn is_test(hook: &str) -> bool {
    !hook.is_empty()
        && hook
            .split(',')
            .all(|hook| matches!(hook.trim(), "test" | "test-success" | "test-failure"))
}

/// Charts write modes of files as `0644`, which was a number in the YAML that Kubernetes began with.
fn octal_modes(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let mode = match value.as_str() {
                    Some(text) if matches!(key.as_str(), "defaultMode" | "mode") && text.starts_with('0') => {
                        u32::from_str_radix(text, 8).ok()
                    }
                    _ => None,
                };
                match mode {
                    Some(mode) => *value = mode.into(),
                    None => octal_modes(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(octal_modes),
        _ => (),
    }
}

/// The objects as JSON, one document each: what every reader of YAML understands in the same way.
pub(crate) fn write(objects: &[Object]) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&object.value.to_string());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_objects_and_tests_are_left_out() {
        let rendered = "---\n# Source: a\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\n\
            items:\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}\n---\napiVersion: v1\nkind: Pod\n\
            metadata: {name: c, annotations: {helm.sh/hook: test}}\n";
        let objects = parse(rendered, 10).unwrap();
        let titles: Vec<String> = objects.iter().map(Object::title).collect();
        assert_eq!(titles, ["ConfigMap/a", "Deployment/b"]);
        assert_eq!((objects[0].group(), objects[1].group()), ("", "apps"));
        assert!(
            parse(rendered, 1)
                .unwrap_err()
                .to_string()
                .contains("more than 1 objects")
        );
    }

    #[test]
    fn what_has_two_meanings_gets_one() {
        let rendered = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  hostNetwork: yes\n  volumes: [{secret: {defaultMode: 0400}}]\n";
        let written = write(&parse(rendered, 10).unwrap());
        assert!(written.contains("\"hostNetwork\":\"yes\""), "{written}");
        assert!(written.contains("\"defaultMode\":256"), "{written}");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (rendered, problem) in [
            ("a: [", "not YAML"),
            ("kind: Pod\nmetadata: {name: a}\n", "without apiVersion"),
            ("apiVersion: v1\nkind: Pod\n", "without apiVersion"),
        ] {
            let error = parse(rendered, 10).unwrap_err();
            assert!(error.to_string().contains(problem), "{rendered}: {error}");
        }
    }
}

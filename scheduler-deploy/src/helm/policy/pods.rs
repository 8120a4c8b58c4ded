//! What pods must not have: anything by which they reach their node, another account, or somebody else's place.

use serde_json::Value;

use super::{Place, Refusal};

/// Kinds of volumes that stay within the namespace.
const VOLUMES: [&str; 7] = [
    "configMap",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// What containers may add, as in Kubernetes' baseline standard.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Everything but an absent or an honest `false` counts as said: what has another type is not left to others to read.
fn is_said(value: &Value) -> bool {
    !(value.is_null() || *value == Value::Bool(false))
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// Checks a template of pods.
pub(super) fn check(pod: &Value, place: Place<'_>, refusals: &mut Vec<Refusal>) {
    let mut refuse = |rule: &'static str, problem: String| refusals.push(Refusal::new(rule, problem));
    let spec = &pod["spec"];
    for (field, rule, what) in [
        ("hostNetwork", "host-network", "network"),
        ("hostPID", "host-processes", "processes"),
        ("hostIPC", "host-ipc", "shared memory"),
    ] {
        if is_said(&spec[field]) {
            refuse(rule, format!("{field} shares the {what} of the node"));
        }
    }
    if spec["hostUsers"] != Value::Null && !spec["hostUsers"].is_boolean() {
        refuse("host-users", "hostUsers must be true or false".to_owned());
    }
    for field in ["serviceAccountName", "serviceAccount"] {
        if spec[field] == place.account {
            refuse(
                "service-account",
                format!("{} is the account that charts are applied as", place.account),
            );
        }
    }
    if !spec["nodeName"].is_null() {
        refuse("node-name", "nodeName goes past the scheduler of pods".to_owned());
    }
    if let Some(class) = spec["priorityClassName"].as_str()
        && class.starts_with("system-")
    {
        refuse("priority-class", format!("{class} is for the cluster itself"));
    }
    if !is_empty(&spec["securityContext"]["sysctls"]) {
        refuse("sysctls", "sysctls change the kernel of the node".to_owned());
    }
    profiles(&spec["securityContext"], "the pod", &mut refuse);
    for (name, value) in annotations(pod) {
        if name.starts_with("container.apparmor.security.beta.kubernetes.io/") && value == "unconfined" {
            refuse("apparmor", "a container is unconfined".to_owned());
        }
    }
    volumes(spec, &mut refuse);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(&spec[list]) {
            check_container(container, &mut refuse);
        }
    }
}

fn annotations(pod: &Value) -> impl Iterator<Item = (&str, &str)> {
    let annotations = pod["metadata"]["annotations"].as_object();
    annotations
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn volumes(spec: &Value, refuse: &mut impl FnMut(&'static str, String)) {
    for volume in items(&spec["volumes"]) {
        let name = volume["name"].as_str().unwrap_or_default();
        for kind in volume.as_object().into_iter().flat_map(|map| map.keys()) {
            if kind == "hostPath" {
                let path = volume["hostPath"]["path"].as_str().unwrap_or_default();
                refuse("host-path", format!("volume {name} is {path} of the node"));
            } else if kind != "name" && !VOLUMES.contains(&kind.as_str()) {
                refuse("volume-type", format!("volume {name} is of type {kind}"));
            }
        }
    }
}

fn check_container(container: &Value, refuse: &mut impl FnMut(&'static str, String)) {
    let name = container["name"].as_str().unwrap_or_default();
    let context = &container["securityContext"];
    if is_said(&context["privileged"]) {
        refuse("privileged", format!("container {name} is privileged"));
    }
    if context["allowPrivilegeEscalation"] == Value::Bool(true) {
        refuse(
            "privilege-escalation",
            format!("container {name} says allowPrivilegeEscalation: true"),
        );
    }
    for capability in items(&context["capabilities"]["add"]) {
        let capability = capability.as_str().unwrap_or("?").trim_start_matches("CAP_");
        if !CAPABILITIES.contains(&capability) {
            refuse("capabilities", format!("container {name} adds {capability}"));
        }
    }
    let mount = context["procMount"].as_str().unwrap_or("Default");
    if mount != "Default" {
        refuse("proc-mount", format!("container {name} says procMount: {mount}"));
    }
    profiles(context, name, refuse);
    for port in items(&container["ports"]) {
        if !(port["hostPort"].is_null() || port["hostPort"] == 0) {
            refuse(
                "host-port",
                format!("container {name} takes port {} of its node", port["hostPort"]),
            );
        }
    }
    if !is_empty(&container["volumeDevices"]) {
        refuse("volume-type", format!("container {name} uses a block device"));
    }
}

/// Seccomp, `AppArmor`, `SELinux` and Windows.
fn profiles(context: &Value, who: &str, refuse: &mut impl FnMut(&'static str, String)) {
    if context["seccompProfile"]["type"] == "Unconfined" {
        refuse("seccomp", format!("{who} is unconfined"));
    }
    if context["appArmorProfile"]["type"] == "Unconfined" {
        refuse("apparmor", format!("{who} is unconfined"));
    }
    if !context["seLinuxOptions"].is_null() {
        refuse("selinux", format!("{who} chooses its own seLinuxOptions"));
    }
    if is_said(&context["windowsOptions"]["hostProcess"]) {
        refuse("host-processes", format!("{who} is a process of a Windows node"));
    }
}

//! What helm keeps of a pipeline's releases, and what is remembered there of how they fared.
//!
//! Helm hands the labels of a revision on: an upgrade has those of the one before it, unless it is told others, and a rollback those of the one that
//! it goes back to. So each label names the digest that it is about, and what is handed on to a revision of something else means nothing there.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use scheduler_core::id::PipelineId;
use scheduler_core::port::deploy::DeployError;
use serde_json::{Value, json};

use super::cluster::{PIPELINE, label, of_kube};

/// What a release was made of.
const WANTED: &str = "workload-scheduler/wanted";
/// What workers were ready of.
const READY: &str = "workload-scheduler/ready";
/// What is said of a new revision: it may be of the same chart and values as an older one, and yet of another state of the chart.
const NONE: &str = "none";
/// What is not to be tried again, at the revision that is in its place.
const REFUSED: &str = "workload-scheduler/refused";
/// Why: an annotation beside it, since it is for people.
const PROBLEM: &str = "workload-scheduler/problem";
/// Bytes of it that are kept.
const MAX_PROBLEM: usize = 2 << 10;

/// What helm keeps of one revision of a release.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Revision {
    pub(super) number: u32,
    pub(super) release: String,
    pub(super) status: String,
    /// A digest of what was wanted.
    pub(super) wanted: String,
    /// The digest of what workers were ready of.
    ready: String,
    /// The digest of what failed and is not to be tried again.
    refused: String,
    problem: String,
    /// Where helm keeps it.
    secret: String,
}

impl Revision {
    /// Helm had begun, and did not come to an end.
    pub(super) fn is_pending(&self) -> bool {
        self.status.starts_with("pending-") || self.status == "uninstalling"
    }

    /// It is, or was, there as a whole.
    fn is_whole(&self) -> bool {
        matches!(self.status.as_str(), "deployed" | "superseded")
    }

    /// A rollback that helm did not end. It is a copy of what was to be brought back: whoever goes on from it would take that for what is there.
    fn is_in_vain(&self) -> bool {
        let is_copy = self.ready == self.wanted && !self.wanted.is_empty();
        self.status == "pending-rollback" || self.status == "failed" && is_copy
    }

    /// Its workers were ready.
    pub(super) fn is_proven(&self) -> bool {
        self.is_whole() && !self.wanted.is_empty() && self.ready == self.wanted
    }
}

/// The revisions that helm keeps of a pipeline's releases, the oldest first.
pub(super) async fn list(
    client: &Client,
    namespace: &str,
    pipeline: Option<PipelineId>,
) -> Result<Vec<Revision>, DeployError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let whose = pipeline.map_or_else(|| PIPELINE.to_owned(), |id| format!("{PIPELINE}={}", label(id)));
    let selector = ListParams::default().labels(&format!("owner=helm,{whose}"));
    // Metadata is enough; what was rendered is large.
    let found = secrets.list_metadata(&selector).await.map_err(of_kube)?;
    let mut revisions: Vec<Revision> = found
        .items
        .iter()
        .map(|secret| {
            let text = |name: &str| secret.labels().get(name).cloned().unwrap_or_default();
            Revision {
                number: text("version").parse().unwrap_or_default(),
                release: text("name"),
                status: text("status"),
                wanted: text(WANTED),
                ready: text(READY),
                refused: text(REFUSED),
                problem: secret.annotations().get(PROBLEM).cloned().unwrap_or_default(),
                secret: secret.name_any(),
            }
        })
        .collect();
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

/// Labels of a new one, as helm takes them.
pub(super) fn labels(pipeline: PipelineId, wanted: &str) -> String {
    format!("{PIPELINE}={},{WANTED}={wanted},{READY}={NONE}", label(pipeline))
}

/// Where to go back to from what helm had begun, from what the cluster refused, or from what does not come up: what is deployed, unless it is what
/// is refused; else the newest whose workers were ready; else the newest at all.
pub(super) fn before(revisions: &[Revision]) -> Option<&Revision> {
    if revisions.last()?.status == "uninstalling" {
        return None;
    }
    let is_refused = |revision: &Revision| {
        let mut refused = revisions.iter().map(|one| &one.refused);
        refused.any(|refused| !refused.is_empty() && *refused == revision.wanted)
    };
    let newest = |holds: fn(&Revision) -> bool| {
        let mut newest = revisions.iter().rev();
        newest.find(|revision| holds(revision) && !is_refused(revision))
    };
    newest(|revision| revision.status == "deployed")
        .or_else(|| newest(Revision::is_proven))
        .or_else(|| newest(Revision::is_whole))
}

/// The newest whose workers were ready, of something else than what is `meant`.
pub(super) fn proven_before<'a>(revisions: &'a [Revision], meant: &str) -> Option<&'a Revision> {
    let mut newest = revisions.iter().rev();
    newest.find(|revision| revision.is_proven() && revision.wanted != meant)
}

/// Why it is not to be tried again, if that was said.
pub(super) fn refusal(revisions: &[Revision], meant: &str) -> Option<String> {
    let saying: Vec<&Revision> = revisions
        .iter()
        .filter(|revision| revision.refused == meant)
        .collect();
    let problem = saying
        .iter()
        .map(|revision| &revision.problem)
        .find(|problem| !problem.is_empty());
    let unknown = || "its workers did not get ready".to_owned();
    (!saying.is_empty()).then(|| problem.cloned().unwrap_or_else(unknown))
}

/// Says of a revision that its workers were ready.
pub(super) async fn prove(client: &Client, namespace: &str, revision: &Revision) -> Result<(), DeployError> {
    let labels = json!({READY: revision.wanted});
    write(client, namespace, revision, &labels, &Value::Null).await
}

/// Says of what is `meant` that it is not to be tried again, at the revision that is to be in its place: a rollback to that one has the label at
/// once, so that there is no moment in which it is not known.
pub(super) async fn refuse(
    client: &Client,
    namespace: &str,
    instead: &Revision,
    meant: &str,
    problem: &str,
) -> Result<(), DeployError> {
    let problem = &problem[..problem.floor_char_boundary(MAX_PROBLEM)];
    let (labels, annotations) = (json!({REFUSED: meant}), json!({PROBLEM: problem}));
    write(client, namespace, instead, &labels, &annotations).await
}

/// Forgets what was refused, now that something else is meant.
pub(super) async fn forget(
    client: &Client,
    namespace: &str,
    revisions: &mut [Revision],
    meant: &str,
) -> Result<(), DeployError> {
    for revision in revisions {
        if !revision.refused.is_empty() && revision.refused != meant {
            let (labels, annotations) = (json!({REFUSED: null}), json!({PROBLEM: null}));
            write(client, namespace, revision, &labels, &annotations).await?;
            revision.refused.clear();
            revision.problem.clear();
        }
    }
    Ok(())
}

/// Deletes what helm keeps of rollbacks that it did not end, and gives the others.
pub(super) async fn without_vain(
    client: &Client,
    namespace: &str,
    revisions: Vec<Revision>,
) -> Result<Vec<Revision>, DeployError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (vain, others): (Vec<Revision>, _) = revisions.into_iter().partition(Revision::is_in_vain);
    for revision in vain {
        match secrets.delete(&revision.secret, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => (),
            other => drop(other.map_err(of_kube)?),
        }
    }
    Ok(others)
}

async fn write(
    client: &Client,
    namespace: &str,
    revision: &Revision,
    labels: &Value,
    annotations: &Value,
) -> Result<(), DeployError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut metadata = json!({"labels": labels});
    if annotations.is_object() {
        metadata["annotations"] = annotations.clone();
    }
    let patch = Patch::Merge(json!({"metadata": metadata}));
    secrets
        .patch_metadata(&revision.secret, &PatchParams::default(), &patch)
        .await
        .map(drop)
        .map_err(of_kube)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Revisions from 1 on: status, digest, what was ready, what is refused.
    fn revisions(all: &[(&str, &str, &str, &str)]) -> Vec<Revision> {
        let of = |(index, (status, wanted, ready, refused)): (usize, &(&str, &str, &str, &str))| Revision {
            number: u32::try_from(index).unwrap() + 1,
            status: (*status).to_owned(),
            wanted: (*wanted).to_owned(),
            ready: (*ready).to_owned(),
            refused: (*refused).to_owned(),
            ..Revision::default()
        };
        all.iter().enumerate().map(of).collect()
    }

    #[test]
    fn one_goes_back_to_what_is_deployed_and_never_to_what_is_refused() {
        for (all, number) in [
            // The cluster refused an upgrade; helm was killed within one, and before it had said that it was done.
            (&[("deployed", "a", "", ""), ("failed", "b", "", "")][..], Some(1)),
            (
                &[("deployed", "a", "", ""), ("pending-upgrade", "b", "", "")],
                Some(1),
            ),
            (
                &[("superseded", "a", "", ""), ("pending-upgrade", "b", "", "")],
                Some(1),
            ),
            (&[("pending-install", "a", "", "")], None),
            (
                &[("superseded", "a", "a", ""), ("uninstalling", "b", "a", "")],
                None,
            ),
            // What does not get ready: before helm takes it back, when it was killed near the end of that, and after.
            (
                &[("superseded", "a", "a", "b"), ("deployed", "b", "none", "")],
                Some(1),
            ),
            (
                &[("superseded", "a", "a", "b"), ("superseded", "b", "none", "")],
                Some(1),
            ),
            (
                &[
                    ("superseded", "a", "a", "b"),
                    ("superseded", "b", "none", ""),
                    ("deployed", "a", "a", "b"),
                ],
                Some(3),
            ),
            (&[], None),
        ] {
            let all = revisions(all);
            assert_eq!(before(&all).map(|revision| revision.number), number, "{all:?}");
        }
    }

    #[test]
    fn only_what_was_ready_itself_takes_the_place_of_what_fails() {
        let all = revisions(&[
            ("superseded", "a", "a", ""),
            ("superseded", "b", "none", ""),
            // It has the label of another.
            ("superseded", "c", "a", ""),
            ("failed", "c", "c", ""),
            ("deployed", "d", "none", ""),
        ]);
        assert_eq!(proven_before(&all, "d").unwrap().number, 1);
        assert_eq!(proven_before(&all, "a"), None);
        assert_eq!(proven_before(&revisions(&[("deployed", "", "", "")]), "d"), None);
    }

    #[test]
    fn a_rollback_that_helm_did_not_end_is_known() {
        let all = revisions(&[
            ("deployed", "a", "a", ""),
            ("pending-upgrade", "b", "none", ""),
            ("failed", "b", "none", ""),
            ("failed", "a", "a", "b"),
            ("pending-rollback", "a", "none", ""),
        ]);
        let vain: Vec<u32> = all
            .iter()
            .filter(|one| one.is_in_vain())
            .map(|one| one.number)
            .collect();
        assert_eq!(vain, [4, 5]);
    }

    #[test]
    fn a_refusal_is_about_one_thing_alone() {
        let mut all = revisions(&[("superseded", "a", "a", "b"), ("deployed", "a", "a", "b")]);
        assert_eq!(refusal(&all, "c"), None);
        assert_eq!(refusal(&all, "b").unwrap(), "its workers did not get ready");
        all[0].problem = "pod x: ErrImagePull".to_owned();
        assert_eq!(refusal(&all, "b").unwrap(), "pod x: ErrImagePull");
    }
}

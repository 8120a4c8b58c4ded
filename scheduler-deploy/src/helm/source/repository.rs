//! Chart repositories: an index with the URLs of archives.

use std::collections::BTreeMap;

use scheduler_core::port::deploy::DeployError;
use serde::Deserialize;
use url::Url;

use super::client::Fetcher;
use crate::chart::invalid;

/// Bytes of an index: those of large repositories have some.
const MAX_INDEX: usize = 32 << 20;

/// Where a chart of a repository is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) url: Url,
    /// What its archive must have as SHA-256, if the index says.
    pub(super) digest: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    entries: BTreeMap<String, Vec<Entry>>,
}

#[derive(Clone, Deserialize)]
struct Entry {
    version: String,
    #[serde(default)]
    urls: Vec<String>,
    digest: Option<String>,
}

/// Finds a version of a chart; the newest, which an index has first, if none is said.
pub(super) async fn find(
    fetcher: &Fetcher,
    repository: &Url,
    chart: &str,
    version: Option<&str>,
) -> Result<Found, DeployError> {
    let url = repository
        .join("index.yaml")
        .map_err(|error| invalid("chart", format!("{repository}: {error}")))?;
    let bytes = fetcher.get(&url, &[], MAX_INDEX).await?.success(&url)?;
    let (repository, chart) = (repository.clone(), chart.to_owned());
    let version = version.map(str::to_owned);
    tokio::task::spawn_blocking(move || choose(&bytes, &repository, &chart, version.as_deref()))
        .await
        .map_err(|error| DeployError::Unavailable(error.into()))?
}

fn choose(bytes: &[u8], repository: &Url, chart: &str, version: Option<&str>) -> Result<Found, DeployError> {
    let index: Index = serde_norway::from_slice(bytes).map_err(|error| {
        invalid(
            "chart",
            format!("the index of {repository} cannot be read: {error}"),
        )
    })?;
    let entries = index
        .entries
        .get(chart)
        .ok_or_else(|| invalid("chart", format!("{repository} has no chart {chart}")))?;
    let entry = match version {
        None => entries.iter().find(|entry| !entry.version.contains('-')),
        Some(version) => entries.iter().find(|entry| entry.version == version),
    };
    let entry = entry.ok_or_else(|| {
        let wanted = version.unwrap_or("that is released");
        invalid(
            "chart",
            format!("{repository} has no version {wanted} of {chart}"),
        )
    })?;
    let url = entry
        .urls
        .first()
        .ok_or_else(|| invalid("chart", format!("{repository} does not say where {chart} is")))?;
    let url = repository
        .join(url)
        .map_err(|error| invalid("chart", format!("{repository}: {url}: {error}")))?;
    Ok(Found {
        url,
        digest: entry.digest.as_deref().map(|digest| {
            let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
            digest.to_ascii_lowercase()
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "apiVersion: v1
entries:
  ocr:
  - {version: 2.0.0-rc.1, urls: [ocr-2.0.0-rc.1.tgz]}
  - {version: 1.1.0, urls: [ocr-1.1.0.tgz], digest: AA}
  - {version: 1.0.0, urls: ['https://elsewhere.example/ocr-1.0.0.tgz']}
";

    #[test]
    fn the_newest_release_or_the_one_that_is_named_is_chosen() {
        let repository = Url::parse("https://charts.example/all/").unwrap();
        let choose = |chart, version| choose(INDEX.as_bytes(), &repository, chart, version);
        let found = choose("ocr", None).unwrap();
        assert_eq!(found.url.as_str(), "https://charts.example/all/ocr-1.1.0.tgz");
        assert_eq!(found.digest.as_deref(), Some("aa"));
        let found = choose("ocr", Some("1.0.0")).unwrap();
        assert_eq!(found.url.as_str(), "https://elsewhere.example/ocr-1.0.0.tgz");
        for (chart, version, problem) in [
            ("other", None, "no chart other"),
            ("ocr", Some("9.0.0"), "no version 9.0.0"),
        ] {
            let error = choose(chart, version).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }
}

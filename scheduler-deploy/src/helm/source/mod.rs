//! Where charts come from: which references are taken, and what lies behind them.
//!
//! Everything is fetched by this process, never by helm, so that one guard sees every connection: the source must be allowed by the
//! operator, no address of this machine or its network is called unless its host is allowed, redirects are few and guarded like the
//! first request, and what comes is bounded.

mod archive;
mod bundle;
mod client;
mod guard;
mod oci;
mod reference;
mod repository;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use scheduler_core::port::deploy::DeployError;
use url::Url;

pub(crate) use bundle::Bundle;
use client::Fetcher;
use reference::{Origin, Reference};

use crate::chart::{invalid, is_allowed};

/// Which charts are taken, and how much of them.
#[derive(Clone, Debug)]
pub struct SourceRules {
    /// Beginnings of the URLs that are taken, as `https://github.com/acme/` or `oci://registry.example/charts/`. Default none.
    pub allowed: Vec<String>,
    /// Hosts, as `host` or `host:port`, that may have addresses which are not public, and that may be called over plain HTTP. Default none.
    pub private_hosts: Vec<String>,
    /// Directories of this machine below which charts may lie. Default none.
    pub directories: Vec<PathBuf>,
    /// Repositories of charts by name, for `name/chart`. Default none. They are allowed.
    pub repositories: BTreeMap<String, String>,
    /// Where the archives are of what a GitHub shows at a URL. Default `https://github.com` at `https://codeload.github.com`.
    pub github: BTreeMap<String, String>,
    /// Bytes of an archive. Default 16 MiB.
    pub max_archive_bytes: usize,
    /// Bytes of a chart, unpacked. Default 8 MiB.
    pub max_chart_bytes: usize,
    /// Files of a chart. Default 1000.
    pub max_files: usize,
    /// How long all requests for one chart may take. Default 30 s.
    pub timeout: Duration,
}

impl Default for SourceRules {
    fn default() -> Self {
        let github = ("https://github.com", "https://codeload.github.com");
        Self {
            allowed: Vec::new(),
            private_hosts: Vec::new(),
            directories: Vec::new(),
            repositories: BTreeMap::new(),
            github: BTreeMap::from([(github.0.to_owned(), github.1.to_owned())]),
            max_archive_bytes: 16 << 20,
            max_chart_bytes: 8 << 20,
            max_files: 1000,
            timeout: Duration::from_secs(30),
        }
    }
}

/// Brings charts here.
#[derive(Debug)]
pub(crate) struct Sources {
    rules: SourceRules,
    fetcher: Fetcher,
}

impl Sources {
    pub(crate) fn new(rules: SourceRules) -> Self {
        let fetcher = Fetcher::new(&rules.private_hosts);
        Self { rules, fetcher }
    }

    /// The files of the chart that is meant. [`DeployError::Invalid`] names the rule that it breaks.
    pub(crate) async fn fetch(&self, chart: &str) -> Result<Bundle, DeployError> {
        let reference = Reference::parse(chart, &self.rules)?;
        let fetching = self.bundle(&reference.origin);
        let (bundle, archive) = tokio::time::timeout(self.rules.timeout, fetching)
            .await
            .map_err(|_| {
                let seconds = self.rules.timeout.as_secs();
                DeployError::Unavailable(format!("the chart did not come within {seconds} s").into())
            })??;
        if let Some(pinned) = &reference.digest {
            let content = bundle.digest();
            if *pinned != content && archive.as_ref() != Some(pinned) {
                let is = archive.map_or(content.clone(), |archive| {
                    format!("{archive} (its files: {content})")
                });
                return Err(invalid(
                    "chart",
                    format!("is pinned to sha256:{pinned}, and is sha256:{is}"),
                ));
            }
        }
        Ok(bundle)
    }

    /// The files, and the digest of the archive that they came in.
    async fn bundle(&self, origin: &Origin) -> Result<(Bundle, Option<String>), DeployError> {
        match origin {
            Origin::Directory(path) => {
                let (path, rules) = (path.clone(), self.rules.clone());
                let read = move || {
                    let refused = || {
                        let problem = format!("there is no chart directory {}", path.display());
                        invalid("chart", problem)
                    };
                    let path = path.canonicalize().map_err(|_| refused())?;
                    // One elsewhere is answered like one that does not exist: who asks need not learn the difference.
                    if rules.directories.is_empty() || !is_allowed(&path, &rules.directories) {
                        return Err(refused());
                    }
                    Bundle::of_directory(&path, &rules)
                };
                let read = tokio::task::spawn_blocking(read).await;
                let bundle = read.map_err(|error| DeployError::Unavailable(error.into()))?;
                Ok((bundle?, None))
            }
            Origin::Archive { url, folder } => self.archive(url, folder.as_deref()).await,
            Origin::Oci(image) => {
                let layer = oci::pull(&self.fetcher, image, self.rules.max_archive_bytes).await?;
                self.unpack(layer.into(), None).await
            }
            Origin::Repository {
                index,
                chart,
                version,
            } => {
                let found = repository::find(&self.fetcher, index, chart, version.as_deref()).await?;
                self.rules.check(&found.url)?;
                let (bundle, archive) = self.archive(&found.url, None).await?;
                if let (Some(said), Some(is)) = (&found.digest, &archive)
                    && said != is
                {
                    let problem = format!("the repository says sha256:{said} of it, and it is sha256:{is}");
                    return Err(invalid("chart", problem));
                }
                Ok((bundle, archive))
            }
        }
    }

    async fn archive(
        &self,
        url: &Url,
        folder: Option<&str>,
    ) -> Result<(Bundle, Option<String>), DeployError> {
        let bytes = self
            .fetcher
            .get(url, &[], self.rules.max_archive_bytes)
            .await?
            .success(url)?;
        self.unpack(bytes, folder.map(str::to_owned)).await
    }

    async fn unpack(
        &self,
        bytes: bytes::Bytes,
        folder: Option<String>,
    ) -> Result<(Bundle, Option<String>), DeployError> {
        let rules = self.rules.clone();
        let unpack = move || {
            let digest = bundle::sha256(&bytes);
            archive::unpack(&bytes, folder.as_deref(), &rules).map(|bundle| (bundle, Some(digest)))
        };
        tokio::task::spawn_blocking(unpack)
            .await
            .map_err(|error| DeployError::Unavailable(error.into()))?
    }
}

impl SourceRules {
    /// Whether a URL begins as one of those that are allowed.
    fn check(&self, url: &Url) -> Result<(), DeployError> {
        let is_in = |beginning: &str| {
            Url::parse(beginning).is_ok_and(|allowed| {
                // `https://host/charts` does not allow `https://host/charts-of-others`.
                let path = allowed.path().trim_end_matches('/');
                allowed.scheme() == url.scheme()
                    && allowed.host_str() == url.host_str()
                    && allowed.port_or_known_default() == url.port_or_known_default()
                    && url
                        .path()
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let mut beginnings = self.allowed.iter().chain(self.repositories.values());
        if beginnings.any(|beginning| is_in(beginning)) {
            Ok(())
        } else {
            let problem =
                format!("{url} is no source that the operator of this server allows (--chart-source)");
            Err(invalid("chart", problem))
        }
    }
}

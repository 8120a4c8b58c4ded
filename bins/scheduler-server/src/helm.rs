//! How charts are deployed into a Kubernetes cluster.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use scheduler_deploy::helm::{ApplicationSettings, ChartPolicy, HelmConfig, SourceRules};

use crate::cluster::Property;
use crate::config::Arguments;

/// Charts by the helm CLI. Only with `--deployer helm`.
#[derive(Clone, Debug, Args)]
pub struct HelmArguments {
    /// The helm CLI, 3.14 or newer.
    #[arg(
        long = "helm",
        env = "SCHEDULER_HELM",
        value_name = "PROGRAM",
        default_value = "helm"
    )]
    pub program: PathBuf,

    /// The cluster, and who this server is there. Default: what `KUBECONFIG` or the pod says.
    #[arg(long, env = "SCHEDULER_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Where workers find the scheduler over gRPC from within the cluster, as `http://host:port`. Default: what `--advertise` says.
    #[arg(long, env = "SCHEDULER_WORKER_URL", value_name = "URL")]
    pub worker_url: Option<String>,

    /// How the URLs of charts that are taken begin, as `https://github.com/acme/`; may be given several times. Default: none is taken.
    #[arg(
        long = "chart-source",
        env = "SCHEDULER_CHART_SOURCES",
        value_name = "URL",
        value_delimiter = ','
    )]
    pub chart_sources: Vec<String>,

    /// A host, as `host` or `host:port`, whose charts are fetched though its address is not public, and over plain HTTP; may be given
    /// several times.
    #[arg(
        long = "chart-private-host",
        env = "SCHEDULER_CHART_PRIVATE_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub chart_private_hosts: Vec<String>,

    /// A repository of charts, for `NAME/chart@version`; may be given several times.
    #[arg(
        long = "chart-repository",
        env = "SCHEDULER_CHART_REPOSITORIES",
        value_name = "NAME=URL",
        value_delimiter = ','
    )]
    pub chart_repositories: Vec<Property>,

    /// Where the archives are of what a GitHub shows at a URL, in the place of github.com's own; may be given several times.
    #[arg(
        long = "chart-github",
        env = "SCHEDULER_CHART_GITHUBS",
        value_name = "PAGES=ARCHIVES",
        value_delimiter = ','
    )]
    pub chart_githubs: Vec<Property>,

    /// A further kind that charts may have, as `batch/Job`; may be given several times. The account needs a rule for it, see
    /// `--application-settings`.
    #[arg(
        long = "chart-kind",
        env = "SCHEDULER_CHART_KINDS",
        value_name = "KIND",
        value_delimiter = ','
    )]
    pub chart_kinds: Vec<String>,

    /// Whether charts may have hooks.
    #[arg(long, env = "SCHEDULER_CHART_HOOKS")]
    pub chart_hooks: bool,

    /// Whether pods of charts may reach into their node: privileged, host network, host paths and the like.
    #[arg(long, env = "SCHEDULER_CHART_PRIVILEGED")]
    pub chart_privileged: bool,

    /// A YAML file with what the namespace of an application has: quota, limits, network policy; see docs/helm.md.
    #[arg(long, env = "SCHEDULER_APPLICATION_SETTINGS", value_name = "FILE")]
    pub application_settings: Option<PathBuf>,

    /// Seconds that helm may take to change a release.
    #[arg(long, env = "SCHEDULER_HELM_TIMEOUT_SECONDS", default_value_t = 120)]
    pub helm_timeout_seconds: u64,
}

impl Arguments {
    /// How the deployer is set up, where the server is advertised as told.
    ///
    /// # Errors
    ///
    /// The settings of applications cannot be read.
    pub fn helm(&self, advertise: &str) -> anyhow::Result<HelmConfig> {
        let helm = &self.helm;
        let pairs = |properties: &[Property]| -> BTreeMap<String, String> {
            let pairs = properties.iter();
            pairs
                .map(|property| (property.name.clone(), property.value.clone()))
                .collect()
        };
        let application = match &helm.application_settings {
            None => ApplicationSettings::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("--application-settings {}", path.display()))?;
                ApplicationSettings::from_yaml(&text).map_err(|problem| {
                    anyhow::anyhow!("--application-settings {}: {problem}", path.display())
                })?
            }
        };
        let rules = SourceRules::default();
        let mut github = rules.github.clone();
        github.extend(pairs(&helm.chart_githubs));
        let keys = self.api_keys.iter();
        Ok(HelmConfig {
            program: helm.program.clone(),
            kubeconfig: helm.kubeconfig.clone(),
            api_keys: keys.map(|key| (key.client.clone(), key.key.clone())).collect(),
            sources: SourceRules {
                allowed: helm.chart_sources.clone(),
                private_hosts: helm.chart_private_hosts.clone(),
                directories: self.chart_roots.clone(),
                repositories: pairs(&helm.chart_repositories),
                github,
                ..rules
            },
            policy: ChartPolicy {
                kinds: helm.chart_kinds.clone(),
                hooks: helm.chart_hooks,
                privileged: helm.chart_privileged,
                ..ChartPolicy::default()
            },
            application,
            helm_timeout: Duration::from_secs(helm.helm_timeout_seconds),
            ..HelmConfig::new(
                self.data.join("charts"),
                helm.worker_url.as_deref().unwrap_or(advertise),
            )
        })
    }
}

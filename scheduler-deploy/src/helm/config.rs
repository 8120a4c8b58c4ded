//! What the deployer by helm can be told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use scheduler_core::name::Name;

use super::application::ApplicationSettings;
use super::policy::ChartPolicy;
use super::source::SourceRules;

/// Where things are, what charts may do, and how long things may take.
#[derive(Clone, Debug)]
pub struct HelmConfig {
    /// A directory of this deployer alone: charts while they are looked at, and what helm writes.
    pub directory: PathBuf,
    /// Where workers find the scheduler's gRPC endpoint, `http://host:port`, from within the cluster.
    pub scheduler_url: String,
    /// The helm CLI, 3.14 or newer or 4. Default `helm`, in `PATH`.
    pub program: PathBuf,
    /// The cluster, and who this server is there. Default: what `KUBECONFIG` or the pod says.
    pub kubeconfig: Option<PathBuf>,
    /// The API key that the workers of a client get, where the node wants keys. Default none.
    pub api_keys: BTreeMap<Name, String>,
    /// Which charts are taken.
    pub sources: SourceRules,
    /// What they may create.
    pub policy: ChartPolicy,
    /// What the namespace of an application has.
    pub application: ApplicationSettings,
    /// Workers of one pipeline, at most, whatever its bounds say. Default 64.
    pub max_workers: u32,
    /// How long rendering a chart may take. Default 20 s.
    pub render_timeout: Duration,
    /// Address space that rendering a chart may take, in bytes. Default 2 GiB, of which helm itself reserves more than half and uses little.
    pub render_memory: u64,
    /// How long helm may take to change a release. Default 2 minutes.
    pub helm_timeout: Duration,
    /// How long pods may take to end when their pipeline is deleted. Default 2 minutes.
    pub drain_patience: Duration,
}

impl HelmConfig {
    /// With the defaults.
    pub fn new(directory: impl Into<PathBuf>, scheduler_url: impl Into<String>) -> Self {
        Self {
            directory: directory.into(),
            scheduler_url: scheduler_url.into(),
            program: "helm".into(),
            kubeconfig: None,
            api_keys: BTreeMap::new(),
            sources: SourceRules::default(),
            policy: ChartPolicy::default(),
            application: ApplicationSettings::default(),
            max_workers: 64,
            render_timeout: Duration::from_secs(20),
            render_memory: 2 << 30,
            helm_timeout: Duration::from_mins(2),
            drain_patience: Duration::from_mins(2),
        }
    }
}

//! Workers as pods: charts deployed into a Kubernetes cluster by the helm CLI.
//!
//! Charts are written by others than those who run the cluster, so a chart is never given to helm as it came:
//!
//! 1. It is fetched by this process, from a source that the operator allows ([`SourceRules`]), into a copy of its own.
//! 2. `helm template` renders the copy where it sees no cluster, bounded in time, memory and output.
//! 3. Every object is checked ([`ChartPolicy`]): its kind, its namespace, what its pods reach for.
//! 4. What was checked is written again, with the labels by which we find it and the workers' environment, as a chart without templates.
//!    That is what `helm upgrade --install` gets: it has nothing left to render, so what is applied is what was checked.
//! 5. Helm acts as the service account of the application, which may do nothing outside of the application's namespace.
//!
//! A deployment goes on in the background. Whatever step the server dies in, the next one sees what helm had begun, takes it back and
//! begins again; what is deployed as it is wanted is left alone, and its chart is not even fetched.
//!
//! What is deployed is on trial until its workers have been ready. An upgrade that Kubernetes gives up is taken back, if the workers of a release before
//! it were ready, and not tried again until something else is wanted.
//!
//! | label | of | value |
//! | --- | --- | --- |
//! | `workload-scheduler/pipeline-id` | every object, pod and release of a pipeline | `p` and the pipeline's number |
//! | `workload-scheduler/wanted` | a release | a digest of what was wanted |
//! | `workload-scheduler/ready` | a release | the digest of what workers were ready of |
//! | `workload-scheduler/refused` | a release | the digest of what did not get ready and is not tried again; why is in the annotation `workload-scheduler/problem` |
//! | `workload-scheduler/worker` | deployments whose pods are workers | `true`, or `autoscaled` if something of the chart says how many |

mod application;
mod cli;
mod cluster;
mod config;
mod deployer;
mod kubeconfig;
mod manifest;
mod policy;
mod prepare;
mod release;
mod render;
mod revision;
mod rollout;
mod source;
mod spare;
mod trial;

pub use application::ApplicationSettings;
pub use config::HelmConfig;
pub use deployer::HelmDeployer;
pub use policy::ChartPolicy;
pub use source::SourceRules;

//! A client for tasks and administration.
//!
//! - [`Client`] is cheap to clone and shares one HTTP/2 connection, which comes back by itself after a loss.
//! - [`Client::submitter`] keeps many batches under way, for those who submit much.
//! - Requests are not repeated by the client: whether a submission that failed may be sent again is the caller's to say, and
//!   [`NewTask::idempotency_key`] is how to make it safe. [`ClientError::retry_after`] says when.
//!
//! The messages are the wire types of [`scheduler_proto::api`]; times in them are milliseconds since the Unix epoch.
//!
//! ```no_run
//! use scheduler_grpc::client::{Client, ClientConfig, NewTask, PipelineRef};
//!
//! # async fn run() -> Result<(), scheduler_grpc::client::ClientError> {
//! let config = ClientConfig { api_key: Some("secret".into()), ..ClientConfig::default() };
//! let client = Client::connect("http://127.0.0.1:50050", config).await?;
//! let thumbnails = PipelineRef { application: "shop".into(), pipeline: "thumbnails".into() };
//!
//! let mut submitter = client.submitter(&thumbnails).await?;
//! let mut receipts = Vec::new();
//! for batch in 0..100 {
//!     let tasks = (0..1000).map(|n| NewTask::json(format!(r#"{{"picture": {}}}"#, batch * 1000 + n))).collect();
//!     receipts.push(submitter.send(tasks).await?); // waits while too many batches are under way
//! }
//! for receipt in receipts {
//!     let ids = receipt.ids().await?; // the tasks are durable
//!     assert_eq!(ids.len(), 1000);
//! }
//! # Ok(())
//! # }
//! ```

mod admin;
mod error;
mod submitter;
mod task;

use std::time::Duration;

use scheduler_proto::api::admin_service_client::AdminServiceClient;
use scheduler_proto::api::task_service_client::TaskServiceClient;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

pub use error::ClientError;
pub use scheduler_proto::api::{
    Application, Counts, CreatePipelineRequest, ListTasksResponse, Pipeline, PipelineRef, Policy, Rollout,
    Task, TaskState, UpdatePipelineRequest,
};
pub use submitter::{Receipt, Submitter};
pub use task::{DeadLetters, NewTask, TaskEvents, TaskQuery, is_final};

/// How a client connects and how long it waits.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Sent with every request. Default none.
    pub api_key: Option<String>,
    /// Longest time for the connection to come up. Default 5 s.
    pub connect_timeout: Duration,
    /// Deadline of every request that does not stream, told to the server; [`Client::wait`] adds its patience. Default 30 s.
    pub deadline: Duration,
    /// Bytes of one answer, at most. Default 64 MiB.
    pub max_message_bytes: usize,
    /// Batches of one [`Submitter`] that are under way at once. Default 16.
    pub submit_in_flight: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            api_key: None,
            connect_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
            max_message_bytes: 64 << 20,
            submit_in_flight: 16,
        }
    }
}

/// A connection to a scheduler. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    bearer: Option<MetadataValue<Ascii>>,
    config: ClientConfig,
}

impl Client {
    /// Connects to the gRPC endpoint of a node, `http://host:port`.
    ///
    /// # Errors
    ///
    /// The address or the key is malformed, or nobody answers in time.
    pub async fn connect(address: impl Into<String>, config: ClientConfig) -> Result<Self, ClientError> {
        let address = address.into();
        let bearer = config
            .api_key
            .as_deref()
            .map(|key| {
                let mut bearer: MetadataValue<Ascii> = format!("Bearer {key}")
                    .parse()
                    .map_err(|_| ClientError::config("api_key: must be printable ASCII"))?;
                bearer.set_sensitive(true);
                Ok::<_, ClientError>(bearer)
            })
            .transpose()?;
        let not_an_address = || {
            let message =
                format!("address: must be http://host:port (the client speaks no TLS), is {address}");
            ClientError::config(message)
        };
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|_| not_an_address())?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(not_an_address());
        }
        let channel = endpoint
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect()
            .await
            .map_err(|cause| ClientError::connect(&address, &cause))?;
        Ok(Self {
            channel,
            bearer,
            config,
        })
    }

    fn tasks(&self) -> TaskServiceClient<Channel> {
        TaskServiceClient::new(self.channel.clone()).max_decoding_message_size(self.config.max_message_bytes)
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel.clone()).max_decoding_message_size(self.config.max_message_bytes)
    }

    /// A request with the client's key and deadline.
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream_request(message);
        request.set_timeout(self.config.deadline);
        request
    }

    /// A request with the client's key and no deadline.
    fn stream_request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }
}

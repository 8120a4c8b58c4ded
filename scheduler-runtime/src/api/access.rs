//! Who is who.

use async_trait::async_trait;
use scheduler_core::port::catalog::ApiKeyHash;
use scheduler_core::port::gateway::{AccessApi, ApiError, Caller};
use sha2::{Digest as _, Sha256};

use super::LocalNode;
use super::error;

/// What is kept of an API key.
pub(crate) fn hash(key: &str) -> ApiKeyHash {
    ApiKeyHash(Sha256::digest(key.as_bytes()).into())
}

#[async_trait]
impl AccessApi for LocalNode {
    async fn authenticate(&self, key: Option<&str>) -> Result<Caller, ApiError> {
        let Some(key) = key else {
            let anonymous = self.inner.config.anonymous.clone();
            return anonymous.map(|client| Caller { client }).ok_or_else(|| {
                ApiError::Unauthenticated(
                    "an API key is needed: send it as `Authorization: Bearer KEY`".into(),
                )
            });
        };
        // Keys are compared by their hashes, so how long it takes says nothing about them.
        let client = self.inner.directory.client_of(hash(key));
        client
            .map(|client| Caller { client })
            .ok_or_else(|| ApiError::Unauthenticated("the API key is not known, or was withdrawn".into()))
    }

    async fn ready(&self) -> Result<(), ApiError> {
        if self.inner.is_stopping() {
            Err(error::unavailable("the node is going down"))
        } else {
            Ok(())
        }
    }
}

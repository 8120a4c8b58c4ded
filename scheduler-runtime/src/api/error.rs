//! What went wrong below, as the caller is told.

use std::time::Duration;

use scheduler_core::port::catalog::CatalogError;
use scheduler_core::port::deploy::DeployError;
use scheduler_core::port::gateway::ApiError;
use scheduler_core::port::log::LogError;
use scheduler_core::port::store::StoreError;

const RETRY_AFTER: Duration = Duration::from_secs(2);

pub(crate) fn unavailable(problem: impl Into<String>) -> ApiError {
    ApiError::Unavailable {
        problem: problem.into(),
        retry_after: RETRY_AFTER,
        source: None,
    }
}

pub(crate) fn of_log(error: LogError) -> ApiError {
    match error {
        LogError::TooLarge { bytes, limit } => ApiError::invalid(
            "params",
            format!("has {bytes} bytes; the log takes at most {limit}"),
        ),
        LogError::Refused { field, problem } => ApiError::Invalid { field, problem },
        LogError::Overloaded => ApiError::Overloaded {
            problem: "too many tasks are waiting to be written".into(),
            retry_after: RETRY_AFTER,
        },
        LogError::NotFound(_) => unavailable("the pipeline's log is not there yet, or no longer"),
        error @ LogError::Unavailable(_) => ApiError::Unavailable {
            problem: "the task log is away".into(),
            retry_after: RETRY_AFTER,
            source: Some(error.into()),
        },
        error => ApiError::Internal(error.into()),
    }
}

pub(crate) fn of_store(error: StoreError) -> ApiError {
    match error {
        error @ StoreError::Unavailable(_) => ApiError::Unavailable {
            problem: "the store is away".into(),
            retry_after: RETRY_AFTER,
            source: Some(error.into()),
        },
        error => ApiError::Internal(error.into()),
    }
}

pub(crate) fn of_catalog(error: CatalogError) -> ApiError {
    match error {
        CatalogError::NotFound { kind, name } => ApiError::NotFound { kind, name },
        CatalogError::Store(error) => of_store(error),
        error => ApiError::Conflict(error.to_string()),
    }
}

pub(crate) fn of_deploy(error: DeployError) -> ApiError {
    match error {
        DeployError::Invalid { field, problem } => ApiError::Invalid { field, problem },
        error => ApiError::Unavailable {
            problem: "the deployer is away".into(),
            retry_after: RETRY_AFTER,
            source: Some(error.into()),
        },
    }
}

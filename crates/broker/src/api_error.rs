//! An error as an answer carries it: Kafka's code and, where the answer has room, a sentence.

use milena_log::LogError;
use milena_protocol::{ErrorCode, Str};
use milena_state::StateError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    /// `None`: the code says it all.
    pub(crate) message: Option<String>,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: Some(message.into()),
        }
    }

    pub(crate) fn bare(code: ErrorCode) -> Self {
        Self { code, message: None }
    }

    pub(crate) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    pub(crate) fn wire_message(&self) -> Option<Str> {
        self.message.clone().map(Str::from)
    }
}

impl From<StateError> for ApiError {
    /// The client may try again: the broker acquires the shard anew before its next change.
    fn from(error: StateError) -> Self {
        let code = match error {
            StateError::Fenced { .. } => ErrorCode::NotController,
            StateError::Unavailable(_) => ErrorCode::KafkaStorageError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

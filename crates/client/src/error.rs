//! What can go wrong between a client and a broker.

use milena_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no broker address in '{0}': write host:port, several with commas between")]
    Address(String),
    #[error("cannot connect to {address}: {error}")]
    Connect { address: String, error: std::io::Error },
    #[error("the connection to {address} failed: {error}")]
    Connection { address: String, error: std::io::Error },
    #[error("{address} did not answer within {seconds} s")]
    Timeout { address: String, seconds: u64 },
    #[error("the broker does not support {0}")]
    UnsupportedApi(ApiKey),
    #[error("the answer cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the request cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("broker {0} is not in the cluster's metadata")]
    UnknownBroker(i32),
    /// The broker's own error, with its message if it sent one.
    #[error("{}", .1.as_deref().unwrap_or_else(|| .0.name()))]
    Broker(ErrorCode, Option<String>),
    #[error("the answer has correlation id {found}, {expected} was asked")]
    Correlation { expected: i32, found: i32 },
}

impl ClientError {
    /// Whether the connection is of no more use.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        matches!(
            self,
            Self::Connection { .. } | Self::Timeout { .. } | Self::Correlation { .. } | Self::Decode(_)
        )
    }
}

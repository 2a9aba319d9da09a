//! Kafka 4.3.1's wire format: every message that a client may send to a broker, in every version,
//! generated at build time from the definitions in `schema/`; frames; error codes; and record
//! batches ([`records`]).
//!
//! Promises: decoding allocates nothing for a count or length before the bytes it announces are
//! there; string and byte fields are slices of the received buffer; encoded byte fields that are
//! large (records) are passed on by reference. There is no I/O and no clock here.
//!
//! The format: <https://kafka.apache.org/protocol.html>, KIP-482 (flexible versions), KIP-511
//! (ApiVersions).

mod chunk;
pub mod frame;
pub mod message;
pub mod records;
mod text;
mod uuid;

#[cfg(feature = "testing")]
pub mod testing;

pub use chunk::{Chunk, FileRange};
pub use message::{DecodeError, EncodeError, Message, Reader, Request, TaggedFields, Writer};
pub use text::Str;
pub use uuid::{ParseUuidError, Uuid};

/// Requests, responses and headers: one module per message, its top struct re-exported here.
#[allow(unused_imports, unused_parens, unused_mut, unused_variables, clippy::all)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}

/// The formats in which Kafka stores its own facts, by the same generator.
#[allow(unused_imports, unused_parens, unused_mut, unused_variables, clippy::all)]
pub mod stored {
    include!(concat!(env!("OUT_DIR"), "/stored.rs"));
}

mod api {
    use crate::message::Request;
    include!(concat!(env!("OUT_DIR"), "/api_key.rs"));
}

mod errors {
    include!(concat!(env!("OUT_DIR"), "/error_code.rs"));

    impl ErrorCode {
        /// The number on the wire.
        #[must_use]
        pub const fn code(self) -> i16 {
            self as i16
        }
    }

    impl std::fmt::Display for ErrorCode {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.name())
        }
    }
}

pub use api::ApiKey;
pub use errors::ErrorCode;

impl ApiKey {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

//! One connection to one broker.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use milena_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use milena_protocol::{ApiKey, ErrorCode, Message, Reader, Request, Str, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ClientError;

/// An answer larger than this is refused: nothing that tools ask for comes near it.
const MOST_ANSWER_BYTES: usize = 1 << 30;
/// Read at a time, so that a length alone reserves little.
const READ_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone)]
pub struct Options {
    pub client_id: Str,
    /// How long one request may take.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_id: Str::from("milena-client"),
            timeout: Duration::from_secs(60),
        }
    }
}

/// One connection; one request at a time.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: TcpStream,
    client_id: Str,
    timeout: Duration,
    correlation_id: i32,
    versions: Vec<(i16, i16, i16)>,
}

impl Connection {
    /// Connects and asks for the broker's versions (KIP-511; older ones by KIP-35).
    ///
    /// # Errors
    /// When there is no broker at the address.
    pub async fn open(address: &str, options: &Options) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Connect {
            address: address.to_owned(),
            error,
        };
        let connecting = tokio::time::timeout(options.timeout, TcpStream::connect(address));
        let stream = connecting
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Self {
            address: address.to_owned(),
            stream,
            client_id: options.client_id.clone(),
            timeout: options.timeout,
            correlation_id: 0,
            versions: Vec::new(),
        };
        connection.negotiate().await?;
        Ok(connection)
    }

    async fn negotiate(&mut self) -> Result<(), ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: Str::from("milena"),
            client_software_version: Str::from(env!("CARGO_PKG_VERSION")),
            ..ApiVersionsRequest::default()
        };
        let newest = *ApiKey::ApiVersions.stable_versions().end();
        let mut response: ApiVersionsResponse = self.ask_versions(&request, newest).await?;
        if response.error_code == ErrorCode::UnsupportedVersion.code() {
            response = self.ask_versions(&ApiVersionsRequest::default(), 0).await?;
        }
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => {}
            code => return Err(ClientError::Broker(code, None)),
        }
        self.versions = response
            .api_keys
            .iter()
            .map(|api| (api.api_key, api.min_version, api.max_version))
            .collect();
        Ok(())
    }

    /// A broker that does not know the version answers in version 0.
    async fn ask_versions(
        &mut self,
        request: &ApiVersionsRequest,
        version: i16,
    ) -> Result<ApiVersionsResponse, ClientError> {
        let mut body = self.exchange(request, version).await?;
        match ApiVersionsResponse::decode(&mut body.clone(), version) {
            Ok(response) => Ok(response),
            Err(_) => Ok(ApiVersionsResponse::decode(&mut body, 0)?),
        }
    }

    /// API key, lowest and highest version of everything that the broker advertised.
    #[must_use]
    pub fn versions(&self) -> &[(i16, i16, i16)] {
        &self.versions
    }

    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The highest version that both sides know.
    ///
    /// # Errors
    /// When there is none.
    pub fn version_for<R: Request>(&self) -> Result<i16, ClientError> {
        let ours = R::KEY.stable_versions();
        let theirs = self.versions.iter().find(|(key, _, _)| *key == R::KEY.code());
        theirs
            .map(|(_, min, max)| (*min, (*max).min(*ours.end())))
            .filter(|(min, max)| max >= min && max >= ours.start())
            .map(|(_, max)| max)
            .ok_or(ClientError::UnsupportedApi(R::KEY))
    }

    /// # Errors
    /// When the broker does not know the API, or the connection fails.
    pub async fn send<R: Request>(&mut self, request: R) -> Result<R::Response, ClientError> {
        let version = self.version_for::<R>()?;
        self.send_version(&request, version).await
    }

    /// Sends in this version, whatever the broker advertised.
    ///
    /// # Errors
    /// When the request cannot be said in it, or the connection fails.
    pub async fn send_version<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        let mut body = self.exchange(request, version).await?;
        Ok(R::Response::decode(&mut body, version)?)
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<Reader, ClientError> {
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let expected = self.correlation_id;
        let chunks = frame::encode_request(request, version, expected, Some(self.client_id.clone()))?;
        let seconds = self.timeout.as_secs();
        let answer = tokio::time::timeout(self.timeout, self.exchange_frames(&chunks)).await;
        let answer = answer
            .map_err(|_| ClientError::Timeout {
                address: self.address.clone(),
                seconds,
            })?
            .map_err(|error| ClientError::Connection {
                address: self.address.clone(),
                error,
            })?;
        let mut reader = Reader::new(answer);
        let found = frame::decode_response_header(&mut reader, R::KEY, version)?.correlation_id;
        if found == expected {
            Ok(reader)
        } else {
            Err(ClientError::Correlation { expected, found })
        }
    }

    async fn exchange_frames(&mut self, chunks: &[Bytes]) -> io::Result<Bytes> {
        // In one piece, as clients do: the broker would wake for each of several.
        let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        let mut left = slices.as_mut_slice();
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.stream.write_vectored(left).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => IoSlice::advance_slices(&mut left, written),
            }
        }
        self.receive_frame().await
    }

    /// Sends bytes as they are: for tests of what brokers do with wrong ones.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Waits for one frame, without its length.
    ///
    /// # Errors
    /// When the connection ends first, or the frame is larger than a gigabyte.
    pub async fn receive_frame(&mut self) -> io::Result<Bytes> {
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MOST_ANSWER_BYTES)
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes"))
            })?;
        let mut frame = BytesMut::with_capacity(length.min(READ_BYTES));
        while frame.len() < length {
            let left = (length - frame.len()) as u64;
            if (&mut self.stream).take(left).read_buf(&mut frame).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(frame.freeze())
    }
}

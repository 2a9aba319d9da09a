//! One connection: one task that reads frames, has them handled in order, and writes the answers in
//! order.
//!
//! Promises:
//! - a silent connection holds no buffer;
//! - requests are handled one after the other; answers that have to wait ([`Reply::Later`]) let up
//!   to [`MAX_IN_FLIGHT_REQUESTS`] follow;
//! - a large request waits for memory before it is read ([`super::memory`]), and a peer that is slow to
//!   send what it got memory for is given up when others wait for that;
//! - a peer that does not read what it asked for stops being read: beyond
//!   [`MAX_QUEUED_RESPONSE_BYTES`] nothing more is handled;
//! - a handler, once called, runs to its end: no change of state is left half done because a
//!   client went away.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use milena_protocol::{Chunk, FileRange};
use rustix::fs::sendfile;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::Shared;
use super::framing;
use super::memory::{Asked, FREE_BYTES, Grant};
use crate::context::ConnectionInfo;
use crate::dispatch::{Reply, dispatch};

/// Requests of one connection that may be handled and not yet answered.
const MAX_IN_FLIGHT_REQUESTS: usize = 64;
/// Bytes of finished answers beyond which no further request of the connection is handled.
const MAX_QUEUED_RESPONSE_BYTES: usize = 256 * 1024;
/// Pieces given to one vectored write.
const MAX_PIECES_PER_WRITE: usize = 64;
/// Who holds memory that others wait for sends at least [`FREE_BYTES`] in this time.
const SLOWEST_PIECE: Duration = Duration::from_secs(10);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The peer closed it, or the broker stops.
    Quiet,
    Idle,
    Failed(io::Error),
    /// The peer broke the protocol.
    Refused(String),
}

pub(super) struct Connection {
    stream: TcpStream,
    info: Arc<ConnectionInfo>,
    shared: Arc<Shared>,
    buffer: BytesMut,
    /// The size of the last frame.
    frame_bytes: usize,
    memory: Memory,
    /// Answers not yet given to `output`, in the order of their requests.
    pending: VecDeque<Reply>,
    output: VecDeque<Chunk>,
    output_bytes: usize,
    /// Nothing more is read: the broker stops, or the peer broke the protocol.
    draining: bool,
    last_activity: Instant,
}

/// The memory for the frame that is arriving.
enum Memory {
    /// The frame is small, or there is none.
    NotNeeded,
    Asked(Asked),
    Granted {
        _grant: Grant,
        /// Bytes of the frame that had arrived when it was last looked at.
        arrived: usize,
    },
}

/// What the connection waited for.
enum Event {
    Stopping,
    Granted(Grant),
    Answered,
    Ready(io::Result<()>),
    /// The client has waited as long as its quota asks.
    Unmuted,
    Tick,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, info: Arc<ConnectionInfo>, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            info,
            shared,
            buffer: BytesMut::new(),
            frame_bytes: 0,
            memory: Memory::NotNeeded,
            pending: VecDeque::new(),
            output: VecDeque::new(),
            output_bytes: 0,
            draining: false,
            last_activity: Instant::now(),
        }
    }

    pub(super) fn info(&self) -> Arc<ConnectionInfo> {
        Arc::clone(&self.info)
    }

    /// Serves the connection until it ends.
    pub(super) async fn run(mut self) -> End {
        let stopped = self.shared.broker.stop.stopped();
        tokio::pin!(stopped);
        let idle = tokio::time::sleep(self.shared.limits.max_idle);
        tokio::pin!(idle);
        loop {
            self.handle_buffered().await;
            if let Err(end) = self.flush() {
                return end;
            }
            if self.draining && self.pending.is_empty() && self.output.is_empty() {
                return End::Quiet;
            }
            if self.may_handle() && framing::has_frame(&self.buffer) {
                continue;
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            self.ask_for_memory();
            match self.next_event(stopped.as_mut(), idle.as_mut()).await {
                Event::Stopping => self.draining = true,
                Event::Granted(grant) => {
                    self.memory = Memory::Granted {
                        _grant: grant,
                        arrived: self.buffer.len(),
                    };
                    idle.as_mut().reset(Instant::now() + SLOWEST_PIECE);
                }
                // What there is to do then is done with whatever comes.
                Event::Answered | Event::Unmuted => {}
                Event::Ready(Err(error)) => return End::Failed(error),
                Event::Ready(Ok(())) => {
                    if let Err(end) = self.read() {
                        return end;
                    }
                }
                Event::Tick => {
                    if self.is_idle() {
                        return End::Idle;
                    }
                    if self.keeps_memory_from_others() {
                        return End::Refused(format!(
                            "it is slow to send a request of {} bytes, whose memory others wait for \
                             (queued.max.request.bytes)",
                            framing::frame_bytes(&self.buffer).unwrap_or(0)
                        ));
                    }
                    let max_idle = self.shared.limits.max_idle;
                    let now = Instant::now();
                    let next = match self.memory {
                        Memory::Granted { .. } => now + max_idle.min(SLOWEST_PIECE),
                        _ if self.last_activity + max_idle > now => self.last_activity + max_idle,
                        _ => now + max_idle,
                    };
                    idle.as_mut().reset(next);
                }
            }
        }
    }

    async fn next_event(
        &mut self,
        stopped: Pin<&mut impl Future<Output = ()>>,
        idle: Pin<&mut Sleep>,
    ) -> Event {
        let interest = match (self.may_read(), !self.output.is_empty()) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let head = self.pending.front_mut();
        let memory = &mut self.memory;
        let stream = &self.stream;
        let draining = self.draining;
        let muted_until = self.info.mute.until();
        tokio::select! {
            () = stopped, if !draining => Event::Stopping,
            grant = async {
                match memory {
                    Memory::Asked(asked) => asked.await,
                    _ => std::future::pending().await,
                }
            } => Event::Granted(grant),
            () = async {
                match head {
                    Some(head @ Reply::Later(_)) => poll_fn(|task| head.settle(task)).await,
                    _ => std::future::pending().await,
                }
            } => Event::Answered,
            ready = async {
                match interest {
                    Some(interest) => stream.ready(interest).await,
                    None => std::future::pending().await,
                }
            } => Event::Ready(ready.map(|_| ())),
            () = async {
                match muted_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            } => Event::Unmuted,
            () = idle => Event::Tick,
        }
    }

    /// Waiting for an answer is no idleness; not taking one is.
    fn is_idle(&self) -> bool {
        let silent = self.last_activity.elapsed() >= self.shared.limits.max_idle;
        silent && self.info.mute.until().is_none() && (self.pending.is_empty() || !self.output.is_empty())
    }

    fn may_handle(&self) -> bool {
        !self.draining
            && self.info.mute.until().is_none()
            && self.pending.len() < MAX_IN_FLIGHT_REQUESTS
            && self.output_bytes < MAX_QUEUED_RESPONSE_BYTES
    }

    /// Reading on while nothing may be handled would only fill the buffer.
    fn may_read(&self) -> bool {
        self.may_handle() && !matches!(self.memory, Memory::Asked(_))
    }

    /// A large frame whose beginning is there is read on when there is memory for all of it.
    fn ask_for_memory(&mut self) {
        let is_large = matches!(self.memory, Memory::NotNeeded) && self.buffer.len() >= FREE_BYTES;
        if is_large && let Some(bytes) = framing::frame_bytes(&self.buffer) {
            self.memory = Memory::Asked(self.shared.request_memory.ask(bytes));
        }
    }

    /// Whether others wait for memory that this peer was given long ago and makes little use of.
    fn keeps_memory_from_others(&mut self) -> bool {
        let Memory::Granted { arrived, .. } = &mut self.memory else {
            return false;
        };
        let before = std::mem::replace(arrived, self.buffer.len());
        *arrived < before + FREE_BYTES && self.shared.request_memory.is_short()
    }

    /// Handles the frames that have arrived whole, as many as may be in flight.
    async fn handle_buffered(&mut self) {
        while self.may_handle() {
            match framing::next_frame(&mut self.buffer, self.shared.limits.max_frame_bytes) {
                Ok(Some(frame)) => {
                    self.frame_bytes = frame.len();
                    let memory = std::mem::replace(&mut self.memory, Memory::NotNeeded);
                    let reply = self.handle(frame).await;
                    drop(memory);
                    self.enqueue(reply);
                }
                Ok(None) => return,
                Err(why) => self.enqueue(Reply::Close(why)),
            }
        }
    }

    async fn handle(&mut self, frame: Bytes) -> Reply {
        // `queued.max.requests`: how many requests the whole broker works on at a time.
        let shared = self.shared.clone();
        let _slot = shared.request_slots.acquire().await;
        let info = self.info.clone();
        let mut handling = pin!(dispatch(&shared.broker, &info, frame));
        let first = poll_fn(|task| Poll::Ready(handling.as_mut().poll(task))).await;
        if let Poll::Ready(reply) = first {
            return reply;
        }
        // What is answered already need not wait for this one. An error shows at the next flush.
        let _ = self.flush();
        handling.await
    }

    fn enqueue(&mut self, reply: Reply) {
        match reply {
            Reply::Nothing => {}
            Reply::Close(why) => {
                self.draining = true;
                self.pending.push_back(Reply::Close(why));
            }
            reply => self.pending.push_back(reply),
        }
        self.promote();
    }

    /// Moves finished answers at the head of the line to the output, as many as may be queued there: they go
    /// out together where one sync has made many requests durable.
    fn promote(&mut self) {
        while self.output_bytes < MAX_QUEUED_RESPONSE_BYTES
            && let Some(head) = self.pending.front_mut()
        {
            // Where there is no answer yet, `next_event` waits for it.
            if head.settle(&mut Context::from_waker(Waker::noop())).is_pending() {
                return;
            }
            let Some(Reply::Now(frames)) = self.pending.pop_front_if(|head| matches!(head, Reply::Now(_)))
            else {
                return;
            };
            self.output_bytes += frames.iter().map(Chunk::len).sum::<usize>();
            self.output.extend(frames);
        }
    }

    /// Writes as much as the socket takes. `Err`: the connection is over.
    fn flush(&mut self) -> Result<(), End> {
        self.promote();
        while !self.output.is_empty() {
            match self.try_write() {
                Ok(0) => return Err(End::Failed(io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.wrote(written);
                    if self.output.is_empty() {
                        self.promote();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(End::Failed(error)),
            }
        }
        if let Some(Reply::Close(_)) = self.pending.front()
            && let Some(Reply::Close(why)) = self.pending.pop_front()
        {
            return Err(End::Refused(why));
        }
        Ok(())
    }

    fn try_write(&self) -> io::Result<usize> {
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES_PER_WRITE];
        let mut count = 0;
        let mut more = SendFlags::empty();
        for (piece, chunk) in pieces.iter_mut().zip(&self.output) {
            match chunk {
                Chunk::Bytes(bytes) => *piece = IoSlice::new(bytes),
                Chunk::File(range) if count == 0 => return self.send_file(range),
                Chunk::File(_) => {
                    // What is in front of a file goes into one packet with it.
                    more = SendFlags::MORE;
                    break;
                }
            }
            count += 1;
        }
        let pieces = pieces.get(..count).unwrap_or_default();
        self.stream.try_io(Interest::WRITABLE, || {
            let flags = SendFlags::NOSIGNAL | more;
            Ok(sendmsg(
                &self.stream,
                pieces,
                &mut SendAncillaryBuffer::default(),
                flags,
            )?)
        })
    }

    /// From the page cache to the socket, without a copy here.
    fn send_file(&self, range: &FileRange) -> io::Result<usize> {
        self.stream.try_io(Interest::WRITABLE, || {
            let mut position = range.position;
            let sent = sendfile(&self.stream, &range.file, Some(&mut position), range.length)?;
            // Else the peer would wait for ever for the rest of its frame.
            if sent == 0 {
                return Err(io::Error::other("a log file is shorter than it was"));
            }
            Ok(sent)
        })
    }

    fn wrote(&mut self, mut written: usize) {
        self.last_activity = Instant::now();
        self.output_bytes = self.output_bytes.saturating_sub(written);
        while let Some(first) = self.output.front_mut() {
            if written < first.len() {
                match first {
                    Chunk::Bytes(bytes) => bytes.advance(written),
                    Chunk::File(range) => {
                        range.position += written as u64;
                        range.length -= written;
                    }
                }
                return;
            }
            written -= first.len();
            self.output.pop_front();
        }
    }

    /// Takes what has arrived, a frame's worth or less. `Err`: the connection is over.
    fn read(&mut self) -> Result<(), End> {
        if !self.may_read() {
            return Ok(());
        }
        framing::reserve(&mut self.buffer, self.frame_bytes);
        // Polled, because that knows from a read that is not full that there is no more; whoever only tries
        // has to be told so by another one. Where it has to wait, `next_event` does.
        let reading = pin!(self.stream.read_buf(&mut self.buffer));
        match reading.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(0)) => Err(End::Quiet),
            Poll::Ready(Ok(_)) => {
                self.last_activity = Instant::now();
                Ok(())
            }
            Poll::Ready(Err(error)) => Err(End::Failed(error)),
            Poll::Pending => Ok(()),
        }
    }
}

/// `connections.max.idle.ms`; a negative value means never, as in Kafka.
pub(super) fn idle_limit(max_idle_ms: i64) -> Duration {
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    u64::try_from(max_idle_ms).map_or(FOREVER, |ms| Duration::from_millis(ms).min(FOREVER))
}

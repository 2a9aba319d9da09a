//! The event loop's part of the commits that are left to the kernel.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::commit::Committer;

/// Rounds of one log directory that are left to the kernel, until this is dropped.
#[derive(Debug)]
pub struct KernelCommits {
    committer: Arc<Committer>,
    descriptor: OwnedFd,
}

impl KernelCommits {
    pub(crate) fn start(committer: &Arc<Committer>) -> io::Result<Self> {
        Ok(Self {
            descriptor: committer.use_kernel()?,
            committer: Arc::clone(committer),
        })
    }

    /// Ends each round when the kernel is done with it. To be spawned on a runtime of Tokio.
    ///
    /// # Errors
    /// When the runtime takes no descriptors; the directory's thread commits then.
    pub async fn run(self) -> io::Result<()> {
        #[allow(unsafe_code, reason = "whoever registers a descriptor vouches for it")]
        // SAFETY: the descriptor is this one's own, and open as long as this is; so it always is the same.
        let commits = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        let commits = commits.map_err(io::Error::from)?;
        loop {
            let mut ready = commits.readable().await?;
            commits.get_ref().committer.finish();
            ready.clear_ready();
        }
    }
}

impl AsRawFd for KernelCommits {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

impl Drop for KernelCommits {
    fn drop(&mut self) {
        self.committer.end_kernel_commits();
    }
}

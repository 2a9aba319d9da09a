//! Record batches (KIP-98): being written.

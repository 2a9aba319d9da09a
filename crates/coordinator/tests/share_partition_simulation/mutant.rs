//! Bugs that are planted around the coordinator, to show that they would be found in it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// What was acknowledged is answered, and not stored.
    ForgetsAcknowledgements,
    /// Acknowledgements are answered before they are stored.
    AnswersTooEarly,
    /// A shard is loaded anew though nobody was told.
    ForgetsLocks,
    /// Time does not pass for locks.
    NoTimeouts,
    /// Members see what was aborted.
    MissesAborts,
    /// A record is delivered once too often.
    WrongLimit,
    /// A batch that was read is not looked at.
    SkipsABatch,
}

impl Mutant {
    pub(crate) const ALL: [Self; 7] = [
        Self::ForgetsAcknowledgements,
        Self::AnswersTooEarly,
        Self::ForgetsLocks,
        Self::NoTimeouts,
        Self::MissesAborts,
        Self::WrongLimit,
        Self::SkipsABatch,
    ];
}

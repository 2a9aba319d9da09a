//! Bugs that are planted around the coordinator, to show that they would be found in it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// A member counts as having given up whatever it was told to.
    ClaimsRevoked,
    /// Where a member stands is not stored.
    ForgetsCurrent,
    /// What a member is to have is not stored.
    ForgetsTarget,
    /// That a member has gone is not stored.
    ForgetsRemovals,
    /// A member that was fenced keeps what it had.
    KeepsAfterFence,
    /// Time does not pass for sessions.
    NoSessions,
    /// The coordinator does not hear of topics.
    BlindToTopics,
}

impl Mutant {
    pub(crate) const ALL: [Self; 7] = [
        Self::ClaimsRevoked,
        Self::ForgetsCurrent,
        Self::ForgetsTarget,
        Self::ForgetsRemovals,
        Self::KeepsAfterFence,
        Self::NoSessions,
        Self::BlindToTopics,
    ];
}

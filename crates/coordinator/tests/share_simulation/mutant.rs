//! Bugs that are planted around the coordinator, to show that they would be found in it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    None,
    /// It is said that states are initialized which could not be.
    BelievesInitialization,
    /// It is never said that states are initialized.
    LosesInitialization,
    /// Which partitions have a state is not stored.
    ForgetsStates,
    /// Where a member stands is not stored.
    ForgetsCurrent,
    /// That a member has gone is not stored.
    ForgetsRemovals,
    /// A member's epoch is not looked at.
    BelievesEveryEpoch,
    /// Time does not pass for sessions.
    NoSessions,
    /// The coordinator does not hear of topics.
    BlindToTopics,
}

impl Mutant {
    pub(crate) const ALL: [Self; 8] = [
        Self::BelievesInitialization,
        Self::LosesInitialization,
        Self::ForgetsStates,
        Self::ForgetsCurrent,
        Self::ForgetsRemovals,
        Self::BelievesEveryEpoch,
        Self::NoSessions,
        Self::BlindToTopics,
    ];
}

//! Manual replica assignments (CreateTopics, CreatePartitions): the controller's checks, in its
//! order and words. There is one broker, so every list of replicas that passes names just it.

use milena_protocol::ErrorCode;

use crate::api_error::ApiError;

/// Checks one partition's list of replicas. `replication_factor` is that of the topic's other
/// partitions.
pub(super) fn check(
    replicas: &[i32],
    node_id: i32,
    replication_factor: Option<usize>,
) -> Result<(), ApiError> {
    let refuse = |what: String| {
        Err(ApiError::new(
            ErrorCode::InvalidReplicaAssignment,
            format!("The manual partition assignment includes {what}"),
        ))
    };
    if replicas.is_empty() {
        return refuse("an empty replica list.".to_owned());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    let mut previous = None;
    for id in sorted {
        if id != node_id {
            return refuse(format!("broker {id}, but no such broker is registered."));
        }
        if previous == Some(id) {
            return refuse(format!("the broker {id} more than once."));
        }
        previous = Some(id);
    }
    match replication_factor {
        Some(factor) if factor != replicas.len() => refuse(format!(
            "a partition with {} replica(s), but this is not consistent with previous partitions, which have {factor} \
             replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

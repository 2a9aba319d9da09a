//! DescribeCluster (key 60, versions 0-2; KIP-700): the cluster's id and brokers.
//!
//! Authorisation: DESCRIBE on the cluster for its authorised operations (none yet). v1 asks for
//! brokers or controllers (KIP-919): this port answers for brokers. v2 may ask for fenced brokers;
//! a broker that answers is not fenced.

use std::sync::Arc;

use milena_protocol::messages::DescribeClusterRequest;
use milena_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use milena_protocol::{ErrorCode, Str};

use super::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED};
use crate::broker::Broker;
use crate::context::RequestContext;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    broker: &Arc<Broker>,
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let sentence = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refuse(context, ErrorCode::MismatchedEndpointType, sentence.to_owned());
        }
        other => {
            let sentence = format!("Unsupported endpoint type {other}");
            return refuse(context, ErrorCode::UnsupportedEndpointType, sentence);
        }
    }
    let node = |endpoint: crate::net::Endpoint| DescribeClusterBroker {
        broker_id: broker.config.node_id,
        host: endpoint.host,
        port: i32::from(endpoint.port),
        rack: broker.config.broker_rack.clone().map(Str::from),
        ..Default::default()
    };
    let brokers: Vec<_> = broker.endpoint(context).map(node).into_iter().collect();
    let operations = if request.include_cluster_authorized_operations {
        CLUSTER_OPERATIONS
    } else {
        OPERATIONS_NOT_ASKED
    };
    DescribeClusterResponse {
        cluster_id: broker.cluster_id.clone(),
        controller_id: broker.config.node_id,
        brokers,
        cluster_authorized_operations: operations,
        ..Default::default()
    }
}

fn refuse(context: &RequestContext, error: ErrorCode, sentence: String) -> DescribeClusterResponse {
    let error = if context.api_version == 0 {
        ErrorCode::InvalidRequest
    } else {
        error
    };
    DescribeClusterResponse {
        error_code: error.code(),
        error_message: Some(sentence.into()),
        ..Default::default()
    }
}

//! `GET /_matrix/key/v2/server`, and `/_matrix/key/v2/query`, where we are a notary.

use std::collections::BTreeMap;

use exeunt_core::ruma::OwnedServerName;
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::MAX_NOTARY_SERVERS;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    FedApi,
    route::{FedRoutes, arg, body},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes
        .public(Method::GET, "/_matrix/key/v2/server", own_keys)
        .public(Method::GET, "/_matrix/key/v2/query/{server_name}", query_one)
        .public(Method::POST, "/_matrix/key/v2/query", query)
}

async fn own_keys(api: FedApi, _: RawCall) -> Result<Value, MatrixError> {
    Ok(Value::Object(api.rooms.key_document(api.now())))
}

async fn query_one(api: FedApi, call: RawCall) -> Result<Value, MatrixError> {
    let server: OwnedServerName = arg(&call, 0, "server name")?;
    let wanted = call.head.query("minimum_valid_until_ts").map(|ts| ts.parse()).transpose();
    let wanted = wanted
        .map_err(|_| MatrixError::invalid_param("minimum_valid_until_ts is not a timestamp"))?;
    answer(&api, [(server, wanted)].into()).await
}

#[derive(Deserialize)]
struct Query {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

async fn query(api: FedApi, call: RawCall) -> Result<Value, MatrixError> {
    let Query { server_keys } = body(&call)?;
    if server_keys.len() > MAX_NOTARY_SERVERS {
        let why = format!("A query may name {MAX_NOTARY_SERVERS} servers at most");
        return Err(MatrixError::invalid_param(why));
    }
    let now = api.now();
    let latest = |keys: BTreeMap<String, Criteria>| {
        keys.into_values().map(|criteria| criteria.minimum_valid_until_ts.unwrap_or(now)).max()
    };
    answer(&api, server_keys.into_iter().map(|(name, keys)| (name, latest(keys))).collect()).await
}

/// Keys that are valid until the times given, or else now.
async fn answer(
    api: &FedApi,
    wanted: BTreeMap<OwnedServerName, Option<u64>>,
) -> Result<Value, MatrixError> {
    let now = api.now();
    let wanted = wanted.into_iter().map(|(name, until)| (name, until.unwrap_or(now))).collect();
    Ok(json!({ "server_keys": api.rooms.notarized_keys(wanted).await }))
}

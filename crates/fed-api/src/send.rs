//! `PUT /_matrix/federation/v1/send/{txnId}`

use exeunt_core::ruma::OwnedServerName;
use exeunt_http::{MatrixError, Method, RawCall};
use exeunt_room::inbound::Transaction;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    FedApi, matrix_error,
    route::{FedRoutes, body},
};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.server(Method::PUT, "/_matrix/federation/v1/send/{txn_id}", send)
}

#[derive(Deserialize)]
struct Body {
    pdus: Vec<Value>,
    #[serde(default)]
    edus: Vec<Value>,
}

async fn send(api: FedApi, origin: OwnedServerName, call: RawCall) -> Result<Value, MatrixError> {
    let Body { pdus, edus } = body(&call)?;
    let txn_id = call.args.first().map(String::as_str).unwrap_or_default();
    let transaction = Transaction { pdus, edus };
    let answer = api.rooms.receive_transaction(&origin, txn_id, transaction).await;
    Ok(json!({ "pdus": answer.map_err(matrix_error)? }))
}

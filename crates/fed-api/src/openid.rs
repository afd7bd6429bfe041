//! `GET openid/userinfo`: whose OpenID token it is. Widgets and bots ask, who have no keys to sign
//! with.

use exeunt_http::{MatrixError, Method, RawCall};
use serde_json::{Value, json};

use crate::{FedApi, route::FedRoutes};

pub fn routes(routes: FedRoutes) -> FedRoutes {
    routes.public(Method::GET, "/_matrix/federation/v1/openid/userinfo", userinfo)
}

async fn userinfo(api: FedApi, call: RawCall) -> Result<Value, MatrixError> {
    let token = call.head.query("access_token").ok_or_else(MatrixError::missing_token)?;
    let user = api.users.openid_user(&token);
    let unknown = || MatrixError::new(401, "M_UNKNOWN_TOKEN", "Access token unknown or expired");
    Ok(json!({ "sub": user.ok_or_else(unknown)? }))
}

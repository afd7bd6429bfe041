//! Push rules. Specification: client-server API, "Push Rules".

use exeunt_http::{MatrixError, Routes};
use exeunt_users::Session;
use ruma::api::client::push::{
    PushRule, delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled,
    get_pushrules_all, get_pushrules_global_scope, set_pushrule, set_pushrule_actions,
    set_pushrule_enabled,
};
use ruma::push::{
    AnyPushRule, InsertPushRuleError, RemovePushRuleError, RuleKind, RuleNotFoundError, Ruleset,
};

use crate::{ClientApi, users_error};

pub(crate) fn routes(routes: Routes<ClientApi>) -> Routes<ClientApi> {
    routes
        .authed(all)
        .authed(global)
        .authed(get)
        .authed(set)
        .authed(delete)
        .authed(is_enabled)
        .authed(enable)
        .authed(actions)
        .authed(set_actions)
}

/// `GET /_matrix/client/v3/pushrules/`
async fn all(
    api: ClientApi,
    session: Session,
    _: get_pushrules_all::v3::Request,
) -> Result<get_pushrules_all::v3::Response, MatrixError> {
    Ok(get_pushrules_all::v3::Response::new(rules(&api, &session).await?))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn global(
    api: ClientApi,
    session: Session,
    _: get_pushrules_global_scope::v3::Request,
) -> Result<get_pushrules_global_scope::v3::Response, MatrixError> {
    Ok(get_pushrules_global_scope::v3::Response::new(rules(&api, &session).await?))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn get(
    api: ClientApi,
    session: Session,
    request: get_pushrule::v3::Request,
) -> Result<get_pushrule::v3::Response, MatrixError> {
    let rule = rule(&api, &session, request.kind, &request.rule_id).await?;
    Ok(get_pushrule::v3::Response::new(PushRule::from(rule)))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn set(
    api: ClientApi,
    session: Session,
    request: set_pushrule::v3::Request,
) -> Result<set_pushrule::v3::Response, MatrixError> {
    let set_pushrule::v3::Request { rule, before, after, .. } = request;
    change(&api, &session, |rules| {
        rules.insert(rule, after.as_deref(), before.as_deref()).map_err(|error| match error {
            InsertPushRuleError::UnknownRuleId => MatrixError::not_found(error.to_string()),
            _ => MatrixError::invalid_param(error.to_string()),
        })
    })
    .await?;
    Ok(set_pushrule::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn delete(
    api: ClientApi,
    session: Session,
    request: delete_pushrule::v3::Request,
) -> Result<delete_pushrule::v3::Response, MatrixError> {
    change(&api, &session, |rules| {
        rules.remove(request.kind, request.rule_id).map_err(|error| match error {
            RemovePushRuleError::NotFound => not_found(),
            _ => MatrixError::invalid_param(error.to_string()),
        })
    })
    .await?;
    Ok(delete_pushrule::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn is_enabled(
    api: ClientApi,
    session: Session,
    request: get_pushrule_enabled::v3::Request,
) -> Result<get_pushrule_enabled::v3::Response, MatrixError> {
    let rule = rule(&api, &session, request.kind, &request.rule_id).await?;
    Ok(get_pushrule_enabled::v3::Response::new(rule.enabled()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn enable(
    api: ClientApi,
    session: Session,
    request: set_pushrule_enabled::v3::Request,
) -> Result<set_pushrule_enabled::v3::Response, MatrixError> {
    let set_pushrule_enabled::v3::Request { kind, rule_id, enabled, .. } = request;
    change(&api, &session, |rules| rules.set_enabled(kind, rule_id, enabled).map_err(unknown))
        .await?;
    Ok(set_pushrule_enabled::v3::Response::new())
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn actions(
    api: ClientApi,
    session: Session,
    request: get_pushrule_actions::v3::Request,
) -> Result<get_pushrule_actions::v3::Response, MatrixError> {
    let rule = rule(&api, &session, request.kind, &request.rule_id).await?;
    Ok(get_pushrule_actions::v3::Response::new(rule.actions().to_vec()))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn set_actions(
    api: ClientApi,
    session: Session,
    request: set_pushrule_actions::v3::Request,
) -> Result<set_pushrule_actions::v3::Response, MatrixError> {
    let set_pushrule_actions::v3::Request { kind, rule_id, actions, .. } = request;
    change(&api, &session, |rules| rules.set_actions(kind, rule_id, actions).map_err(unknown))
        .await?;
    Ok(set_pushrule_actions::v3::Response::new())
}

async fn rules(api: &ClientApi, session: &Session) -> Result<Ruleset, MatrixError> {
    api.users.push_rules(&session.user_id).await.map_err(users_error)
}

async fn rule(
    api: &ClientApi,
    session: &Session,
    kind: RuleKind,
    id: &str,
) -> Result<AnyPushRule, MatrixError> {
    let rules = rules(api, session).await?;
    rules.get(kind, id).map(|rule| rule.to_owned()).ok_or_else(not_found)
}

async fn change(
    api: &ClientApi,
    session: &Session,
    change: impl FnOnce(&mut Ruleset) -> Result<(), MatrixError>,
) -> Result<(), MatrixError> {
    let changed = api.users.change_push_rules(&session.user_id, change).await;
    api.rooms.wake_user(&session.user_id, changed.map_err(users_error)??);
    Ok(())
}

fn unknown(_: RuleNotFoundError) -> MatrixError {
    not_found()
}

fn not_found() -> MatrixError {
    MatrixError::not_found("There is no such push rule")
}

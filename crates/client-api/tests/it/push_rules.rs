use serde_json::json;

use crate::common::Server;

#[actix_web::test]
async fn everybody_has_the_predefined_rules() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let rules = ann.get("/pushrules/").await.ok();
    let first = &rules["global"]["override"][0];
    assert_eq!(first["rule_id"], ".m.rule.master");
    assert_eq!((&first["default"], &first["enabled"]), (&json!(true), &json!(false)));
    assert_eq!(ann.get("/pushrules/global/").await.ok(), rules["global"]);
    let data = format!("/user/{}/account_data/m.push_rules", ann.user);
    assert_eq!(ann.get(&data).await.ok(), rules);
    let sync = ann.get("/sync").await.ok();
    let told = json!([{ "type": "m.push_rules", "content": rules }]);
    assert_eq!(sync["account_data"]["events"], told);
}

#[actix_web::test]
async fn rules_are_added_moved_changed_and_removed() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let since = ann.get("/sync").await.ok()["next_batch"].as_str().unwrap().to_owned();
    let content = "/pushrules/global/content";
    for (id, position) in [("cake", ""), ("tea", ""), ("milk", "?after=tea")] {
        let rule = json!({ "pattern": id, "actions": ["notify"] });
        ann.put(&format!("{content}/{id}{position}"), rule).await.ok();
    }
    let rules = ann.get("/pushrules/global/").await.ok();
    let ids: Vec<_> = rules["content"].as_array().unwrap().iter().map(|r| &r["rule_id"]).collect();
    assert_eq!(ids[..3], [&json!("tea"), &json!("milk"), &json!("cake")]);
    let news = ann.get(&format!("/sync?since={since}")).await.ok();
    assert_eq!(news["account_data"]["events"][0]["content"]["global"], rules);

    ann.put(&format!("{content}/tea/enabled"), json!({ "enabled": false })).await.ok();
    assert_eq!(ann.get(&format!("{content}/tea/enabled")).await.ok(), json!({ "enabled": false }));
    ann.put(&format!("{content}/tea/actions"), json!({ "actions": [] })).await.ok();
    let rule = ann.get(&format!("{content}/tea")).await.ok();
    let expected = json!({
        "rule_id": "tea", "pattern": "tea", "actions": [], "default": false, "enabled": false,
    });
    assert_eq!(rule, expected);
    ann.delete(&format!("{content}/tea")).await.ok();
    ann.get(&format!("{content}/tea")).await.fails(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn what_rules_may_not_be() {
    let server = Server::new();
    let ann = server.user("ann").await;
    let rule = json!({ "pattern": "x", "actions": ["notify"] });
    let content = "/pushrules/global/content";
    ann.put(&format!("{content}/.m.mine"), rule.clone()).await.fails(400, "M_INVALID_PARAM");
    ann.put(&format!("{content}/x?before=unknown"), rule).await.fails(404, "M_NOT_FOUND");
    ann.delete("/pushrules/global/override/.m.rule.master").await.fails(400, "M_INVALID_PARAM");
    ann.delete(&format!("{content}/unknown")).await.fails(404, "M_NOT_FOUND");
    for (what, body) in
        [("enabled", json!({ "enabled": true })), ("actions", json!({ "actions": [] }))]
    {
        ann.put(&format!("{content}/unknown/{what}"), body).await.fails(404, "M_NOT_FOUND");
        ann.get(&format!("{content}/unknown/{what}")).await.fails(404, "M_NOT_FOUND");
    }
    server.anyone().get("/pushrules/").await.fails(401, "M_MISSING_TOKEN");
}

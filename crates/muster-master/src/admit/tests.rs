//! What is taken out of calls, and what is seen.

#![allow(clippy::unwrap_used)]

use super::*;
use muster_http::auth::Acls;
use muster_proto::json::{Mesos, from_json, wire_parts};
use serde_json::{Value, json};

fn auth(rules: &Value) -> Auth {
    Auth::open("mesos-master").with_acls(Acls::parse(&rules.to_string()).unwrap())
}

/// What stands at this path of a scheduler's call.
fn part(call: &Value, path: &[u32]) -> Bytes {
    let call = from_json(mesos::scheduler::Call::shape(), call.to_string().as_bytes()).unwrap();
    wire_parts(&call.into(), path).concat().into()
}

fn encoded_operation(operation: &Value) -> Bytes {
    part(&json!({"type": "ACCEPT", "accept": {"operations": [operation]}}), &[4, 2])
}

fn encoded_task(task: &Value) -> Bytes {
    let launch = json!({"type": "LAUNCH", "launch": {"task_infos": [task]}});
    part(&json!({"type": "ACCEPT", "accept": {"operations": [launch]}}), &[4, 2, 2, 1])
}

fn encoded_info(info: &Value) -> Bytes {
    part(&json!({"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}), &[3, 1])
}

fn info(info: &Value) -> mesos::FrameworkInfo {
    mesos::FrameworkInfo::decode(encoded_info(info)).unwrap()
}

fn judged() -> Judged {
    Judged { principal: Some("web".into()), user: "www".into() }
}

/// As `www` and nobody else; reservations in `a` and below `b`; and nobody undoes what another one made.
fn rules() -> Value {
    let (any, none) = (json!({"type": "ANY"}), json!({"type": "NONE"}));
    let web = json!({"values": ["web"]});
    json!({
        "run_tasks": [{"principals": web, "users": {"values": ["www"]}}, {"principals": any, "users": none}],
        "reserve_resources": [
            {"principals": web, "roles": {"values": ["a", "b/%"]}}, {"principals": any, "roles": none}],
        "unreserve_resources": [
            {"principals": web, "reserver_principals": web}, {"principals": any, "reserver_principals": none}],
    })
}

fn task(id: &str, user: Option<&str>, of_executor: Option<&str>) -> Value {
    let mut task = json!({"name": id, "task_id": {"value": id}, "agent_id": {"value": "a1"}});
    match of_executor {
        Some(user) => {
            task["executor"] =
                json!({"executor_id": {"value": "e"}, "command": {"value": "x", "user": user}});
        }
        None => task["command"] = json!({"value": "x"}),
    }
    if let Some(user) = user {
        task["command"] = json!({"value": "x", "user": user});
    }
    task
}

#[test]
fn tasks_run_as_their_own_user_or_their_executors_or_their_frameworks() {
    for (own, of_executor, may) in [
        (None, None, true),
        (Some("www"), None, true),
        (Some("root"), None, false),
        (Some(""), None, true),
        (None, Some("root"), false),
        (None, Some("www"), true),
        (Some("root"), Some("www"), false),
    ] {
        let bytes: Bytes = encoded_task(&task("t", own, of_executor));
        let mut call = v1::Accept { task_infos: vec![bytes], ..Default::default() };
        let refused = accept(&auth(&rules()), &judged(), &mut call);
        assert_eq!((call.task_infos.len() == 1, refused.is_none()), (may, may), "{own:?} {of_executor:?}");
        let Some(refused) = refused else { continue };
        let told = &refused.tasks[0];
        assert_eq!((told.task_id.as_str(), told.agent_id.as_str()), ("t", "a1"));
        assert_eq!(told.reason, i32::from(Reason::TaskUnauthorized));
    }
    let bytes: Bytes = encoded_task(&task("t", Some("root"), None));
    let mut call = v1::Accept { task_infos: vec![bytes], ..Default::default() };
    assert_eq!(accept(&auth(&json!({})), &judged(), &mut call), None, "without rules");
    let nobody = Judged { principal: None, user: "www".into() };
    assert!(accept(&auth(&rules()), &nobody, &mut call).is_some());
}

/// Root's tasks are forbidden, all else is allowed: what is started as the agent's own user must not slip through.
#[test]
fn nobody_becomes_root_by_saying_nothing() {
    let not_as_root = json!({"run_tasks": [
        {"principals": {"type": "NONE"}, "users": {"values": ["root"]}}]});
    let not_as_root = auth(&not_as_root);
    let is_refused = |user: &str, operation: &Value| {
        let by = Judged { principal: Some("web".into()), user: user.into() };
        let mut call = v1::Accept { operations: vec![encoded_operation(operation)], ..Default::default() };
        accept(&not_as_root, &by, &mut call).is_some()
    };
    let launch = |task: Value| json!({"type": "LAUNCH", "launch": {"task_infos": [task]}});
    assert!(!is_refused("www", &launch(task("t", None, None))));
    assert!(is_refused("", &launch(task("t", None, None))), "the framework names no user");
    assert!(is_refused("", &launch(task("t", Some(""), None))));
    assert!(!is_refused("", &launch(task("t", Some("www"), None))));
    let group = |executor: Option<&str>| {
        json!({"type": "LAUNCH_GROUP", "launch_group": {
            "executor": {"type": "CUSTOM", "executor_id": {"value": "e"}, "command": {"value": "x", "user": executor}},
            "task_group": {"tasks": [task("g1", Some("www"), None)]}}})
    };
    assert!(!is_refused("www", &group(None)));
    assert!(is_refused("www", &group(Some("root"))), "the executor runs as itself");
    assert!(is_refused("root", &group(None)), "the executor runs as its framework");
    assert!(!is_refused("root", &group(Some("www"))));
}

#[test]
fn what_is_left_is_as_it_was_sent() {
    // A field that nobody here knows is in what stays.
    let mut known: Vec<u8> = encoded_task(&task("stays", None, None)).to_vec();
    known.extend([0xf8, 0x3f, 0x07]); // number 1023
    let stays = Bytes::from(known);
    let goes: Bytes = encoded_task(&task("goes", Some("root"), None));
    let launch = {
        let mut infos = Vec::new();
        for bytes in [&stays, &goes] {
            prost::encoding::bytes::encode(1, bytes, &mut infos);
        }
        let mut whole = encoded_operation(&json!({"type": "LAUNCH"})).to_vec();
        prost::encoding::bytes::encode(2, &infos, &mut whole);
        Bytes::from(whole)
    };
    let mut call = v1::Accept { operations: vec![launch], ..Default::default() };
    let refused = accept(&auth(&rules()), &judged(), &mut call).unwrap();
    assert_eq!(refused.tasks.iter().map(|it| it.task_id.as_str()).collect::<Vec<_>>(), ["goes"]);
    assert_eq!(wire_parts(&call.operations[0], &[2, 1]), [stays]);
}

#[test]
fn a_group_is_refused_as_a_whole_and_operations_each_by_itself() {
    let reserved = |role: &str, principal: &str| {
        json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}, "role": role,
            "reservation": {"principal": principal}}])
    };
    let reserve = |role: &str| json!({"type": "RESERVE", "id": {"value": role}, "reserve": {"resources": reserved(role, "web")}});
    let unreserve = |whose: &str| json!({"type": "UNRESERVE", "id": {"value": whose}, "unreserve": {"resources": reserved("a", whose)}});
    let group = |user: &str| {
        json!({"type": "LAUNCH_GROUP", "launch_group": {
            "executor": {"type": "CUSTOM", "executor_id": {"value": "e"}, "command": {"value": "x", "user": user}},
            "task_group": {"tasks": [task("g1", None, None), task("g2", Some("www"), None)]}}})
    };
    let mut without_id = reserve("c");
    without_id.as_object_mut().unwrap().remove("id");
    let all = [
        reserve("a"),
        reserve("b/x"),
        reserve("b"),
        without_id,
        unreserve("web"),
        unreserve("ops"),
        group("www"),
        group("root"),
        // What is wrong by itself is refused as that.
        json!({"type": "RESERVE", "id": {"value": "bad"}, "reserve": {"resources": []}}),
        json!({"type": "DESTROY", "id": {"value": "d"}}),
    ];
    let operations = all.iter().map(encoded_operation).collect::<Vec<_>>();
    let mut call = v1::Accept { operations: operations.clone(), ..Default::default() };
    let refused = accept(&auth(&rules()), &judged(), &mut call).unwrap();
    let left: Vec<_> = [0, 1, 4, 6, 8, 9].map(|at: usize| operations[at].clone()).into();
    assert_eq!(call.operations, left);
    let told: Vec<_> = refused.operations.iter().map(|it| it.operation_id.as_str()).collect();
    assert_eq!(told, ["b", "ops"]);
    let tasks: Vec<_> = refused.tasks.iter().map(|it| (it.task_id.as_str(), it.reason)).collect();
    let reason = i32::from(Reason::TaskGroupUnauthorized);
    assert_eq!(tasks, [("g1", reason), ("g2", reason)]);
}

#[test]
fn all_roles_of_a_framework_must_be_allowed() {
    let auth = auth(&json!({"permissive": false, "register_frameworks": [
        {"principals": {"values": ["web"]}, "roles": {"values": ["a", "b/%", "*"]}}]}));
    let may = |roles: &[&str], principal: &str| {
        let asked = json!({"user": "u", "name": "n", "roles": roles, "principal": principal,
            "capabilities": [{"type": "MULTI_ROLE"}]});
        registers(&auth, &info(&asked))
    };
    assert_eq!(may(&["a", "b/c"], "web"), Ok(()));
    assert!(may(&["a", "c"], "web").unwrap_err().contains("'c'"));
    assert!(may(&["a"], "other").unwrap_err().contains("'other'"));
    assert!(may(&["a"], "").unwrap_err().contains("without principal"));
    let old = |role: Option<&str>| {
        let mut asked = json!({"user": "u", "name": "n", "principal": "web"});
        role.into_iter().for_each(|role| asked["role"] = json!(role));
        registers(&auth, &info(&asked))
    };
    assert_eq!((old(None), old(Some("a"))), (Ok(()), Ok(())));
    assert!(old(Some("b")).is_err());
}

#[test]
fn a_description_gets_the_principal_that_was_shown() {
    let who = Subject { principal: Some("web".into()), claims: None };
    let identified = |principal: Option<&str>, who: &Subject| {
        let mut said = json!({"user": "u", "name": "n"});
        principal.into_iter().for_each(|it| said["principal"] = json!(it));
        let (mut info, mut bytes) = (info(&said), encoded_info(&said));
        identify(who, &mut info, &mut bytes)?;
        assert_eq!(mesos::FrameworkInfo::decode(bytes).unwrap(), info);
        Ok::<_, String>(info.principal)
    };
    assert_eq!(identified(None, &who), Ok(Some("web".into())));
    assert_eq!(identified(Some(""), &who), Ok(Some("web".into())));
    assert_eq!(identified(Some("web"), &who), Ok(Some("web".into())));
    assert!(identified(Some("ops"), &who).unwrap_err().contains("'web' does not match principal 'ops'"));
    assert_eq!(identified(Some("ops"), &Subject::default()), Ok(Some("ops".into())));
}

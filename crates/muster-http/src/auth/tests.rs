//! Realms, and what is shown in them.

#![allow(clippy::unwrap_used)]

use super::*;
use base64::{Engine, engine::general_purpose::STANDARD};
use std::fs;

const CREDENTIALS: &str = r#"{"credentials": [{"principal": "ops", "secret": "s"}]}"#;
const KEY: &str = "a key that is long enough for a signature";

fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("credentials"), CREDENTIALS).unwrap();
    fs::write(dir.path().join("key"), KEY).unwrap();
    let acls = r#"{"view_tasks": [{"principals": {"values": ["ops"]}, "users": {"values": ["web"]}},
        {"principals": {"type": "ANY"}, "users": {"type": "NONE"}}]}"#;
    fs::write(dir.path().join("acls"), acls).unwrap();
    dir
}

fn auth(closed: &[Realm]) -> Auth {
    let dir = dir();
    let of = |name: &str| dir.path().join(name);
    let closed = closed.iter().copied().collect();
    let settings =
        Settings { closed, credentials: of("credentials"), acls: of("acls"), token_key: of("key") };
    Auth::load("mesos-agent", &settings).unwrap()
}

fn shows(value: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
}

fn basic(text: &str) -> HeaderMap {
    shows(&format!("Basic {}", STANDARD.encode(text)))
}

#[test]
fn a_realm_that_is_closed_lets_those_in_who_show_who_they_are() {
    let auth = auth(&[Realm::Readonly, Realm::Executor]);
    let challenge = |realm, headers: &HeaderMap| {
        let answer = *auth.who(realm, headers).unwrap_err();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        answer.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned()
    };
    let who = auth.who(Realm::Readonly, &basic("ops:s")).unwrap();
    assert_eq!((who.principal(), &who.claims), (Some("ops"), &None));
    for headers in [HeaderMap::new(), basic("ops:x"), shows("Bearer x")] {
        assert_eq!(challenge(Realm::Readonly, &headers), "Basic realm=\"mesos-agent-readonly\"");
    }
    // An open one asks nobody, and takes nobody's word.
    assert_eq!(auth.who(Realm::Readwrite, &basic("ops:s")).unwrap(), Subject::default());

    let claims = Claims { cid: "c".into(), eid: "e".into(), fid: "f".into() };
    let token = shows(&format!("Bearer {}", auth.token(&claims).unwrap()));
    let who = auth.who(Realm::Executor, &token).unwrap();
    assert_eq!((who.principal(), &who.claims), (None, &Some(claims)));
    assert!(!auth.may(&who, Action::ViewTask, Some("web")) && !auth.may(&who, Action::RunTask, None));
    assert_eq!(challenge(Realm::Executor, &basic("ops:s")), "Bearer realm=\"mesos-agent-executor\"");
    assert_eq!(
        challenge(Realm::Executor, &shows("Bearer x")),
        "Bearer realm=\"mesos-agent-executor\", error=\"invalid_token\""
    );
    assert_eq!(challenge(Realm::Readonly, &token), "Basic realm=\"mesos-agent-readonly\"");
}

#[test]
fn an_executor_uses_its_agents_api_with_its_token() {
    let auth = auth(&[Realm::Readwrite, Realm::Executor]);
    let claims = Claims { cid: "c".into(), eid: "e".into(), fid: "f".into() };
    let token = shows(&format!("Bearer {}", auth.token(&claims).unwrap()));
    assert!(auth.who(Realm::Readwrite, &token).unwrap().claims.is_some());
    assert_eq!(auth.who(Realm::Readwrite, &basic("ops:s")).unwrap().principal(), Some("ops"));
    let answer = *auth.who(Realm::Readwrite, &HeaderMap::new()).unwrap_err();
    let both = "Basic realm=\"mesos-agent-readwrite\", Bearer realm=\"mesos-agent-readwrite\"";
    assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], both);
    // Where executors need no token they get none.
    assert_eq!(self::auth(&[]).token(&claims), None);
}

#[test]
fn rules_are_for_who_is_known_and_for_who_is_not() {
    let auth = auth(&[Realm::Readonly]);
    let ops = Subject { principal: Some("ops".into()), claims: None };
    assert!(auth.may(&ops, Action::ViewTask, Some("web")));
    assert!(!auth.may(&ops, Action::ViewTask, Some("root")));
    assert_eq!(auth.approver(&Subject::default(), Action::ViewTask).always(), Some(false));
    assert_eq!(Auth::open("x").approver(&Subject::default(), Action::ViewTask).always(), Some(true));
}

#[test]
fn wrong_files_are_refused_with_the_setting_and_the_fix() {
    let dir = dir();
    let of = |name: &str| dir.path().join(name);
    fs::write(of("bad"), r#"{"run_task": []}"#).unwrap();
    fs::write(of("bytes"), b"\xff").unwrap();
    let load = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::default();
        change(&mut settings);
        let error = Auth::load("mesos-master", &settings).unwrap_err();
        error.to_string()
    };
    let closed = |realm| BTreeSet::from([realm]);
    for (said, parts) in [
        (load(&|it| it.closed = closed(Realm::Scheduler)), ["auth.frameworks is on", "auth.credentials"]),
        (load(&|it| it.closed = closed(Realm::Executor)), ["auth.executors is on", "auth.jwt-secret-key"]),
        (load(&|it| it.credentials = of("none")), ["auth.credentials", "cannot read"]),
        (load(&|it| it.credentials = of("bad")), ["auth.credentials", "\"principal\""]),
        (load(&|it| it.acls = of("bad")), ["auth.acls", "run_tasks"]),
        (load(&|it| it.acls = of("bytes")), ["auth.acls", "no UTF-8"]),
        (load(&|it| it.token_key = of("bytes")), ["auth.jwt-secret-key", "32 or more"]),
    ] {
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

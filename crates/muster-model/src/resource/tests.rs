#![allow(clippy::unwrap_used)]

use super::*;
use crate::VolumeId;
use proptest::prelude::*;

fn r(text: &str) -> Resources {
    Resources::parse(text).unwrap()
}

#[test]
fn thousandths_are_exact() {
    let mut sum = Resources::none();
    for _ in 0..10 {
        sum.add(&r("cpus:0.1"));
    }
    assert_eq!(sum, r("cpus:1"));
}

#[test]
fn ports_split_and_merge() {
    let mut ports = r("ports:[1-10]");
    ports.subtract(&r("ports:[4-5]"));
    assert_eq!(ports, r("ports:[1-3,6-10]"));
    assert!(!ports.contains(&r("ports:[3-6]")));
    ports.add(&r("ports:[4-5]"));
    assert_eq!(ports, r("ports:[1-10]"));
}

#[test]
fn text_round_trips() {
    for text in ["cpus:0.25;mem:128", "ports:[1-2,5-9]", "tags:{a,b}", ""] {
        assert_eq!(r(text).to_string(), text);
    }
}

#[test]
fn bad_text_names_the_item() {
    for (text, part) in [
        ("cpus", "NAME:VALUE"),
        ("cpus:-1", "not a number"),
        ("cpus:1.2345", "three decimals"),
        ("ports:[9-1]", "begins after"),
        ("cpus:1;cpus:2", "twice"),
    ] {
        let error = Resources::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_kind_of_another_sort_is_not_contained() {
    assert!(!r("cpus:4").contains(&r("cpus:[1-2]")));
}

fn role(text: &str) -> Role {
    Role::parse(text).unwrap()
}

fn dynamic(text: &str) -> Reservation {
    Reservation { dynamic: true, role: role(text), principal: Some("ops".into()), labels: Vec::new() }
}

fn volume(id: &str, path: &str) -> Option<Volume> {
    Some(Volume { id: VolumeId::new(id), principal: None, container_path: path.into(), read_only: false })
}

fn one(name: &str, label: Label, units: u64) -> Resources {
    let mut all = Resources::none();
    all.insert_labelled(name, Some(Arc::new(label)), Value::Scalar(units * 1000));
    all
}

#[test]
fn what_is_reserved_is_another_thing() {
    let all = r("cpus:4;cpus(web):2;cpus(web/blue):1;mem:64");
    assert_eq!(all.scalar("cpus"), 4_000);
    assert_eq!(all.quantity("cpus"), 7_000);
    assert_eq!(all.quantities(), r("cpus:7;mem:64"));
    assert_eq!(all.names().collect::<Vec<_>>(), ["cpus", "mem"]);
    assert!(!all.contains(&r("cpus:5")) && !all.contains(&r("cpus(web):3")));
    assert_eq!(all.minus(&r("cpus(web):2")), r("cpus:4;cpus(web/blue):1;mem:64"));
    assert_eq!(all.unreserved(), r("cpus:4;mem:64"));
    assert_eq!(all.to_string(), "cpus:4;cpus(web):2;cpus(web/blue):1;mem:64");
}

#[test]
fn a_role_uses_its_own_and_what_is_above_it() {
    let all = r("cpus:4;cpus(web):2;cpus(web/blue):1;cpus(webs):8");
    assert_eq!(all.usable_by(&role("web")), r("cpus:4;cpus(web):2"));
    assert_eq!(all.usable_by(&role("web/blue")), r("cpus:4;cpus(web):2;cpus(web/blue):1"));
    assert_eq!(all.usable_by(&Role::any()), r("cpus:4"));
    assert_eq!(all.reserved()[&role("webs")], r("cpus(webs):8"));
}

#[test]
fn a_reservation_converts_and_back() {
    let mut all = r("cpus:4;mem:64");
    let reserved = one("cpus", Label::reserved(dynamic("web")), 3);
    assert!(all.convert(&r("cpus:3"), &reserved));
    assert_eq!(all, r("cpus:1;mem:64").plus(&reserved));
    assert!(!all.convert(&r("cpus:3"), &reserved), "there is no second time");
    assert_eq!(reserved.relabelled(|label| label.and_then(Label::unreserved)), r("cpus:3"));
    assert!(all.convert(&reserved, &r("cpus:3")));
    assert_eq!(all, r("cpus:4;mem:64"));
}

#[test]
fn a_volume_is_had_whole_and_is_the_same_wherever_it_is_seen() {
    let label = |path| Label { reservations: vec![dynamic("web")], volume: volume("db", path) };
    let here = one("disk", label("data"), 10);
    assert!(here.contains(&one("disk", label("elsewhere"), 10)));
    assert!(!here.contains(&one("disk", label("data"), 5)));
    assert!(here.minus(&one("disk", label("elsewhere"), 10)).is_empty());
    assert_ne!(here, one("disk", label("elsewhere"), 10), "how it is used is kept");
    assert_eq!(here.to_string(), "disk(reservations: [(DYNAMIC,web,ops)])[db:data]:10");
}

#[test]
fn labels_are_stored_behind_the_name() {
    let plain = r("cpus:0.5;tags:{a}");
    assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"cpus":{"Scalar":500},"tags":{"Set":["a"]}}"#);
    let labels = vec![("k".into(), Some("v".into())), ("only".into(), None)];
    let reservation = Reservation { labels, ..dynamic("web") };
    let label = Label { reservations: vec![reservation], volume: volume("db", "data") };
    let all = plain.plus(&one("disk", label, 10)).plus(&r("cpus(web):1"));
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains(r#""cpus\u0000{\"r\":[{\"r\":\"web\"}]}":{"Scalar":1000}"#), "{text}");
    assert_eq!(serde_json::from_str::<Resources>(&text).unwrap(), all);
}

#[test]
fn a_name_has_no_zero_byte() {
    assert!(Resources::parse("c\0pus:1").unwrap_err().contains("zero byte"));
    assert!(Resources::parse("cpus(/):1").unwrap_err().contains("empty component"));
    assert!(Resources::parse("cpus:1;cpus(web):[1-2]").unwrap_err().contains("another type"));
    assert_eq!(r("cpus(*):1"), r("cpus:1"));
}

fn any_label() -> impl Strategy<Value = Option<Label>> {
    let stack = prop_oneof![Just(vec!["a"]), Just(vec!["a", "a/b"]), Just(vec!["b"])];
    let labelled = (stack, any::<bool>()).prop_map(|(roles, dynamic)| {
        let reservation = |text: &str| Reservation { dynamic, ..super::tests::dynamic(text) };
        Label { reservations: roles.into_iter().map(reservation).collect(), volume: None }
    });
    proptest::option::of(labelled)
}

fn any_resources() -> impl Strategy<Value = Resources> {
    let scalar = ("cpus|mem|fpga", any_label(), (0u64..4).prop_map(|n| Value::Scalar(n * 500)));
    let ports =
        (Just("ports".to_owned()), any_label(), proptest::collection::vec((0u64..20, 0u64..20), 0..3))
            .prop_map(|(name, label, pairs)| (name, label, Value::ranges(pairs)));
    proptest::collection::vec(prop_oneof![scalar, ports], 0..6).prop_map(|all| {
        let mut sum = Resources::none();
        all.into_iter()
            .for_each(|(name, label, value)| sum.insert_labelled(&name, label.map(Arc::new), value));
        sum
    })
}

proptest! {
    #[test]
    fn adding_and_taking_away_undo_each_other(a in any_resources(), b in any_resources()) {
        let sum = a.plus(&b);
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        prop_assert_eq!(&sum, &b.plus(&a));
        prop_assert_eq!(sum.minus(&b).quantities(), a.quantities());
        if a.contains(&b) {
            prop_assert_eq!(a.minus(&b).plus(&b), a);
        }
    }

    #[test]
    fn so_many_of_a_kind_are_as_if_added_one_by_one(a in any_resources(), n in 0_u64..4) {
        let sum = (0..n).fold(Resources::none(), |sum, _| sum.plus(&a));
        prop_assert_eq!(a.times(n), sum);
    }

    #[test]
    fn converting_keeps_quantities(a in any_resources(), b in any_resources(), label in any_label()) {
        let mut all = a.plus(&b);
        let to = b.relabelled(|_| label.clone());
        prop_assert!(all.convert(&b, &to));
        prop_assert_eq!(all.quantities(), a.plus(&b).quantities());
    }

    #[test]
    fn every_part_is_some_roles_or_plain(a in any_resources()) {
        let parts = a.reserved().values().fold(a.unreserved(), |sum, part| sum.plus(part));
        prop_assert_eq!(parts, a);
    }

    #[test]
    fn stored_and_read_it_is_the_same(a in any_resources()) {
        let text = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(serde_json::from_str::<Resources>(&text).unwrap(), a);
    }
}

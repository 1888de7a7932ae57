//! The JSON codec against a reflection library, and against what Mesos does differently from it.

#![allow(clippy::unwrap_used)]

use muster_proto::json::shape::{self, Shape};
use muster_proto::json::{Codec, Mesos, from_json, to_json};
use muster_proto::mesos::{agent, master, scheduler};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, SerializeOptions, Value,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// The messages that clients send or are sent.
const ROOTS: [&Shape; 10] = [
    &shape::MESOS_V1_SCHEDULER_CALL,
    &shape::MESOS_V1_SCHEDULER_EVENT,
    &shape::MESOS_V1_EXECUTOR_CALL,
    &shape::MESOS_V1_EXECUTOR_EVENT,
    &shape::MESOS_V1_MASTER_CALL,
    &shape::MESOS_V1_MASTER_RESPONSE,
    &shape::MESOS_V1_MASTER_EVENT,
    &shape::MESOS_V1_AGENT_CALL,
    &shape::MESOS_V1_AGENT_RESPONSE,
    &shape::MESOS_V1_TASKINFO,
];

fn pool() -> DescriptorPool {
    DescriptorPool::decode(muster_proto::DESCRIPTORS).unwrap()
}

/// A message by chance: all that is required, some of the rest, less of it the deeper it stands.
fn message(of: MessageDescriptor, depth: u32, rng: &mut SmallRng) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    let chance = if depth > 5 { 0.0 } else { 0.6 / f64::from(depth + 1) };
    for field in of.fields() {
        if field.cardinality() != Cardinality::Required && !rng.random_bool(chance) {
            continue;
        }
        // The library writes it as a text, as proto3 does and Mesos does not.
        if field.kind().as_message().is_some_and(|it| it.full_name() == "google.protobuf.Duration") {
            continue;
        }
        if field.is_map() {
            let entry = field.kind().as_message().unwrap().clone();
            let value = entry.map_entry_value_field();
            let entries = (0..rng.random_range(1..3))
                .map(|n| (MapKey::String(format!("k{n}")), one(&value, depth, rng)));
            message.set_field(&field, Value::Map(entries.collect()));
        } else if field.is_list() {
            let list = (0..rng.random_range(1..3)).map(|_| one(&field, depth, rng)).collect();
            message.set_field(&field, Value::List(list));
        } else {
            message.set_field(&field, one(&field, depth, rng));
        }
    }
    message
}

fn one(field: &FieldDescriptor, depth: u32, rng: &mut SmallRng) -> Value {
    let texts = ["", "a", "\u{e9}\u{4e16}\u{1f600}", "\"\\/\n\r\t\u{1}", "x/y"];
    match field.kind() {
        Kind::Double => Value::F64([0.0, -1.5, 0.1, 1e300, 15.0, f64::INFINITY][rng.random_range(0..6)]),
        Kind::Int32 => Value::I32([0, -1, i32::MIN, i32::MAX][rng.random_range(0..4)]),
        Kind::Int64 => Value::I64([0, -1, i64::MIN, i64::MAX][rng.random_range(0..4)]),
        Kind::Uint32 => Value::U32([0, 1, u32::MAX][rng.random_range(0..3)]),
        Kind::Uint64 => Value::U64([0, 1, u64::MAX][rng.random_range(0..3)]),
        Kind::Bool => Value::Bool(rng.random_bool(0.5)),
        Kind::String => Value::String(texts[rng.random_range(0..texts.len())].into()),
        Kind::Bytes => {
            Value::Bytes((0..rng.random_range(0..20)).map(|_| rng.random()).collect::<Vec<u8>>().into())
        }
        Kind::Enum(kind) => {
            let values: Vec<_> = kind.values().collect();
            Value::EnumNumber(values[rng.random_range(0..values.len())].number())
        }
        Kind::Message(of) => Value::Message(message(of, depth + 1, rng)),
        other => panic!("{other:?}"),
    }
}

/// What Mesos writes where nothing is set.
fn with_defaults(message: &mut DynamicMessage) {
    for field in message.descriptor().fields() {
        let proto = field.field_descriptor_proto();
        let deprecated = proto.options.as_ref().is_some_and(|options| options.deprecated());
        if !message.has_field(&field) {
            if proto.default_value.is_some() && !deprecated && field.cardinality() == Cardinality::Optional {
                message.set_field(&field, field.default_value());
            }
            continue;
        }
        match message.get_field_mut(&field) {
            Value::Message(inner) => with_defaults(inner),
            Value::List(list) => list.iter_mut().filter_map(Value::as_message_mut).for_each(with_defaults),
            Value::Map(map) => map.values_mut().filter_map(Value::as_message_mut).for_each(with_defaults),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What is written is what the library reads, with Mesos' defaults.
    #[test]
    fn json_is_what_the_library_reads(seed in any::<u64>(), root in 0..ROOTS.len()) {
        let (shape, of) = (ROOTS[root], pool().get_message_by_name(ROOTS[root].name()).unwrap());
        let mut expected = message(of.clone(), 0, &mut SmallRng::seed_from_u64(seed));
        let text = to_json(shape, &expected.encode_to_vec()).unwrap();
        prop_assert!(text.is_ascii());
        let mut json = serde_json::Deserializer::from_str(&text);
        let read = DynamicMessage::deserialize(of, &mut json).map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
        with_defaults(&mut expected);
        prop_assert_eq!(read, expected, "{}", text);
    }

    /// What the library writes is read as it was.
    #[test]
    fn json_of_the_library_is_read(seed in any::<u64>(), root in 0..ROOTS.len()) {
        let (shape, of) = (ROOTS[root], pool().get_message_by_name(ROOTS[root].name()).unwrap());
        let expected = message(of.clone(), 0, &mut SmallRng::seed_from_u64(seed));
        for stringify in [false, true] {
            let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(stringify);
            let mut text = Vec::new();
            expected.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options).unwrap();
            let bytes = from_json(shape, &text).map_err(|error| TestCaseError::fail(format!("{error}: {}", String::from_utf8_lossy(&text))))?;
            prop_assert_eq!(DynamicMessage::decode(of.clone(), &*bytes).unwrap(), expected.clone());
        }
    }

    /// Nothing that comes makes either codec panic.
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        let _ = Codec::Protobuf.read::<scheduler::Call>(&bytes);
        let _ = Codec::Json.read::<scheduler::Call>(&bytes);
        let _ = Codec::Json.read::<master::Call>(text.as_bytes());
    }
}

fn call(text: &str) -> Result<scheduler::Call, String> {
    Codec::Json.read(text.as_bytes()).map_err(|error| error.to_string())
}

#[track_caller]
fn refuses(text: &str, why: &str) {
    let error = call(text).unwrap_err();
    assert!(error.contains(why), "{error}");
}

#[test]
fn mesos_reads_more_than_the_library() {
    let read = call(
        r#"{"type":"DECLINE","framework_id":{"value":"f"},"decline":{"offer_ids":{"value":"o1"},
            "filters":{"refuse_seconds":"2.5"},"of_tomorrow":[{}]},"kill":null,"accept":{"offer_ids":null,
            "operations":[{"type":"OF_TOMORROW"}]}}"#,
    )
    .unwrap();
    let decline = read.decline.unwrap();
    assert_eq!(
        (decline.offer_ids[0].value.as_str(), decline.filters.unwrap().refuse_seconds),
        ("o1", Some(2.5))
    );
    assert_eq!((read.kill, read.accept.unwrap().operations[0].r#type), (None, None));
    let read = call(
        r#"{"type":"REVIVE","type":"SUPPRESS","framework_id":{"value":"a"},"framework_id":{"value":"b"}}"#,
    )
    .unwrap();
    assert_eq!(
        (read.r#type(), read.framework_id.unwrap().value.as_str()),
        (scheduler::call::Type::Suppress, "b")
    );
    let drain =
        r#"{"type":"DRAIN_AGENT","drain_agent":{"agent_id":{"value":"a"},"max_grace_period":"10mins"}}"#;
    let drain: master::Call = Codec::Json.read(drain.as_bytes()).unwrap();
    assert_eq!(drain.drain_agent.unwrap().max_grace_period.unwrap().seconds, 600);
}

#[test]
fn what_is_wrong_is_said_in_mesos_words() {
    refuses("", "Failed to parse body into JSON: ");
    refuses("{", "Failed to parse body into JSON: ");
    refuses("{} {}", "Failed to parse body into JSON: ");
    refuses("[]", "Failed to convert JSON into Call protobuf: Expecting a JSON object");
    refuses(
        r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u"}}}"#,
        "Failed to convert JSON into Call protobuf: Missing required fields: subscribe.framework_info.name",
    );
    refuses(
        r#"{"subscribe":{"framework_info":{"user":1,"name":"n"}}}"#,
        "Failed to convert JSON into Call protobuf: Not expecting a JSON number for field 'user'",
    );
    refuses(r#"{"framework_id":"f"}"#, "Not expecting a JSON string for field 'framework_id'");
    refuses(r#"{"framework_id":[{"value":"f"}]}"#, "Not expecting a JSON array for field 'framework_id'");
    refuses(
        r#"{"acknowledge":{"agent_id":{"value":"a"},"task_id":{"value":"t"},"uuid":"*"}}"#,
        "Failed to base64 decode bytes field 'uuid': ",
    );
    refuses(r#"{"decline":{"filters":{"refuse_seconds":true}}}"#, "Not expecting a JSON boolean");
    refuses(
        r#"{"accept":{"offer_ids":[{"value":"o"},{}],"operations":[{"type":"LAUNCH","launch":{"task_infos":[{"name":"t"}]}}]}}"#,
        "accept.offer_ids[1].value, accept.operations[0].launch.task_infos[0].task_id, accept.operations[0].launch.task_infos[0].agent_id",
    );
    let deep = |levels: usize| {
        let (open, close) = (r#""value":"c","parent":{"#.repeat(levels), "}".repeat(levels));
        let text = format!(r#"{{"wait_container":{{"container_id":{{{open}"value":"c"{close}}}}}}}"#);
        Codec::Json.read::<agent::Call>(text.as_bytes()).map_err(|error| error.to_string())
    };
    assert!(deep(50).is_ok(), "{:?}", deep(50));
    assert!(deep(200).unwrap_err().contains("deep"), "{:?}", deep(200));
    assert!(call(r#"{"accept":{"operations":[{"launch":{"task_infos":[{"name":1e400}]}}]}}"#).is_err());
}

#[test]
fn protobuf_that_lacks_something_is_refused() {
    let call = scheduler::Call { kill: Some(scheduler::call::Kill::default()), ..Default::default() };
    // The library writes what is required even when it is empty; so it is left out by hand.
    assert!(Codec::Protobuf.read::<scheduler::Call>(&call.encode_to_vec()).is_ok());
    let error = Codec::Protobuf.read::<scheduler::Call>(&[0x32, 0x00]).unwrap_err().to_string();
    assert!(error.starts_with("Failed to parse body into Call protobuf"), "{error}");
    assert!(error.contains("kill.task_id"), "{error}");
    assert!(Codec::Protobuf.read::<scheduler::Call>(&[0xff, 0xff]).is_err());
}

#[test]
fn numbers_texts_and_defaults_are_written_as_mesos_does() {
    let event = scheduler::Event {
        r#type: Some(scheduler::event::Type::Error.into()),
        error: Some(scheduler::event::Error { message: "a/b \"\u{e9}\u{1f600}\"\n".into() }),
        ..Default::default()
    };
    let text = Codec::Json.write(&event);
    assert_eq!(text, r#"{"type":"ERROR","error":{"message":"a/b \"\u00e9\ud83d\ude00\"\n"}}"#);
    let filters = to_json(&shape::MESOS_V1_FILTERS, &[]).unwrap();
    assert_eq!(filters, r#"{"refuse_seconds":5.0}"#);
    let info =
        muster_proto::mesos::FrameworkInfo { user: "u".into(), name: "n".into(), ..Default::default() };
    let info = to_json(&shape::MESOS_V1_FRAMEWORKINFO, &info.encode_to_vec()).unwrap();
    assert_eq!(info, r#"{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false}"#);
    // A value that this version does not know is absent.
    assert_eq!(to_json(scheduler::Event::shape(), &[0x08, 0x63]).unwrap(), "{}");
}

/// Libraries leave the value out of a map's entry where it holds nothing but zeros; other readers then miss what is
/// required of it. Found by the fuzzer.
#[test]
fn a_limit_of_nothing_is_written_with_its_value() {
    use muster_proto::mesos::{quota::QuotaConfig, quota::quota_config::LimitsEntry, value::Scalar};
    let of = |value| {
        let limits = vec![LimitsEntry { key: Some("cpus".into()), value }];
        let config = QuotaConfig { role: "web".into(), limits, ..Default::default() };
        let update = master::call::UpdateQuota { quota_configs: vec![config], ..Default::default() };
        master::Call { update_quota: Some(update), ..Default::default() }
    };
    for call in [of(None), of(Some(Scalar { value: 0.0 }))] {
        let text = String::from_utf8(Codec::Json.write(&call).to_vec()).unwrap();
        assert!(text.contains(r#""limits":{"cpus":{"value":0.0}}"#), "{text}");
    }
    let zeros: &[u8] = &[0x12, 0x09, 0x09, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = Codec::Protobuf.write(&of(Some(Scalar { value: 0.0 })));
    assert!(bytes.windows(zeros.len()).any(|part| part == zeros), "{bytes:?}");
}

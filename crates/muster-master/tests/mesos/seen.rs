//! What a client sees of an answer, without what differs from run to run: so a recorded one and one of the masters under
//! test can be compared.
//!
//! Ids become what they stand for; times, uuids, hosts and ports of masters become a word, if they are such; lists whose
//! order means nothing are sorted; offers are gathered, since it means nothing how many come in one event.

use crate::ids::{Ids, starts_with_uuid};
use crate::metrics;
use crate::transcript::{Body, Message, record};
use muster_proto::json::Codec;
use muster_proto::mesos;
use serde_json::{Map, Value, json};
use std::io::Read;

/// The headers that clients depend on. Others may come as they like.
const HEADERS: [&str; 9] = [
    "Allow",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Date",
    "Location",
    "Mesos-Stream-Id",
    "Retry-After",
    "Transfer-Encoding",
];

/// Stands for a body that was not kept.
pub const LEFT_OUT: &str = "<left out>";

/// An answer.
pub fn answer(answer: &Message, ids: &Ids, leader: &str) -> Value {
    let mut seen = head(answer, leader);
    match &answer.body {
        Body::Whole(bytes) => {
            let same_length = answer.header("Content-Length") == Some(&bytes.len().to_string());
            seen["headers"]["Content-Length"] = if same_length { "<right>" } else { "<wrong>" }.into();
            let bytes = unpacked(answer.header("Content-Encoding"), bytes);
            seen["body"] = body(answer.header("Content-Type"), &bytes, ids);
        }
        Body::LeftOut => {
            seen["headers"]["Content-Length"] = "<right>".into();
            seen["body"] = LEFT_OUT.into();
        }
        Body::Chunks(chunks, ended) => {
            let codec = codec(answer.header("Content-Type"));
            seen["events"] = events(chunks.iter().map(|chunk| event(codec, chunk)), *ended, ids);
        }
    }
    seen
}

fn head(answer: &Message, leader: &str) -> Value {
    let header = |name: &str| {
        let value = answer.header(name)?;
        let value = match name {
            "Date" => "<time>",
            "Mesos-Stream-Id" if value.len() == 36 && starts_with_uuid(value) => "<uuid>",
            "Transfer-Encoding" => return Some((name.to_owned(), value.to_lowercase().into())),
            "Location" => return Some((name.to_owned(), value.replace(leader, "<leader>").into())),
            _ => value,
        };
        Some((name.to_owned(), Value::from(value)))
    };
    let headers: Map<String, Value> = HEADERS.into_iter().filter_map(header).collect();
    json!({ "status": answer.line, "headers": headers })
}

/// A body as it was before it was packed.
fn unpacked(how: Option<&str>, bytes: &[u8]) -> Vec<u8> {
    let Some(how) = how else { return bytes.to_vec() };
    assert_eq!(how, "gzip");
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked).expect("it is gzip");
    unpacked
}

/// The JSON of a body, if it is one: of a script the function is its only field; of the operator API's messages what they
/// say.
fn json_of(kind: Option<&str>, bytes: &[u8]) -> Option<Value> {
    match kind? {
        "application/json" => serde_json::from_slice(bytes).ok(),
        "application/x-protobuf" => {
            let response: mesos::master::Response = Codec::Protobuf.read(bytes).ok()?;
            serde_json::from_slice(&Codec::Json.write(&response)).ok()
        }
        "text/javascript" => {
            let text = std::str::from_utf8(bytes).ok()?;
            let (function, argument) = text.strip_suffix(')')?.split_once('(')?;
            let argument: Value = serde_json::from_str(argument).ok()?;
            Some(json!({ function: argument }))
        }
        _ => None,
    }
}

fn body(kind: Option<&str>, bytes: &[u8], ids: &Ids) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    if let Some(mut body) = json_of(kind, bytes) {
        for list in ["/get_flags/flags", "/get_metrics/metrics"] {
            if let Some(list) = body.pointer_mut(list) {
                by_name(list);
            }
        }
        settle(&mut body, "", ids);
        if let Some(metrics) = metrics::of(&mut body) {
            metrics::settle(metrics, ids);
        }
        return body;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => ids.named(text).into(),
        Err(_) => format!("{bytes:02x?}").into(),
    }
}

/// The codec of a stream.
pub fn codec(kind: Option<&str>) -> Codec {
    match kind {
        Some("application/json") => Codec::Json,
        Some("application/x-protobuf") => Codec::Protobuf,
        other => panic!("a stream of {other:?}"),
    }
}

/// The scheduler's event of a chunk, which is one record.
pub fn event(codec: Codec, chunk: &[u8]) -> Value {
    let payload = record(chunk);
    let text = match codec {
        Codec::Json => payload.to_vec(),
        Codec::Protobuf => {
            let event: mesos::scheduler::Event = codec.read(payload).expect("an event");
            Codec::Json.write(&event).to_vec()
        }
    };
    assert!(!text.contains(&b'\n'), "clients read line by line: no event has a line break");
    serde_json::from_slice(&text).expect("JSON")
}

/// Events: what was offered, and what else there was, task by task in its order.
pub fn events(all: impl IntoIterator<Item = Value>, ended: bool, ids: &Ids) -> Value {
    let (mut offers, mut others) = (Vec::<Value>::new(), Vec::<Value>::new());
    for mut event in all {
        settle(&mut event, "", ids);
        match event["type"].as_str() {
            Some("OFFERS") => {
                let Value::Array(list) = event["offers"]["offers"].take() else { panic!("no offers") };
                offers.extend(list);
            }
            // How many come is a matter of time; the first one belongs to the SUBSCRIBED before it.
            Some("HEARTBEAT") if others.len() != 1 || others[0]["type"] != "SUBSCRIBED" => {}
            _ => others.push(event),
        }
    }
    offers.sort_by_key(|offer| offer["hostname"].to_string());
    others.sort_by_key(|event| {
        let tasks =
            [&event["update"]["status"], &event["task_updated"]["status"], &event["task_added"]["task"]];
        tasks.map(|task| task["task_id"]["value"].as_str().unwrap_or_default().to_owned()).concat()
    });
    json!({ "offers": offers, "others": others, "ended": ended })
}

/// Takes out of a value what differs from run to run.
fn settle(value: &mut Value, key: &str, ids: &Ids) {
    match value {
        Value::String(text) => {
            let settled = match key {
                "uuid" if is_uuid(text) => "<uuid>".into(),
                "pid" | "leader" if text.starts_with("master@") => "<pid>".into(),
                "path" if is_process(text) => "<process>".into(),
                _ => ids.named(text),
            };
            *text = settled;
        }
        Value::Number(number) if is_of_the_machine(key) => {
            *value = format!("<number with a fraction: {}>", number.is_f64()).into();
        }
        Value::Number(number) if is_time(key) && number.as_f64() > Some(0.0) => *value = "<time>".into(),
        Value::Array(list) => {
            list.iter_mut().for_each(|it| settle(it, key, ids));
            if key.ends_with("resources") || key.ends_with("resources_full") || key == "offers" {
                list.sort_by_key(|it| format!("{}{it}", it["name"]));
            }
        }
        Value::Object(map) => {
            for (inner, value) in map.iter_mut() {
                // A moment is a number, or a message with one.
                let name = if inner == "nanoseconds" { key } else { inner };
                settle(value, name, ids);
            }
            if key == "master_info" || key == "leader_info" {
                settle_master(map);
            }
        }
        _ => {}
    }
}

/// Whether a field tells of a moment, which is another one in each run.
fn is_time(key: &str) -> bool {
    ["timestamp", "registered_time", "reregistered_time", "unregistered_time", "start_time", "elected_time"]
        .contains(&key)
}

/// Whether a field tells of the machine.
fn is_of_the_machine(key: &str) -> bool {
    key.starts_with("avg_load_") || ["cpus_total", "mem_free_bytes", "mem_total_bytes"].contains(&key)
}

/// A list of names and values, as the map that it stands for.
fn by_name(list: &mut Value) {
    let named = |it: &Value| (it["name"].as_str().expect("a name").to_owned(), it["value"].clone());
    let map: Map<String, Value> = list.as_array().expect("a list").iter().map(named).collect();
    *list = Value::Object(map);
}

/// A master's own place: where it is, if it says so in the right form.
fn settle_master(master: &mut Map<String, Value>) {
    type IsRight = fn(&Value) -> bool;
    const PLACE: [(&str, IsRight); 4] = [
        ("id", Value::is_string),
        ("ip", |it| it.is_u64() || it.is_string()),
        ("port", Value::is_u64),
        ("hostname", Value::is_string),
    ];
    let place = |map: &mut Map<String, Value>| {
        for (key, is_right) in PLACE {
            if let Some(value) = map.get_mut(key).filter(|value| is_right(value)) {
                *value = format!("<{key}>").into();
            }
        }
    };
    place(master);
    if let Some(Value::Object(address)) = master.get_mut("address") {
        place(address);
    }
}

/// Base64 of 16 bytes.
fn is_uuid(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    text.len() == 24 && text.ends_with("==") && text[..22].bytes().all(is_base64)
}

/// `/slave(1)`.
fn is_process(text: &str) -> bool {
    let number = text.strip_prefix("/slave(").and_then(|rest| rest.strip_suffix(')'));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

#[test]
fn what_differs_from_run_to_run_is_taken_out_and_nothing_else() {
    let ids = Ids::recorded();
    let seen = |text: &str| events([serde_json::from_str(text).unwrap()], false, &ids);
    let one = seen(
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"timestamp":1.5,"uuid":"1JzDbVJ6Tga0lCz3pZsf5Q=="}}}"#,
    );
    let other = seen(
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"timestamp":2.5,"uuid":"YVPZkg2WRhah2rOXFN0Xdw=="}}}"#,
    );
    assert_eq!(one, other);
    for different in [
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"u"},"timestamp":1.5,"uuid":"1JzDbVJ6Tga0lCz3pZsf5Q=="}}}"#,
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"timestamp":0.0,"uuid":"1JzDbVJ6Tga0lCz3pZsf5Q=="}}}"#,
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"timestamp":1.5,"uuid":"1JzD"}}}"#,
        r#"{"type":"UPDATE","update":{"status":{"task_id":{"value":"t"},"timestamp":1.5}}}"#,
    ] {
        assert_ne!(one, seen(different));
    }
}

//! In what an answer of muster's may differ from the recorded one: that is taken out of both.

use crate::cases::But;
use serde_json::Value;

/// Takes a difference out of what was seen.
pub fn apart_from(but: But, value: &mut Value) {
    match but {
        But::Like(_) => {} // another answer was recorded for it
        But::Words => without_words(value),
        But::AgentIp => without_agents_ips(value),
        But::Container => without_containers(value),
        But::LastStatus => last_statuses(value),
        But::Abilities => without_abilities(value),
        But::Location => with_query_in_order(value),
        But::At(place, names) => {
            for name in names {
                match place.is_empty() {
                    true => remove(value, name),
                    false => remove(value, &format!("{place}.{name}")),
                }
            }
        }
    }
}

/// Each difference by itself.
pub fn one_by_one(buts: &'static [But]) -> Vec<But> {
    let each = buts.iter().map(|but| match but {
        But::At(place, names) => names.chunks(1).map(|name| But::At(place, name)).collect(),
        other => vec![*other],
    });
    each.collect::<Vec<_>>().concat()
}

/// Removes the values at a path: names with `.` between them, `[]` after that of a list, a `*` for any part of a name.
fn remove(value: &mut Value, path: &str) {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let (name, is_list) = name.strip_suffix("[]").map_or((name, false), |name| (name, true));
    let is_named = |other: &str| match name.split_once('*') {
        Some((start, end)) => {
            other.len() >= start.len() + end.len() && other.starts_with(start) && other.ends_with(end)
        }
        None => other == name,
    };
    let Value::Object(map) = value else { return };
    let Some(rest) = rest else {
        map.retain(|name, _| !is_named(name));
        return;
    };
    for (_, it) in map.iter_mut().filter(|(name, _)| is_named(name)) {
        match it {
            Value::Array(list) if is_list => list.iter_mut().for_each(|it| remove(it, rest)),
            other => remove(other, rest),
        }
    }
}

/// Takes out what Mesos' agents say that they can do, and ours do not.
fn without_abilities(value: &mut Value) {
    const THEIRS: [&str; 3] = ["RESOURCE_PROVIDER", "RESIZE_VOLUME", "TASK_RESOURCE_LIMITS"];
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_abilities),
        Value::Object(map) => {
            if let Some(Value::Array(list)) = map.get_mut("capabilities") {
                let name = |it: &Value| it.as_str().or(it["type"].as_str()).map(str::to_owned);
                list.retain(|it| name(it).is_none_or(|name| !THEIRS.contains(&&*name)));
            }
            map.values_mut().for_each(without_abilities);
        }
        _ => {}
    }
}

/// Of each task the last status, in what is kept of one that is acknowledged.
fn last_statuses(value: &mut Value) {
    const KEPT: [&str; 5] = ["task_id", "agent_id", "state", "timestamp", "message"];
    match value {
        Value::Array(list) => list.iter_mut().for_each(last_statuses),
        Value::Object(map) => {
            if let Some(Value::Array(statuses)) = map.get_mut("statuses")
                && let Some(mut last) = statuses.pop()
            {
                last.as_object_mut().expect("a status").retain(|field, _| KEPT.contains(&field.as_str()));
                *statuses = vec![last];
            }
            map.values_mut().for_each(last_statuses);
        }
        _ => {}
    }
}

/// Takes words for people out of a value that was seen: sentences of errors, messages of statuses.
fn without_words(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_words),
        Value::Object(map) => {
            let is_plain = map
                .get("headers")
                .is_some_and(|it| it["Content-Type"].as_str().is_some_and(|it| it.starts_with("text/plain")));
            for (key, value) in map.iter_mut() {
                let are_words = key == "message" || (is_plain && key == "body");
                match value {
                    Value::String(text) if are_words && !text.is_empty() => *value = "<words>".into(),
                    _ => without_words(value),
                }
            }
        }
        _ => {}
    }
}

/// Takes the addresses of offered agents out of a value that was seen.
fn without_agents_ips(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_agents_ips),
        Value::Object(map) => {
            if let Some(Value::Object(address)) = map.get_mut("url").and_then(|url| url.get_mut("address")) {
                address.remove("ip");
            }
            map.values_mut().for_each(without_agents_ips);
        }
        _ => {}
    }
}

/// Takes what an update says of its container and its executor out of a value that was seen.
fn without_containers(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(without_containers),
        Value::Object(map) => {
            if map.contains_key("task_id") && map.contains_key("state") {
                map.remove("container_status");
                map.remove("executor_id");
            }
            map.values_mut().for_each(without_containers);
        }
        _ => {}
    }
}

/// Sorts the parameters of a redirect.
fn with_query_in_order(value: &mut Value) {
    let Some(Value::String(location)) = value.pointer_mut("/headers/Location") else { return };
    if let Some((path, query)) = location.split_once('?') {
        let mut parameters: Vec<&str> = query.split('&').collect();
        parameters.sort_unstable();
        *location = format!("{path}?{}", parameters.join("&"));
    }
}

#[test]
fn a_path_names_values_of_lists_and_maps() {
    let mut value =
        serde_json::json!({ "a": [{ "b": 1, "c": 2 }, { "b": 3 }], "d": { "e": { "fxa": 4, "g": 5 } } });
    remove(&mut value, "a[].b");
    remove(&mut value, "d.*.f*a");
    remove(&mut value, "nothing.here");
    assert_eq!(value, serde_json::json!({ "a": [{ "c": 2 }, {}], "d": { "e": { "g": 5 } } }));
}

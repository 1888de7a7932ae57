//! Resources with labels as scenarios write them.

use muster_model::{Label, Reservation, Resources, Role, Value, Volume, VolumeId};
use std::sync::Arc;

/// Reads `cpus:1;cpus(web):1;cpus(web!ops)(web/blue!):2;disk(web!ops)[db:data]:10`: a role alone is what an agent came
/// with, one with a mark and the maker's name was reserved while it was there; a volume has a name and a path.
pub(crate) fn parse(text: &str) -> Resources {
    let mut all = Resources::none();
    for item in text.split(';').filter(|item| !item.is_empty()) {
        let (kind, amount) = item.rsplit_once(':').unwrap_or_else(|| panic!("{item}: no amount"));
        let end = kind.find(['(', '[']).unwrap_or(kind.len());
        let (name, mut rest) = kind.split_at(end);
        let mut label = Label::default();
        while let Some(inner) = rest.strip_prefix('(') {
            let (text, after) = inner.split_once(')').unwrap();
            label.reservations.push(reservation(text));
            rest = after;
        }
        if let Some(inner) = rest.strip_prefix('[') {
            let (id, path) = inner.trim_end_matches(']').split_once(':').unwrap();
            label.volume = Some(Volume {
                id: VolumeId::new(id),
                principal: label.reservations.last().and_then(|last| last.principal.clone()),
                container_path: path.into(),
                read_only: false,
            });
        }
        let label = Some(Arc::new(label)).filter(|label| **label != Label::default());
        let plain = Resources::parse(&format!("x:{amount}")).unwrap();
        let value: Value = plain.get("x").cloned().unwrap_or(Value::Scalar(0));
        all.insert_labelled(name, label, value);
    }
    all
}

fn reservation(text: &str) -> Reservation {
    let (role, principal) = match text.split_once('!') {
        Some((role, principal)) => (role, Some(principal)),
        None => (text, None),
    };
    Reservation {
        dynamic: principal.is_some(),
        role: Role::parse(role).unwrap(),
        principal: principal.filter(|text| !text.is_empty()).map(Into::into),
        labels: Vec::new(),
    }
}

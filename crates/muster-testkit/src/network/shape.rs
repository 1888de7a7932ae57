//! Shapes of partitions: who does not hear whom.

use anyhow::bail;

/// Two members.
pub(crate) type Pair = (String, String);

/// Members hear each other when some group has both of them; who is in no group hears everybody.
pub(crate) fn pairs(groups: &[Vec<String>]) -> Vec<Pair> {
    let together = |a: &String, b: &String| groups.iter().any(|group| group.contains(a) && group.contains(b));
    let mut named: Vec<&String> = groups.iter().flatten().collect();
    named.sort_unstable();
    named.dedup();
    let mut apart = Vec::new();
    for (i, a) in named.iter().enumerate() {
        let others = named[i + 1..].iter().filter(|b| !together(a, b));
        apart.extend(others.map(|b| ((*a).clone(), (*b).clone())));
    }
    apart
}

/// Two halves, and one member that is in both.
pub(crate) fn bridge(masters: &[String], name: &str) -> Vec<Vec<String>> {
    let others: Vec<_> = masters.iter().filter(|other| *other != name).cloned().collect();
    let (left, right) = others.split_at(others.len() / 2);
    let with = |half: &[String]| [half, &[name.to_owned()]].concat();
    vec![with(left), with(right)]
}

/// Each master and the one on either side: each hears a majority, and no two hear the same one.
pub(crate) fn ring(masters: &[String]) -> anyhow::Result<Vec<Vec<String>>> {
    let n = masters.len();
    if n != 5 {
        bail!("a ring of majorities takes five masters: of {n}, neighbours are all, or no majority");
    }
    // Neighbours hear each other, and nobody else does.
    Ok((0..n).map(|i| vec![masters[i].clone(), masters[(i + 1) % n].clone()]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&name| name.into()).collect()
    }

    fn shown(groups: &[Vec<String>]) -> String {
        pairs(groups).iter().map(|(a, b)| format!("{a}|{b}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn groups_hear_only_themselves() {
        assert_eq!(shown(&[names(&["m1", "a1"]), names(&["m2"])]), "a1|m2 m1|m2");
        assert_eq!(shown(&[names(&["m1"])]), "");
    }

    #[test]
    fn a_bridge_hears_both_halves() {
        let five = names(&["m1", "m2", "m3", "m4", "m5"]);
        assert_eq!(shown(&bridge(&five, "m3")), "m1|m4 m1|m5 m2|m4 m2|m5");
        assert_eq!(shown(&bridge(&five[..3], "m1")), "m2|m3");
    }

    #[test]
    fn in_a_ring_each_hears_a_majority_of_its_own() {
        let five = names(&["m1", "m2", "m3", "m4", "m5"]);
        assert_eq!(shown(&ring(&five).unwrap()), "m1|m3 m1|m4 m2|m4 m2|m5 m3|m5");
        assert!(ring(&five[..3]).is_err());
    }
}

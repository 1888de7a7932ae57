//! What passes the bridge between hosts, and what does not: one table of the kernel's packet filter.

use super::run;
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One direction between two hosts.
pub(crate) type Link = (Ipv4Addr, Ipv4Addr);

/// The table. Faults may overlap: a direction is whole when the last cut of it has healed.
#[derive(Debug)]
pub(crate) struct Switchboard {
    table: String,
    cuts: Mutex<BTreeMap<Link, Severed>>,
}

/// A direction that was cut, now or before.
#[derive(Debug, Clone, Copy, Default)]
struct Severed {
    /// How many faults cut it now.
    cuts: usize,
    /// Bytes that were dropped in cuts that have healed.
    dropped: u64,
}

impl Switchboard {
    pub(crate) fn new(network: u8) -> Self {
        Self { table: format!("hosts{network}"), cuts: Mutex::default() }
    }

    /// Makes the table; whatever passes between these is counted.
    pub(crate) fn install(&self, hosts: impl Iterator<Item = Ipv4Addr> + Clone) -> anyhow::Result<()> {
        let pairs = hosts.clone().flat_map(|from| hosts.clone().map(move |to| (from, to)));
        let pairs = elements(pairs.filter(|(from, to)| from != to));
        let table = &self.table;
        run(
            "nft",
            &["-f", "-"],
            &format!(
                "table bridge {table} {{
                   set cut {{ type ipv4_addr . ipv4_addr; counter; }}
                   set passed {{ type ipv4_addr . ipv4_addr; counter; elements = {{ {pairs} }}; }}
                   map losses {{ type ipv4_addr : verdict; }}
                   chain board {{
                     type filter hook forward priority 0; policy accept;
                     ip saddr . ip daddr @cut drop;
                     ip saddr vmap @losses;
                     ip daddr vmap @losses;
                     ip saddr . ip daddr @passed;
                   }}
                 }}\n"
            ),
        )
        .map(drop)
    }

    pub(crate) fn remove(&self) {
        // It may never have been made.
        let _ = run("nft", &["delete", "table", "bridge", &self.table], "");
    }

    fn cuts(&self) -> MutexGuard<'_, BTreeMap<Link, Severed>> {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts these directions.
    pub(crate) fn cut(&self, links: &[Link]) -> anyhow::Result<()> {
        let mut cuts = self.cuts();
        let new: BTreeSet<_> =
            links.iter().filter(|link| cuts.get(link).is_none_or(|it| it.cuts == 0)).copied().collect();
        if !new.is_empty() {
            self.nft(&format!("add element bridge {} cut {{ {} }}", self.table, elements(new.into_iter())))?;
        }
        links.iter().for_each(|link| cuts.entry(*link).or_default().cuts += 1);
        Ok(())
    }

    /// Heals them.
    pub(crate) fn heal(&self, links: &[Link]) -> anyhow::Result<()> {
        let mut cuts = self.cuts();
        let dropped = self.counters("cut")?;
        let mut healed = BTreeSet::new();
        for link in links {
            let Some(severed) = cuts.get_mut(link) else { continue };
            severed.cuts = severed.cuts.saturating_sub(1);
            if severed.cuts == 0 && healed.insert(*link) {
                severed.dropped += dropped.get(link).copied().unwrap_or_default();
            }
        }
        if !healed.is_empty() {
            let elements = elements(healed.into_iter());
            self.nft(&format!("delete element bridge {} cut {{ {elements} }}", self.table))?;
        }
        Ok(())
    }

    /// Bytes of these directions that were dropped by cuts, since the cluster was started.
    pub(crate) fn dropped(&self, links: &[Link]) -> anyhow::Result<u64> {
        let cuts = self.cuts();
        let now = self.counters("cut")?;
        let of = |link: &Link| {
            let before = cuts.get(link).map_or(0, |it| it.dropped);
            before + now.get(link).copied().unwrap_or_default()
        };
        Ok(links.iter().map(of).sum())
    }

    /// Bytes that passed in one direction.
    pub(crate) fn passed(&self, link: Link) -> anyhow::Result<u64> {
        Ok(self.counters("passed")?.get(&link).copied().unwrap_or_default())
    }

    /// Drops so many in a hundred packets of a host, whichever way they go; one such fault of a host at a time.
    pub(crate) fn lose(&self, host: Ipv4Addr, percent: u8) -> anyhow::Result<()> {
        if !(1..=99).contains(&percent) {
            bail!("{percent} in a hundred packets cannot be lost: say 1 to 99, or cut it off");
        }
        let (table, chain) = (&self.table, loss_chain(host));
        self.nft(&format!(
            "create chain bridge {table} {chain}\n\
             add rule bridge {table} {chain} numgen random mod 100 < {percent} counter drop\n\
             add element bridge {table} losses {{ {host} : jump {chain} }}"
        ))
        .with_context(|| format!("packets of {host} are lost already, or cannot be"))
    }

    /// Packets of a host that were lost so.
    pub(crate) fn lost(&self, host: Ipv4Addr) -> anyhow::Result<u64> {
        let chain = run("nft", &["list", "chain", "bridge", &self.table, &loss_chain(host)], "")?;
        let count = chain.split_once("packets ").and_then(|(_, rest)| rest.split_whitespace().next());
        count.and_then(|count| count.parse().ok()).with_context(|| format!("no counter in {chain}"))
    }

    /// Nothing of a host is lost any more.
    pub(crate) fn lose_no_more(&self, host: Ipv4Addr) -> anyhow::Result<()> {
        let (table, chain) = (&self.table, loss_chain(host));
        self.nft(&format!(
            "delete element bridge {table} losses {{ {host} : jump {chain} }}\n\
             flush chain bridge {table} {chain}\n\
             delete chain bridge {table} {chain}"
        ))
    }

    fn nft(&self, commands: &str) -> anyhow::Result<()> {
        run("nft", &["-f", "-"], &format!("{commands}\n")).map(drop)
    }

    /// The bytes that a set counted.
    fn counters(&self, set: &str) -> anyhow::Result<BTreeMap<Link, u64>> {
        let listed = run("nft", &["list", "set", "bridge", &self.table, set], "")?;
        Ok(counted(&listed))
    }
}

fn loss_chain(host: Ipv4Addr) -> String {
    format!("loss{}", host.octets()[3])
}

fn elements(links: impl Iterator<Item = Link>) -> String {
    links.map(|(from, to)| format!("{from} . {to}")).collect::<Vec<_>>().join(", ")
}

/// Elements of a listed set: `10.77.1.1 . 10.77.1.2 counter packets 3 bytes 180,`.
fn counted(listed: &str) -> BTreeMap<Link, u64> {
    let words: Vec<_> = listed.split([' ', '\t', '\n', ',']).filter(|word| !word.is_empty()).collect();
    let mut found = BTreeMap::new();
    for window in words.windows(8) {
        if let [from, ".", to, "counter", "packets", _, "bytes", bytes] = window
            && let (Ok(from), Ok(to), Ok(bytes)) = (from.parse(), to.parse(), bytes.parse())
        {
            found.insert((from, to), bytes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_off_a_listed_set() {
        let listed = "table bridge hosts1 {\n\tset cut {\n\t\ttype ipv4_addr . ipv4_addr\n\t\tcounter\n\t\telements = { \
                      10.77.1.1 . 10.77.1.2 counter packets 1 bytes 84,\n\t\t\t     10.77.1.2 . 10.77.1.1 counter \
                      packets 0 bytes 0 }\n\t}\n}\n";
        let one = Ipv4Addr::new(10, 77, 1, 1);
        let two = Ipv4Addr::new(10, 77, 1, 2);
        assert_eq!(counted(listed), [((one, two), 84), ((two, one), 0)].into());
        assert_eq!(counted("table bridge hosts1 {\n}\n"), BTreeMap::new());
    }
}

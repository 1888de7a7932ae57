//! What is said on the command line of agents, roles, quotas and machines.

use crate::cli::Masters;
use clap::{Args, Subcommand};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Its id.
    pub(crate) agent_id: String,
    /// The longest time that a task may take to end by itself, whatever it says: 90, 90s, 10m or 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) max_grace: Option<Duration>,
    /// Mark it gone once its tasks have ended.
    #[arg(long)]
    pub(crate) mark_gone: bool,
    #[command(flatten)]
    pub(crate) masters: Masters,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RoleVerb {
    /// List roles that have frameworks, weights or resources.
    List(Masters),
    /// Set weights: a role's share beside those of others.
    Weigh {
        /// Roles and their weights.
        #[arg(value_name = "ROLE=WEIGHT", required = true, value_parser = weight)]
        weights: Vec<Weight>,
        #[command(flatten)]
        masters: Masters,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuotaVerb {
    /// List quotas that are set.
    List(Masters),
    /// Set what a role is guaranteed and limited to, in the place of what was set before.
    Set(QuotaSetArgs),
    /// Take a role's quota away.
    Remove {
        /// The role.
        role: String,
        #[command(flatten)]
        masters: Masters,
    },
}

#[derive(Debug, Args)]
pub(crate) struct QuotaSetArgs {
    /// The role.
    pub(crate) role: String,
    /// What it is guaranteed.
    #[arg(long, value_name = "cpus:N;mem:MB", value_parser = amounts)]
    pub(crate) guarantee: Option<Amounts>,
    /// What it may have at most.
    #[arg(long, value_name = "cpus:N;mem:MB", value_parser = amounts, required_unless_present = "guarantee")]
    pub(crate) limit: Option<Amounts>,
    /// Also if the role has more already, or the cluster has less.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) masters: Masters,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceVerb {
    /// List machines that will be away or are down, and what frameworks answer.
    List(Masters),
    /// Say that machines will be away: frameworks are asked whether that is all right.
    Plan(PlanArgs),
    /// Take machines out of the schedule.
    Cancel(MachineArgs),
    /// Say that machines of the schedule are down: their agents stop, and their tasks are lost.
    Start(MachineArgs),
    /// Say that machines are up again, and out of the schedule.
    Stop(MachineArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The machines.
    #[arg(value_name = "HOST|IP|HOST@IP", required = true, value_parser = machine)]
    pub(crate) machines: Vec<Machine>,
    /// From when on, counted from now: 90, 90s, 10m or 2h.
    #[arg(long = "in", value_name = "TIME", value_parser = time, default_value = "0")]
    pub(crate) start_in: Duration,
    /// For how long; until further notice when not given.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    #[command(flatten)]
    pub(crate) masters: Masters,
}

#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// The machines.
    #[arg(value_name = "HOST|IP|HOST@IP", required = true, value_parser = machine)]
    pub(crate) machines: Vec<Machine>,
    #[command(flatten)]
    pub(crate) masters: Masters,
}

/// A role and its weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weight {
    pub(crate) role: String,
    pub(crate) weight: f64,
}

/// Kinds of resources, and how much of each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Amounts(pub(crate) BTreeMap<String, f64>);

/// A machine by its host name, its address, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) hostname: Option<String>,
    pub(crate) ip: Option<String>,
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err("write a number and s, m, h or d, for example 10m".into()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    // Wall times are told in nanoseconds; this leaves room for the present one.
    let seconds = seconds.filter(|seconds| *seconds <= 100 * 365 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(|| "write at most 100 years, for example 10m".into())
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| number.is_finite())
}

fn weight(text: &str) -> Result<Weight, String> {
    let parts = text.rsplit_once('=').and_then(|(role, weight)| Some((role.trim(), number(weight)?)));
    match parts {
        Some((role, weight)) if !role.is_empty() => Ok(Weight { role: role.into(), weight }),
        _ => Err("write ROLE=WEIGHT, for example web=2.5".into()),
    }
}

fn amounts(text: &str) -> Result<Amounts, String> {
    let mut all = BTreeMap::new();
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        let amount = part.split_once(':').and_then(|(name, amount)| Some((name.trim(), number(amount)?)));
        let Some((name, amount)) = amount.filter(|(name, _)| !name.is_empty()) else {
            return Err("write amounts of scalar resources, for example cpus:4;mem:1024".into());
        };
        if all.insert(name.to_owned(), amount).is_some() {
            return Err(format!("{name} is named twice"));
        }
    }
    Ok(Amounts(all))
}

fn machine(text: &str) -> Result<Machine, String> {
    let is_ip = |text: &str| text.parse::<IpAddr>().is_ok();
    let some = |text: &str| Some(text.to_owned());
    match text.split_once('@') {
        Some((hostname, ip)) if !hostname.is_empty() && is_ip(ip) => {
            Ok(Machine { hostname: some(hostname), ip: some(ip) })
        }
        None if is_ip(text) => Ok(Machine { hostname: None, ip: some(text) }),
        None if !text.is_empty() => Ok(Machine { hostname: some(text), ip: None }),
        _ => Err("write a host name, an address, or both as HOST@IP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        let of = |seconds| Ok(Duration::from_secs(seconds));
        assert_eq!([time("90"), time("90s"), time("10m"), time("2h")], [of(90), of(90), of(600), of(7_200)]);
        for bad in ["", "m", "-1", "1w", "1.5h", "999999999999999999d", "18446744073709551616"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert_eq!(weight("a/b=2.5"), Ok(Weight { role: "a/b".into(), weight: 2.5 }));
        for bad in ["web", "=1", "web=", "web=x", "web=inf"] {
            assert!(weight(bad).is_err(), "{bad}");
        }
        let two = BTreeMap::from([("cpus".to_owned(), 0.5), ("mem".to_owned(), 64.0)]);
        assert_eq!(amounts("cpus:0.5; mem:64"), Ok(Amounts(two)));
        for bad in ["cpus", "cpus:", ":1", "cpus:x", "ports:[1-2]", "cpus:1;cpus:2"] {
            assert!(amounts(bad).is_err(), "{bad}");
        }
        let names = |text| machine(text).map(|it| (it.hostname, it.ip));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(names("h1"), Ok((some("h1"), None)));
        assert_eq!(names("10.0.0.1"), Ok((None, some("10.0.0.1"))));
        assert_eq!(names("h1@::1"), Ok((some("h1"), some("::1"))));
        for bad in ["", "@1.2.3.4", "h1@", "h1@h2"] {
            assert!(machine(bad).is_err(), "{bad}");
        }
    }
}

//! What the test does inside the members. Takes a binary with the feature `faults`, and `Plan::faults`.

use super::TestCluster;
use crate::fail_points::{FailPoint, ask};
use anyhow::Context;
use hyper::Method;
use std::net::SocketAddr;
use std::time::Duration;

/// Fail points, and time.
impl TestCluster {
    fn debug_address(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.process(name)?;
        let address = self.debug.get(name).copied();
        address.with_context(|| format!("{name} has no debug endpoint: ask for it with Plan::faults"))
    }

    /// The fail points of a member, in the order of what it does.
    pub async fn fail_points(&self, name: &str) -> anyhow::Result<Vec<FailPoint>> {
        let answer = ask(self.debug_address(name)?, Method::GET, "/fail-points", "").await?;
        serde_json::from_slice(&answer).context("the debug endpoint's answer cannot be understood")
    }

    /// Sets a fail point of a member that runs: `error`, `delay=50` (ms), `panic` or `crash`, and after a comma
    /// `chance=0.25`, `after=10`, `count=3`, `seed=7`. It stands until it is cleared or the member ends, of which it
    /// may end by itself from now on.
    pub async fn set_fail_point(&self, name: &str, point: &str, setting: &str) -> anyhow::Result<()> {
        let address = self.debug_address(name)?;
        self.process(name)?.may_end();
        self.is_set("fail-point", name, point, setting);
        let set = ask(address, Method::PUT, &format!("/fail-points/{point}"), setting).await;
        if set.is_err() {
            self.is_cleared(name, point);
        }
        set.map(drop)
    }

    /// Lets everybody pass a fail point of a member again.
    pub async fn clear_fail_point(&self, name: &str, point: &str) -> anyhow::Result<()> {
        let address = self.debug_address(name)?;
        ask(address, Method::DELETE, &format!("/fail-points/{point}"), "").await?;
        self.is_cleared(name, point);
        Ok(())
    }

    /// Lets registry time pass at once: what was to expire within this time does. For the leader, whose word on the
    /// time counts; at most an hour at a time.
    pub async fn advance_time(&self, by: Duration) -> anyhow::Result<()> {
        let leader = self.leader().await?;
        let ms = by.as_millis().to_string();
        let _recorded = self.fault("advance-time", [&*leader, &*ms]);
        ask(self.debug_address(&leader)?, Method::POST, "/time/advance", &ms).await.map(drop)
    }
}

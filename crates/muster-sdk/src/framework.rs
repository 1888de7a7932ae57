//! How a framework describes itself.

use muster_proto::mesos::framework_info::{Capability, capability::Type};
use muster_proto::{WireError, framework_info, mesos};
use prost::Message;
use std::time::Duration;

/// A framework's description.
#[derive(Debug, Clone)]
pub struct Framework(mesos::FrameworkInfo);

impl Framework {
    /// A framework of this name in role `*`, of the current user, that knows every task state.
    pub fn new(name: impl Into<String>) -> Self {
        let capability = |kind: Type| Capability { r#type: Some(kind.into()) };
        Self(mesos::FrameworkInfo {
            name: name.into(),
            user: std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default(),
            capabilities: vec![
                capability(Type::MultiRole),
                capability(Type::PartitionAware),
                capability(Type::TaskKillingState),
            ],
            ..Default::default()
        })
    }

    /// The user that tasks run as when they name none.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.0.user = user.into();
        self
    }

    /// Adds a role to be offered resources for.
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.0.roles.push(role.into());
        self
    }

    /// How long the framework may be gone before the masters end it and its tasks. Default: at once, but for
    /// the masters' own grace after a leader change.
    pub fn failover_timeout(mut self, timeout: Duration) -> Self {
        self.0.failover_timeout = Some(timeout.as_secs_f64());
        self
    }

    /// Where people look at it.
    pub fn webui_url(mut self, url: impl Into<String>) -> Self {
        self.0.webui_url = Some(url.into());
        self
    }

    /// A description as Mesos writes it.
    pub fn from_info(info: mesos::FrameworkInfo) -> Self {
        Self(info)
    }

    pub(crate) fn build(mut self) -> Result<muster_model::FrameworkInfo, WireError> {
        let multi_role = self.0.capabilities.iter().any(|c| c.r#type == Some(Type::MultiRole.into()));
        if multi_role && self.0.roles.is_empty() {
            self.0.roles.push("*".into());
        }
        framework_info(&self.0.encode_to_vec())
    }
}

//! Who acts, and what that role may do. Everything not granted is denied.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What someone may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read.
    #[default]
    Viewer,
    /// Read and call tools.
    Developer,
    /// Everything.
    Admin,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Principal {
    /// Who: a user, an API key, a program. Stands in the audit trail.
    pub id: String,
    /// What they may do.
    pub role: Role,
    /// The tenant whose services they see; `None` for all.
    pub tenant: Option<String>,
    /// Whether they act from outside the process: they then have no say in which
    /// commands it starts, unless `access.allow_stdio_registration` is set.
    #[serde(default)]
    pub remote: bool,
}

impl Principal {
    /// A principal who sees all tenants.
    pub fn new(id: impl Into<String>, role: Role) -> Self {
        Self { id: id.into(), role, tenant: None, remote: false }
    }

    /// The program that embeds the registry: may do everything.
    #[must_use]
    pub fn system() -> Self {
        Self::new("system", Role::Admin)
    }

    /// The same, who sees only the services of `tenant`.
    #[must_use]
    pub fn of_tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// The same, acting from outside the process.
    #[must_use]
    pub fn remote(mut self) -> Self {
        self.remote = true;
        self
    }

    /// # Errors
    /// [`Forbidden`](crate::ErrorKind::Forbidden) unless the role is at least `needed`.
    pub(crate) fn require(&self, needed: Role, what: &str) -> Result<()> {
        if self.role >= needed {
            return Ok(());
        }
        let (role, needed) = (word(self.role), word(needed));
        Err(Error::forbidden(format!("`{}` has the role {role}, and to {what} takes {needed}", self.id)))
    }

    /// Whether the services of `tenant` are visible.
    pub(crate) fn sees(&self, tenant: Option<&str>) -> bool {
        self.tenant.is_none() || self.tenant.as_deref() == tenant
    }
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Developer => "developer",
        Role::Admin => "admin",
    }
}

//! How a process stands to its store, and to those it shares it with.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::Revision;

/// How what readers see stands to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StoreStanding {
    /// The revision that readers see.
    pub revision: Revision,
    /// When the store last said that there is nothing newer.
    pub as_of: Timestamp,
    /// How long ago that is, in milliseconds.
    pub lag_ms: u64,
    /// Whether that is longer ago than `replicas.stale_after`: what is shown may be
    /// old, and what others change is not seen.
    pub stale: bool,
    /// What went wrong when the store was last asked, unless it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How the process stands to the others that share its store; none where it
    /// has the store to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica: Option<ReplicaStanding>,
}

/// How a process stands to those it shares its store with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReplicaStanding {
    /// Its id, made anew at each start.
    pub id: String,
    /// How many replicas there were when it last renewed its leases.
    pub replicas: u32,
    /// How many of the 256 shards it looks after now; none when it could not
    /// renew its leases.
    pub shards: u32,
    /// How many writes about the health of an instance the store refused, because
    /// another replica looks after it by now or because it is gone.
    pub refused_writes: u64,
}

//! Machina's domain: the registry of MCP servers, their health, the routing of
//! calls, and the traits that stores and connectors implement.
//!
//! This crate holds every rule and no I/O: no SQL, no HTTP, no MCP SDK. What
//! reaches the outside world comes in as a trait object: a [`Store`] keeps what
//! operators declared, a [`Connector`] opens [`Session`]s to instances.
//! [`Machina`] is the facade over all of it; adapters (REST, MCP, language
//! bindings) translate to it and decide nothing.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use machina_core::{Machina, Query, ServiceSpec};
//!
//! let machina = Machina::builder().open().await?;
//! machina.register(ServiceSpec::parse(r#"{"name": "time", "tags": ["clock"]}"#)?).await?;
//! assert!(machina.get("time").is_some());
//! assert_eq!(machina.find(&Query::from_pairs([("tag", "clock")])?)?.items.len(), 1);
//! machina.close().await;
//! # Ok::<(), machina_core::Error>(()) }).unwrap();
//! ```

mod access;
mod alerts;
mod builder;
mod catalog;
mod cell;
mod change_log;
mod clock;
mod config;
mod connect;
mod core;
mod delta;
mod egress;
mod error;
mod event;
mod followed;
mod health;
mod history;
pub mod json;
mod lease;
mod machina;
mod memory;
mod model;
mod native;
mod offered;
mod parameters;
mod query;
mod quiet;
mod random;
mod recorder;
mod replicas;
mod replies;
mod report;
mod rollup;
mod route;
mod scratch;
mod sessions;
mod shards;
mod standing;
mod statistics;
mod store;
mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod together;
mod tool_index;
mod view;
mod write;

pub use access::{
    CommandTemplate, Departed, Discovered, GroupReport, Hole, Measured, Principal, Reachable, Role, Scoped,
    TemplateArgument,
};
pub use alerts::{
    Alert, AlertChannel, AlertCounts, AlertMessage, AlertMessageKind, AlertRule, AlertsConfig, AlertsReport,
    ChannelError, ChannelReport, ChannelTest, Notifier, QuietHours, SlackTarget, SmtpTarget, SmtpTls, WebhookTarget,
    Weekday,
};
pub use builder::Builder;
pub use change_log::ChangeLog;
pub use clock::now;
pub use config::{AccessConfig, Config, JournalConfig, LimitsConfig};
pub use connect::{
    CallContext, Carried, Connector, Era, LOG_LEVEL, LogSink, Notice, Progress, ProgressSink, Session, Target,
};
pub use egress::{Barred, EgressConfig, Network, Reach};
pub use error::{Error, ErrorContext, ErrorKind, Outcome, Phase, Problem, Result};
pub use event::{Event, EventCursor, EventFeed, EventKind, EventStream, Next};
pub use health::{
    Evidence, Health, HealthState, Observation, ProbeOutcome, ProbePlan, Prober, Reason, ReasonCode, Status,
};
pub use history::{HealthSlot, HealthSlots};
pub use jiff::Timestamp;
pub use lease::{Heartbeat, Lease};
pub use machina::{Applied, Machina, Registry, Router, ToolPage, ToolQuery};
pub use memory::MemoryStore;
pub use model::{
    AccessLevel, AdminState, AlertLevel, AlertPolicy, BalancerKind, BuildPriority, BuildType, Canary, Definitions,
    Endpoint, Group, GroupMember, GroupName, GroupSpec, HealthConfig, HealthEndpoint, HealthLevel, HealthParameters,
    HealthPolicy, HttpEndpoint, Instance, InstanceId, OpenApiEndpoint, Origin, Pinning, RejectedTool, Revision,
    RoutingConfig, RoutingParameters, RoutingPolicy, Sensitive, SensitiveMap, Service, ServiceId, ServiceName,
    ServiceSpec, SessionParameters, SessionPolicy, SessionsConfig, StartPolicy, StdioEndpoint, Tag, TimeLimit, Tool,
    ToolCall, ToolHints, ToolMode, ToolName, ToolPattern, ToolPrefix, ToolResult, UrlEndpoint,
};
#[cfg(any(test, feature = "builtin"))]
pub use native::Builtin;
pub use native::{NativeFunction, NativeService, NativeTool, Place};
pub use offered::{OfferedTool, QuarantinedTool};
pub use query::{Order, Page, Query};
pub use quiet::quietly;
pub use replicas::{ReplicaStanding, ReplicasConfig, StoreStanding};
pub use replies::{
    Answer, Begun, Claim, Keep, MemoryReplies, Remembered, Replied, Replies, Reply, ReplyKey, ReplyProgress,
    RequestHash,
};
pub use report::{HealthReport, InstanceHealth, Overview, ServiceHealth, ServiceReport, ToolReport, WithheldTool};
pub use route::{
    Attempt, Balancer, BreakerState, CallKey, CallOptions, CallReport, Candidacy, Candidate, Decision, Explanation,
    Failure, LeastOutstanding, Locality, PeakEwma, RoundRobin, Standing, UpstreamRequest, WeightedRandom, decide,
};
pub use scratch::{Admission, MemoryScratch, Rate, Scratch, ScratchStanding};
pub use shards::{Held, Hints, Leases, ReplicaId, SHARDS, ShardLease, shard_of};
pub use statistics::{CallStatistics, DURATION_BOUNDS, InstanceStatistics, ServiceStatistics};
pub use store::{
    Backend, Batch, Change, Changes, Entry, EntryKind, Image, Journal, JournalPage, JournalQuery, Precondition,
    Retention, Seen, Store, What,
};
pub use tasks::{Attached, Tasks};
pub use tool_index::{Hit, LexicalIndex, ToolIndex};
pub use view::{InstanceView, ServiceView, View};
pub use write::Mutation;

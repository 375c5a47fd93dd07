//! What the end-to-end tests stand on: the fixture server that they injure, the
//! farm of many of them, the real `machina` binary, and a look at the processes of
//! this machine. Refuses to pretend: nothing here replaces a part of Machina.

mod binaries;
pub mod farm;
mod fixture;
mod flat;
pub mod fleet;
mod journal;
mod machina;
mod peers;
mod process;
mod registry;
#[cfg(feature = "simulation")]
pub mod simulation;
mod wait;

pub use binaries::{build_farm, farm_binary, fixture_binary, machina_binary, workspace_root};
pub use farm::Farm;
pub use fixture::Fixture;
pub use flat::FlatReport;
pub use journal::{JournalEntry, JournalEvent, JournalFile};
pub use machina::{Answer, MachinaProcess, ask};
pub use peers::{Peers, Ran, closing_line};
pub use process::{Process, wait_until_gone};
pub use registry::{call, changed, open, open_with, settled};
pub use wait::{fastest, wait_until};

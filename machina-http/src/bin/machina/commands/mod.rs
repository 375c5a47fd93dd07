//! One module for each kind of question: ask, then show.

pub(crate) mod admin;
pub(crate) mod alerts;
pub(crate) mod call;
pub(crate) mod config;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod groups;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod registry;
pub(crate) mod services;
pub(crate) mod store;
pub(crate) mod tools;

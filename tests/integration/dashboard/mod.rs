//! The dashboard: who gets in, what forms are believed, its pages over plain HTTP; and as people use it, in
//! a real browser.

mod addresses;
mod audit;
mod browser;
mod changes;
mod details;
mod flows_audit;
mod flows_changes;
mod flows_create;
mod flows_list;
mod flows_sessions;
mod flows_usage;
mod forms;
mod harness_itself;
mod injection;
mod list;
mod look;
mod outdated;
mod overview;
pub mod person;
mod session_store;
mod sessions;
mod visit;
mod world;

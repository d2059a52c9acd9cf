//! The dashboard: its pages over plain HTTP, and as people use it, in a real browser.

mod audit;
mod browser;
mod flows_audit;
mod flows_changes;
mod flows_create;
mod flows_list;
mod flows_sessions;
mod flows_usage;
mod harness_itself;
mod injection;
mod look;
mod visit;
mod world;

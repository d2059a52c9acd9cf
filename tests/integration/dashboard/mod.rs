//! The dashboard: its pages over plain HTTP, and as people use it, in a real browser.

mod audit;
mod browser;
mod changes;
mod forms;
mod harness_itself;
mod person;
mod session_store;
mod sessions;
mod visit;

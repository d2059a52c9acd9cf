//! The dashboard: who gets in, what forms are believed, its pages over plain HTTP; and as people use it, in
//! a real browser.

mod audit;
mod browser;
mod changes;
mod details;
mod forms;
mod harness_itself;
mod list;
mod overview;
mod person;
mod session_store;
mod sessions;
mod visit;

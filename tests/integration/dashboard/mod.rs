//! The dashboard: who gets in and what forms are believed, its pages over plain HTTP, and as people use
//! it, in a real browser.

mod audit;
mod browser;
mod details;
mod forms;
mod harness_itself;
mod person;
mod session_store;
mod sessions;
mod visit;

//! The dashboard as people use it, in a real browser, and as it answers whoever asks.

mod browser;
mod changes;
mod forms;
mod harness_itself;
mod person;
mod session_store;
mod sessions;

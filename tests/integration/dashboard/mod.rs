//! The dashboard as people use it, in a real browser.

mod browser;
mod flows_sessions;
mod harness_itself;
mod world;

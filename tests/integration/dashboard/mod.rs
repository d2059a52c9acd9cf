//! The dashboard as people use it, in a real browser.

mod browser;
mod harness_itself;

//! The dashboard as people use it, in a real browser, and as it answers whoever asks.

mod browser;
mod changes;
mod harness_itself;
mod person;

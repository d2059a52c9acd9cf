//! The dashboard: its pages over plain HTTP, and as people use it, in a real browser.

mod audit;
mod browser;
mod harness_itself;
mod visit;

//! The dashboard's pages.

mod audit;
mod visit;

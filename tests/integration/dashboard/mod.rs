//! The dashboard: who gets in, and what forms are believed.

mod list;
mod person;

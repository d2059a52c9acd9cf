//! The dashboard: who gets in, and what forms are believed.

mod forms;
mod overview;
mod person;
mod session_store;
mod sessions;

//! One integration binary: the real program on free ports, real services behind it, a real client
//! in front, raw sockets where bytes matter. `harness` starts and ends everything.

// Tests wait for real servers, whose clocks are not ours.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod admin;
mod admin_input;
mod admin_list;
mod bootstrap;
mod buckets;
mod bytes;
mod capacity;
mod cases;
mod commands;
mod confusion;
mod connections;
mod contract;
mod credentials;
mod docs;
mod durability;
mod edges;
mod events;
mod fairness;
mod first_steps;
mod harness;
mod identity;
mod interrupted;
mod limits;
mod lists;
mod outages;
mod overlap;
mod own_answers;
mod paths;
mod postgres;
mod postgres_tls;
mod preconditions;
mod privileges;
mod production;
mod races;
mod real_services;
mod reconcile;
mod redis_topologies;
mod routes;
mod secrecy;
mod shared_limits;
mod shutdown;
mod smuggling;
mod streaming;
mod tenants;
mod tls;
mod upstream_pool;
mod vault;
mod vault_login;
mod vault_move;
mod vault_outage;
mod verification;
mod websocket;

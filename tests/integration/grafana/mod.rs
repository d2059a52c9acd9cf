//! What Grafana is given: dashboards that are shaped as it publishes, provisioning that leads to them, and
//! queries that find something in a real Prometheus when Sidekey has been under a mixed load.

mod actors;
mod files;
mod load;
mod looks;
mod prometheus;
mod provisioning;
mod queries;
mod schema;
mod world;

//! The route table. The most specific match wins: first by host (exact, then the longest
//! wildcard, then any), then by the longest path of whole segments, then by method.
//!
//! A look-up costs one hash for each segment of the path, however many routes there are.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use rustc_hash::FxHashMap;

use super::target::Target;
use super::upstream::Upstream;
use crate::config::settings::{Auth, HostPattern, OnOutage};
use crate::key::{Scope, ScopeSet};
use crate::telemetry::metrics::RouteMetrics;

/// A route, ready for use.
#[derive(Debug)]
pub struct Route {
    pub name: String,
    pub upstream: Arc<Upstream>,
    pub auth: Auth,
    pub scopes: Vec<Scope>,
    pub required: ScopeSet,
    pub cost: u64,
    /// What happens to limits while Redis is away.
    pub on_outage: OnOutage,
    pub cors_preflight: bool,
    pub max_body_bytes: u64,
    pub metrics: RouteMetrics,
}

/// Routes with the same host and path.
#[derive(Debug, Default)]
struct Variants {
    by_method: Vec<(Vec<Method>, Arc<Route>)>,
    any_method: Option<Arc<Route>>,
}

impl Variants {
    /// HEAD goes where GET goes, unless a route names it: it is GET without the body.
    fn find(&self, method: &Method) -> Option<&Arc<Route>> {
        let named = |wanted: &Method| {
            let mut routes = self.by_method.iter();
            routes
                .find(|(methods, _)| methods.contains(wanted))
                .map(|(_, route)| route)
        };
        let found = named(method);
        let as_get = || {
            (*method == Method::HEAD)
                .then(|| named(&Method::GET))
                .flatten()
        };
        found.or_else(as_get).or(self.any_method.as_ref())
    }
}

/// Routes with the same host, by path.
#[derive(Debug, Default)]
struct Paths(FxHashMap<String, Variants>);

impl Paths {
    /// Walks from the whole path up to the root.
    fn find(&self, path: &str, method: &Method) -> Option<&Arc<Route>> {
        let mut prefix = path.strip_suffix('/').unwrap_or(path);
        loop {
            if let Some(route) = self
                .0
                .get(prefix)
                .and_then(|variants| variants.find(method))
            {
                return Some(route);
            }
            prefix = &prefix[..prefix.rfind('/')?];
        }
    }
}

/// Where one route stands.
pub struct Place {
    pub host: HostPattern,
    /// Without a slash at the end.
    pub path: String,
    pub methods: Vec<Method>,
}

/// All routes.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<String, Paths>,
    /// Longest first.
    suffixes: Vec<(String, Paths)>,
    any: Paths,
}

/// Two readings of one path lead to different routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn;

impl RouteTable {
    pub fn new(routes: impl IntoIterator<Item = (Place, Arc<Route>)>) -> Self {
        let mut table = RouteTable::default();
        for (place, route) in routes {
            let paths = match place.host {
                HostPattern::Any => &mut table.any,
                HostPattern::Exact(host) => table.exact.entry(host).or_default(),
                HostPattern::Suffix(suffix) => {
                    let known = table
                        .suffixes
                        .iter()
                        .position(|(other, _)| *other == suffix);
                    let at = known.unwrap_or_else(|| {
                        table.suffixes.push((suffix, Paths::default()));
                        table.suffixes.len() - 1
                    });
                    &mut table.suffixes[at].1
                }
            };
            let variants = paths.0.entry(place.path).or_default();
            if place.methods.is_empty() {
                variants.any_method = Some(route);
            } else {
                variants.by_method.push((place.methods, route));
            }
        }
        table
            .suffixes
            .sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table
    }

    /// The route of a request. `host` is the Host field as it came.
    pub fn find(
        &self,
        host: Option<&str>,
        target: &Target<'_>,
        method: &Method,
    ) -> Result<Option<&Arc<Route>>, Torn> {
        let found = self.find_path(host, &target.path, method);
        if let Some(other) = &target.lenient {
            let same = match (found, self.find_path(host, other, method)) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Err(Torn);
            }
        }
        Ok(found)
    }

    /// The route of a path, taken as it stands.
    pub fn find_path(
        &self,
        host: Option<&str>,
        path: &str,
        method: &Method,
    ) -> Option<&Arc<Route>> {
        if !self.exact.is_empty() || !self.suffixes.is_empty() {
            let host = host.map(host_name).unwrap_or_default();
            let suffixes = self
                .suffixes
                .iter()
                .filter(|(suffix, _)| host.len() > suffix.len() && host.ends_with(suffix.as_str()));
            let candidates = self
                .exact
                .get(&host)
                .into_iter()
                .chain(suffixes.map(|(_, paths)| paths));
            for paths in candidates {
                if let Some(route) = paths.find(path, method) {
                    return Some(route);
                }
            }
        }
        self.any.find(path, method)
    }
}

/// A Host field without port and final dot, in lower case.
fn host_name(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::target;
    use crate::telemetry::Metrics;

    fn table(rows: &[(&str, &str, &str, &str)]) -> RouteTable {
        let metrics = Metrics::new().unwrap();
        RouteTable::new(rows.iter().map(|(name, host, path, methods)| {
            let host = match *host {
                "" => HostPattern::Any,
                host if host.starts_with('*') => HostPattern::Suffix(host[1..].into()),
                host => HostPattern::Exact(host.into()),
            };
            let methods = methods
                .split_whitespace()
                .map(|m| m.parse().unwrap())
                .collect();
            let route = Route {
                name: (*name).into(),
                upstream: Arc::new(Upstream::empty()),
                auth: Auth::Required,
                scopes: vec![],
                required: ScopeSet::default(),
                cost: 1,
                on_outage: OnOutage::Local,
                cors_preflight: false,
                max_body_bytes: 0,
                metrics: metrics.route(name),
            };
            (
                Place {
                    host,
                    path: (*path).into(),
                    methods,
                },
                Arc::new(route),
            )
        }))
    }

    fn find<'t>(table: &'t RouteTable, request: &str) -> &'t str {
        let parts: Vec<&str> = request.split(' ').collect();
        let target = target::read(parts[2].as_bytes()).unwrap();
        let host = (parts[1] != "-").then_some(parts[1]);
        match table.find(host, &target, &parts[0].parse().unwrap()) {
            Ok(Some(route)) => &route.name,
            Ok(None) => "none",
            Err(Torn) => "torn",
        }
    }

    #[test]
    fn the_most_specific_route_wins() {
        let table = table(&[
            ("root", "", "", ""),
            ("orders", "", "/orders", ""),
            ("orders-write", "", "/orders", "POST PUT"),
            ("order-items", "", "/orders/items", ""),
            ("api", "api.example.com", "/v1", ""),
            ("wild", "*.example.com", "", ""),
            ("deep-wild", "*.eu.example.com", "", "GET"),
        ]);
        for (request, route) in [
            ("GET - /", "root"),
            ("GET x /other/thing", "root"),
            ("GET x /orders", "orders"),
            ("GET x /orders/", "orders"),
            ("GET x /orders/1/2", "orders"),
            ("GET x /ordersx", "root"),
            ("GET x /%6Frders/1", "orders"),
            ("POST x /orders/1", "orders-write"),
            ("HEAD a.eu.example.com /", "deep-wild"),
            ("POST x /orders/items/1", "order-items"),
            ("GET api.example.com /v1/x", "api"),
            ("GET API.Example.com.:8080 /v1/x", "api"),
            ("GET api.example.com /v2", "wild"),
            ("GET www.example.com /orders", "wild"),
            ("GET a.eu.example.com /", "deep-wild"),
            ("POST a.eu.example.com /", "wild"),
            ("GET example.com /", "root"),
            ("GET evil-example.com /orders", "orders"),
        ] {
            assert_eq!(find(&table, request), route, "{request}");
        }
    }

    #[test]
    fn no_route_no_passage() {
        let table = table(&[("orders", "", "/orders", "GET"), ("v6", "::1", "/six", "")]);
        for request in [
            "GET x /",
            "GET x /order",
            "POST x /orders",
            "GET x /orders-of-old",
        ] {
            assert_eq!(find(&table, request), "none", "{request}");
        }
        assert_eq!(find(&table, "GET [::1]:8080 /six"), "v6");
    }

    #[test]
    fn parameters_that_lead_elsewhere_are_refused() {
        let table = table(&[("public", "", "", ""), ("admin", "", "/admin", "")]);
        for path in [
            "/admin;x=1/users",
            "/admin%3fx",
            "/admin%23",
            "/admin./x",
            "/admin%20",
        ] {
            assert_eq!(find(&table, &format!("GET x {path}")), "torn", "{path}");
        }
        assert_eq!(find(&table, "GET x /admin/users;x=1"), "admin");
        assert_eq!(find(&table, "GET x /page;jsessionid=1"), "public");
    }
}

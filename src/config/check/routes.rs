//! `[[scopes]]` and `[[routes]]`.

use http::Method;

use super::Checker;
use super::limits::ON_OUTAGE;
use crate::config::raw::{self, Raw};
use crate::config::{parse, settings::*};
use crate::key::scope::{CATALOGUE_LEN_MAX, OWN_NAMESPACE};
use crate::key::{Catalogue, Scope};

/// The scopes of the catalogue with their descriptions.
pub(super) fn described(raw: &[raw::ScopeEntry], catalogue: &Catalogue) -> Vec<DescribedScope> {
    let describe = |scope: &Scope| DescribedScope {
        scope: scope.clone(),
        description: raw
            .iter()
            .find(|entry| entry.name == scope.as_str())
            .map(|entry| entry.description.clone())
            .unwrap_or_default(),
    };
    catalogue.scopes().iter().map(describe).collect()
}

impl Checker<'_> {
    pub(super) fn catalogue(&mut self, raw: &[raw::ScopeEntry]) -> Catalogue {
        self.unique("scopes", raw.iter().map(|entry| entry.name.as_str()));
        if raw.len() > CATALOGUE_LEN_MAX {
            self.report(
                "scopes",
                format!("has {} entries; at most {CATALOGUE_LEN_MAX} fit", raw.len()),
            );
        }
        let mut scopes: Vec<Scope> = Vec::new();
        for (i, entry) in raw.iter().enumerate() {
            let path = format!("scopes[{i}].name");
            match entry.name.parse::<Scope>() {
                Ok(_) if entry.name.starts_with(OWN_NAMESPACE) => {
                    self.report(
                        path,
                        format!(
                            "\"{}\": names with {OWN_NAMESPACE} are Sidekey's own",
                            entry.name
                        ),
                    );
                }
                Ok(scope) if !scopes.contains(&scope) => scopes.push(scope),
                Ok(_) => {}
                Err(error) => self.report(path, format!("\"{}\" {error}", entry.name)),
            }
        }
        Catalogue::new(scopes)
    }

    pub(super) fn routes(
        &mut self,
        raw: &Raw,
        catalogue: &Catalogue,
        limits: Option<&LimitSettings>,
    ) -> Option<Vec<RouteSettings>> {
        if raw.routes.is_empty() {
            self.report(
                "routes",
                "is empty; without a route every request is answered 404",
            );
        }
        self.unique("routes", raw.routes.iter().map(|route| route.name.as_str()));
        let checked: Vec<Option<RouteSettings>> = (raw.routes.iter().enumerate())
            .map(|(i, route)| self.route(i, route, raw, catalogue, limits))
            .collect();
        self.overlaps(&checked);
        checked.into_iter().collect()
    }

    pub(super) fn route(
        &mut self,
        index: usize,
        route: &raw::Route,
        raw: &Raw,
        catalogue: &Catalogue,
        limits: Option<&LimitSettings>,
    ) -> Option<RouteSettings> {
        let at = |field: &str| format!("routes[{index}].{field}");
        self.name(&at("name"), &route.name);
        let host = match parse::host(route.host.as_deref()) {
            Ok(host) => Some(host),
            Err(detail) => {
                self.report(at("host"), detail);
                None
            }
        };
        let path = match parse::path(&route.path) {
            Ok(path) => Some(path),
            Err(detail) => {
                self.report(at("path"), detail);
                None
            }
        };
        let mut methods = Vec::new();
        for (i, text) in route.methods.0.iter().enumerate() {
            match Method::from_bytes(text.as_bytes()) {
                Ok(method) if !text.bytes().any(|b| b.is_ascii_lowercase()) => methods.push(method),
                _ => self.report(
                    format!("routes[{index}].methods[{i}]"),
                    format!("\"{text}\" is not a method in capital letters such as GET"),
                ),
            }
        }
        let upstream = raw
            .upstreams
            .iter()
            .position(|upstream| upstream.name == route.upstream);
        if upstream.is_none() {
            let detail = if route.upstream.is_empty() {
                "is missing; name one of [[upstreams]]".to_owned()
            } else {
                format!(
                    "there is no [[upstreams]] entry named \"{}\"",
                    route.upstream
                )
            };
            self.report(at("upstream"), detail);
        }
        let auth = self.choice(
            &at("auth"),
            &route.auth,
            &[
                ("required", Auth::Required),
                ("optional", Auth::Optional),
                ("off", Auth::Off),
            ],
        );
        let scopes = self.route_scopes(index, route, catalogue);
        if auth == Some(Auth::Optional) && !route.scopes.0.is_empty() {
            self.report(
                at("scopes"),
                "can't be asked for where auth is \"optional\": whoever leaves the key out would need none",
            );
        }
        if auth == Some(Auth::Off) && !route.scopes.0.is_empty() {
            self.report(at("scopes"), "can't be asked for where auth is \"off\"");
        }
        self.cost(&at("cost"), route.cost, auth, limits);
        let on_outage = match &route.on_outage {
            Some(text) => Some(self.choice(&at("on_outage"), text, &ON_OUTAGE)?),
            None => None,
        };
        Some(RouteSettings {
            name: route.name.clone(),
            host: host?,
            path: path?,
            methods,
            upstream: upstream?,
            auth: auth?,
            scopes: scopes?,
            cost: route.cost,
            on_outage,
            cors_preflight: route.cors_preflight,
            max_body_bytes: route.max_body_bytes.unwrap_or(raw.proxy.max_body_bytes),
        })
    }

    pub(super) fn route_scopes(
        &mut self,
        index: usize,
        route: &raw::Route,
        catalogue: &Catalogue,
    ) -> Option<Vec<Scope>> {
        let found_before = self.problems.len();
        let mut scopes = Vec::new();
        for (i, text) in route.scopes.0.iter().enumerate() {
            let path = format!("routes[{index}].scopes[{i}]");
            match text.parse::<Scope>() {
                Ok(scope) if catalogue.require(std::slice::from_ref(&scope)).is_ok() => {
                    scopes.push(scope)
                }
                Ok(_) => self.report(
                    path,
                    format!("there is no [[scopes]] entry named \"{text}\""),
                ),
                Err(error) => self.report(path, format!("\"{text}\" {error}")),
            }
        }
        (self.problems.len() == found_before).then_some(scopes)
    }

    /// A request that costs more than a bucket holds could never pass.
    pub(super) fn cost(
        &mut self,
        path: &str,
        cost: u64,
        auth: Option<Auth>,
        limits: Option<&LimitSettings>,
    ) {
        if cost > crate::key::policy::TOKENS_MAX {
            self.report(
                path,
                format!(
                    "is {cost}; it must be 0 to {}",
                    crate::key::policy::TOKENS_MAX
                ),
            );
        }
        let Some(limits) = limits else { return };
        let anonymous: &[_] = if auth == Some(Auth::Optional) {
            &limits.anonymous
        } else {
            &[]
        };
        let default: &[_] = if auth == Some(Auth::Off) {
            &[]
        } else {
            &limits.default
        };
        for (list, policies) in [("limits.default", default), ("limits.anonymous", anonymous)] {
            for policy in policies.iter().filter(|policy| policy.burst() < cost) {
                self.report(
                    path,
                    format!(
                        "is {cost}, but a bucket of \"{}\" in {list} holds {} tokens, so no request could pass; \
                         raise its burst or lower the cost",
                        policy.name,
                        policy.burst()
                    ),
                );
            }
        }
    }

    /// Two routes that are equally specific for the same request.
    pub(super) fn overlaps(&mut self, routes: &[Option<RouteSettings>]) {
        for (later, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            let clash = routes[..later].iter().position(|other| {
                other.as_ref().is_some_and(|other| {
                    other.host == route.host
                        && other.path == route.path
                        && other.methods.is_empty() == route.methods.is_empty()
                        && (route.methods.is_empty()
                            || route
                                .methods
                                .iter()
                                .any(|method| other.methods.contains(method)))
                })
            });
            if let Some(earlier) = clash {
                self.report(
                    format!("routes[{later}]"),
                    format!(
                        "overlaps with routes[{earlier}]: same host, path and method, so neither is more specific; \
                         change or remove one"
                    ),
                );
            }
        }
    }
}

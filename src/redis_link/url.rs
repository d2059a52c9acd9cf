//! `redis.url` -> where Redis is. An error says what is wrong and what to write instead; it never
//! quotes the URL, which may hold a password.

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

const SERVER_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// Hosts that a URL may name.
const HOSTS_MAX: usize = 100;
const HOST_LEN_MAX: usize = 253;
const MASTER_LEN_MAX: usize = 256;
const DATABASE_MAX: u32 = 1_000_000;

/// What a URL says.
#[derive(Debug, Clone)]
pub struct Url {
    pub topology: Topology,
    pub tls: bool,
    pub login: Option<Login>,
    pub database: u32,
}

/// How the servers are arranged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single(Address),
    /// Sentinels, who know which server is the master of this name.
    Sentinel {
        sentinels: Vec<Address>,
        master: String,
    },
    /// Some of a cluster's servers, who know the others.
    Cluster(Vec<Address>),
}

/// A server's host name or address, without brackets, and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

/// A password, and the user that it belongs to where that is not the default one.
#[derive(Debug, Clone)]
pub struct Login {
    pub user: Option<String>,
    pub password: SecretString,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads a URL.
pub fn parse(text: &str) -> Result<Url, String> {
    const SCHEMES: &str = "must start with redis://, redis-sentinel:// or redis-cluster://, \
                           or with rediss instead of redis for TLS";
    let (scheme, rest) = text.split_once("://").ok_or(SCHEMES)?;
    let (family, tls) = match scheme.strip_prefix("rediss") {
        Some(family) => (family, true),
        None => (scheme.strip_prefix("redis").ok_or(SCHEMES)?, false),
    };
    if rest.contains(['?', '#']) {
        return Err(
            "may not have a query or fragment; in a password, write ? as %3F and # as %23"
                .to_owned(),
        );
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((text, hosts)) => (Some(login(text)?), hosts),
        None => (None, authority),
    };
    let (topology, database) = match family {
        "" => {
            let mut hosts = addresses(hosts, SERVER_PORT)?;
            if hosts.len() > 1 {
                return Err(
                    "names several hosts; for those write redis-sentinel:// or redis-cluster://"
                        .to_owned(),
                );
            }
            (Topology::Single(hosts.remove(0)), path)
        }
        "-sentinel" => {
            let sentinels = addresses(hosts, SENTINEL_PORT)?;
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            let master = decoded(master, "the master's name")?;
            if master.is_empty() || master.len() > MASTER_LEN_MAX {
                return Err(
                    "must name the master behind the sentinels: redis-sentinel://HOST,HOST/MASTER"
                        .to_owned(),
                );
            }
            (Topology::Sentinel { sentinels, master }, database)
        }
        "-cluster" if !path.is_empty() => {
            return Err(
                "may not have a path: a cluster has database 0 only (in a password, write / as %2F)"
                    .to_owned(),
            );
        }
        "-cluster" => (Topology::Cluster(addresses(hosts, SERVER_PORT)?), ""),
        _ => return Err(SCHEMES.to_owned()),
    };
    Ok(Url {
        topology,
        tls,
        login,
        database: number(database)?,
    })
}

fn login(text: &str) -> Result<Login, String> {
    let Some((user, password)) = text.split_once(':') else {
        return Err(
            "has a user without a password; write USER:PASSWORD@, or :PASSWORD@ for the default user"
                .to_owned(),
        );
    };
    let user = decoded(user, "the user")?;
    Ok(Login {
        user: (!user.is_empty()).then_some(user),
        password: SecretString::from(decoded(password, "the password")?),
    })
}

fn decoded(text: &str, what: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    let text = text.map_err(|_| format!("has bytes in {what} that are not UTF-8"))?;
    Ok(text.into_owned())
}

fn number(database: &str) -> Result<u32, String> {
    if database.is_empty() {
        return Ok(0);
    }
    let number = database.parse().ok();
    number
        .filter(|number| *number <= DATABASE_MAX)
        .ok_or_else(|| {
            "must end with the database's number, or without a path (in a password, write / as %2F)"
                .to_owned()
        })
}

fn addresses(hosts: &str, default_port: u16) -> Result<Vec<Address>, String> {
    let addresses: Result<Vec<Address>, String> = hosts
        .split(',')
        .map(|text| address(text, default_port))
        .collect();
    let addresses = addresses?;
    if addresses.len() > HOSTS_MAX {
        return Err(format!(
            "names {} hosts; at most {HOSTS_MAX} fit",
            addresses.len()
        ));
    }
    Ok(addresses)
}

/// `HOST`, `HOST:PORT`, `[ADDRESS]`, `[ADDRESS]:PORT`.
pub(super) fn address(text: &str, default_port: u16) -> Result<Address, String> {
    let wrong = || {
        "must name its hosts as HOST:PORT, separated by commas \
         (in a password, write @ as %40, / as %2F and : as %3A)"
            .to_owned()
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or_else(wrong)?),
        };
        (host, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_host = host.contains(':') || host.bytes().all(is_name);
    if host.is_empty() || host.len() > HOST_LEN_MAX || !is_host {
        return Err(wrong());
    }
    let port = match port {
        None => default_port,
        Some(text) => text.parse().ok().filter(|p| *p > 0).ok_or_else(wrong)?,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.to_owned(),
            port,
        }
    }

    #[test]
    fn each_topology_has_its_form() {
        let url = parse("redis://127.0.0.1").unwrap();
        assert_eq!(url.topology, Topology::Single(at("127.0.0.1", 6379)));
        assert!(!url.tls && url.login.is_none() && url.database == 0);
        let url = parse("rediss://sidekey:p%40s%2Fs:@[::1]:7000/3").unwrap();
        assert_eq!(url.topology, Topology::Single(at("::1", 7000)));
        assert!(url.tls && url.database == 3);
        let login = url.login.unwrap();
        assert_eq!(login.user.as_deref(), Some("sidekey"));
        assert_eq!(login.password.expose_secret(), "p@s/s:");
        let url = parse("redis-sentinel://:secret@one,two:7001/mymaster/2").unwrap();
        let sentinels = vec![at("one", 26379), at("two", 7001)];
        let master = "mymaster".to_owned();
        assert_eq!(url.topology, Topology::Sentinel { sentinels, master });
        assert!(url.database == 2 && url.login.unwrap().user.is_none());
        let url = parse("rediss-cluster://a:7000,b:7001,c/").unwrap();
        let servers = vec![at("a", 7000), at("b", 7001), at("c", 6379)];
        assert_eq!(url.topology, Topology::Cluster(servers));
        assert!(url.tls);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for wrong in [
            "http://secret@host",
            "secret",
            "redisx://:secret@host",
            "redis-other://:secret@host",
            "redis://:secret@",
            "redis://:secret@a,b",
            "redis://secret@host",
            "redis://:se/cret@host",
            "redis://:secret@host:0",
            "redis://:secret@host:secret",
            "redis://:secret@[::1",
            "redis://:secret@[secret]",
            "redis://:secret@host/x",
            "redis://:secret@host?protocol=resp3",
            "rediss://:secret@host#insecure",
            "redis-sentinel://:secret@host",
            "redis-sentinel://:secret@host/",
            "redis-sentinel://:secret@host/master/x",
            "redis-cluster://:secret@host/1",
            "redis-cluster://:secret@host,,host",
            "redis://:%ff@host",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(!error.contains("secret"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_url_is_not_printed_with_its_password() {
        let url = parse("redis://sidekey:secret@host").unwrap();
        assert!(!format!("{url:?}").contains("secret"));
    }
}

//! The baseline: a Pingora proxy that does nothing but forward.
//!
//! It is part of the bench executable, which starts itself again with `--role bare`. So it is
//! compiled with the profile and the allocator of the gateway it is compared with. It must stay
//! what a newcomer to Pingora would write first: only `upstream_peer`, everything else as
//! Pingora has it, its defaults included (a keep-alive pool of 128 upstream connections, and a
//! compression module that is present and switched off).

use std::net::SocketAddr;

use async_trait::async_trait;
use pingora_core::modules::http::HttpModules;
use pingora_core::modules::http::compression::ResponseCompressionBuilder;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// What the command line of `--role bare` says.
pub struct BareArguments {
    /// Where to accept clients.
    pub listen: SocketAddr,
    /// The one upstream, resolved.
    pub upstream: SocketAddr,
    /// Worker threads of the proxy service.
    pub threads: usize,
    /// Leaves Pingora's default downstream modules out. The comparison with the gateway keeps
    /// them; the case `lean` shows what they cost.
    pub lean: bool,
}

impl BareArguments {
    /// Reads `--listen A --upstream A --threads N [--lean]`, as [`Self::to_command_line`] writes it.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let value_of = |flag: &str| {
            arguments
                .iter()
                .position(|argument| argument == flag)
                .and_then(|at| arguments.get(at + 1))
                .ok_or_else(|| format!("--role bare needs {flag} with a value"))
        };
        let address_of = |flag: &str| {
            let text = value_of(flag)?;
            text.parse::<SocketAddr>()
                .map_err(|_| format!("{flag} {text} is not an address and port"))
        };
        Ok(Self {
            listen: address_of("--listen")?,
            upstream: address_of("--upstream")?,
            threads: value_of("--threads")?
                .parse()
                .map_err(|_| "--threads needs a whole number".to_owned())?,
            lean: arguments.iter().any(|argument| argument == "--lean"),
        })
    }

    /// The arguments that make this executable such a proxy.
    pub fn to_command_line(&self) -> Vec<String> {
        let mut line: Vec<String> = [
            "--role".to_owned(),
            "bare".to_owned(),
            "--listen".to_owned(),
            self.listen.to_string(),
            "--upstream".to_owned(),
            self.upstream.to_string(),
            "--threads".to_owned(),
            self.threads.to_string(),
        ]
        .into();
        if self.lean {
            line.push("--lean".to_owned());
        }
        line
    }
}

/// Serves until it is killed.
pub fn run(arguments: &BareArguments) -> ! {
    let conf = ServerConf {
        threads: arguments.threads,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = BareProxy {
        upstream: arguments.upstream,
        lean: arguments.lean,
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&arguments.listen.to_string());
    server.add_service(service);
    server.run_forever()
}

struct BareProxy {
    upstream: SocketAddr,
    lean: bool,
}

#[async_trait]
impl ProxyHttp for BareProxy {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    /// Pingora's own default, unless the lean variant was asked for.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        if !self.lean {
            modules.add_module(ResponseCompressionBuilder::enable(0));
        }
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut Self::CTX,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

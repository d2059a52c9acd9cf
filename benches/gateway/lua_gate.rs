//! The other way to build such a gate: nginx with Lua that looks the key up in shared memory and asks
//! a token bucket in Redis once for each request.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use crate::process::{Cpus, Programs, Running, on_cpus, start_on_free_port};
use crate::redis::Redis;

/// Where Debian keeps nginx's modules.
const MODULES: &str = "/usr/lib/nginx/modules";

/// One bucket, by the server's clock: a float level and the time of its last use.
const BUCKET: &str = r"
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local stored = redis.call('HMGET', KEYS[1], 'level', 'at')
local level = tonumber(stored[1]) or burst
level = math.min(burst, level + (now - (tonumber(stored[2]) or now)) * rate)
local passed = level >= 1
if passed then level = level - 1 end
redis.call('HSET', KEYS[1], 'level', tostring(level), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(burst / rate) + 1)
return { passed and 1 or 0, math.floor(level) }
";

/// Starts the gate in front of `upstream`, on the proxy's CPU. It knows one key.
pub fn start(
    programs: &Programs,
    cpus: &Cpus,
    folder: &Path,
    upstream: SocketAddr,
    redis: &Redis,
    key: &str,
) -> Result<(Running, SocketAddr), String> {
    let digest = redis.load_script(BUCKET)?;
    start_on_free_port(|address| {
        let config = folder.join("gate.conf");
        let text = config_text(folder, address, upstream, redis.address, &digest, key);
        fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
        let mut command = on_cpus(programs, &cpus.proxy, &programs.nginx);
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdout(Stdio::null());
        Running::start("nginx with Lua", command, folder.join("gate.log"))
    })
}

fn config_text(
    folder: &Path,
    address: SocketAddr,
    upstream: SocketAddr,
    redis: SocketAddr,
    digest: &str,
    key: &str,
) -> String {
    let folder = folder.display();
    let (redis_host, redis_port) = (redis.ip(), redis.port());
    format!(
        r#"load_module {MODULES}/ndk_http_module.so;
load_module {MODULES}/ngx_http_lua_module.so;
daemon off;
master_process off;
worker_processes 1;
pid "{folder}/gate.pid";
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_body_temp_path "{folder}/gate-body";
    proxy_temp_path "{folder}/gate-proxy";
    fastcgi_temp_path "{folder}/gate-fastcgi";
    uwsgi_temp_path "{folder}/gate-uwsgi";
    scgi_temp_path "{folder}/gate-scgi";
    lua_shared_dict keys 1m;
    init_by_lua_block {{
        ngx.shared.keys:set("{key}", "tenant-0 1000000 1000000")
    }}
    upstream service {{
        server {upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address};
        location / {{
            access_by_lua_block {{
                local header = ngx.var.http_authorization
                local key = header and string.match(header, "^Bearer (.+)$")
                local known = key and ngx.shared.keys:get(key)
                if not known then return ngx.exit(401) end
                local tenant, rate, burst = string.match(known, "^(%S+) (%S+) (%S+)$")
                local redis = require("nginx.redis"):new()
                redis:set_timeouts(1000, 50, 50)
                local connected = redis:connect("{redis_host}", {redis_port})
                if not connected then return ngx.exit(503) end
                local answer = redis:evalsha("{digest}", 1, "bucket:" .. tenant, rate, burst)
                redis:set_keepalive(60000, 512)
                if not answer then return ngx.exit(503) end
                if answer[1] ~= 1 then return ngx.exit(429) end
                ngx.req.set_header("X-Tenant-Id", tenant)
                ngx.req.clear_header("Authorization")
                ngx.header["RateLimit-Policy"] = '"default";q=' .. rate .. ';w=1'
                ngx.header["RateLimit"] = '"default";r=' .. answer[2] .. ';t=1'
            }}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_pass http://service;
        }}
    }}
}}
"#
    )
}

//! The upstream: nginx with one worker that answers from memory, so that a proxy in front of it
//! is what a measurement is about.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Programs, Running, start_on_free_port};

/// Starts nginx in `folder` on a free port.
pub fn start(programs: &Programs, folder: &Path) -> Result<(Running, SocketAddr), String> {
    start_on_free_port(|address| {
        let config = folder.join("nginx.conf");
        fs::write(&config, config_text(folder, address))
            .map_err(|error| format!("{}: {error}", config.display()))?;
        let mut command = Command::new(&programs.nginx);
        command
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&config)
            .args(["-e", "stderr"])
            .stdout(Stdio::null());
        Running::start("nginx", command, folder.join("nginx.log"))
    })
}

/// One process (no master), no access log, connections that are never closed for their age.
fn config_text(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        r#"daemon off;
master_process off;
worker_processes 1;
pid "{folder}/nginx.pid";
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_body_temp_path "{folder}/body";
    proxy_temp_path "{folder}/proxy";
    fastcgi_temp_path "{folder}/fastcgi";
    uwsgi_temp_path "{folder}/uwsgi";
    scgi_temp_path "{folder}/scgi";
    server {{
        listen {address};
        location / {{
            default_type application/json;
            return 200 '{{"orders":[{{"id":17,"state":"paid"}}]}}';
        }}
    }}
}}
"#
    )
}

//! `redis-tp cli`: redis-cli with the right port, and the password where only root can see it.

use anyhow::Result;

use super::scene::Scene;
use crate::cli;
use crate::exit::{Code, Fault};
use crate::host::Host;

/// Becomes redis-cli.
///
/// # Errors
/// No such instance, or no redis-cli.
pub fn run(host: &Host, args: &cli::RedisCli) -> Result<Code> {
    let scene = Scene::standing(host)?;
    let instance = match args.port {
        None => scene.pick(args.name.as_ref())?,
        Some(port) => scene.instances.iter().find(|instance| instance.port == port).ok_or_else(|| {
            Fault::usage(format!("no instance has port {port}")).hint("see them:\nredis-tp status")
        })?,
    };
    let program = instance.engine.cli();
    let path = host.which(program).ok_or_else(|| {
        Fault::refused(format!("{program} is not on this machine"))
            .hint(format!("install it:\napt-get install {}", instance.engine.tools_package()))
    })?;
    let address = instance.address();
    // -e: an error reply is an exit status other than 0, which redis-cli forgets by itself.
    let mut words = vec!["-h".into(), address.host, "-p".into(), address.port.to_string()];
    if !args.args.is_empty() {
        words.push("-e".into());
    }
    words.extend(args.args.iter().cloned());
    Err(host.exec(&path, &words, instance.requirepass.as_ref().map(|password| ("REDISCLI_AUTH", password))))
}

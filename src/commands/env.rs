//! `redis-tp env`: exports for a shell or a CI job. It prints the password, because that is asked for.

use anyhow::Result;
use serde::Serialize;

use super::scene::Scene;
use super::shell_word;
use crate::cli;
use crate::engine::Engine;
use crate::exit::Code;
use crate::host::Host;
use crate::http::percent;
use crate::instance::Instance;
use crate::report::console;
use crate::software::{self, Tool};
use crate::tls::Tls;

#[derive(Debug, Serialize)]
struct Json {
    schema: u32,
    instance: String,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'static str>,
    password: Option<String>,
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
}

/// Prints the exports of one instance.
///
/// # Errors
/// There is no such instance.
pub fn run(host: &Host, args: &cli::Env) -> Result<Code> {
    let scene = Scene::standing(host)?;
    let instance = scene.pick(args.name.as_ref())?;
    let user = scene.admin(instance);
    let (address, url) = (instance.address(), url(instance, user));
    let password = instance.requirepass.as_ref().map(|password| password.expose().to_owned());
    if args.json {
        let name = instance.name.to_string();
        console::json(&Json {
            schema: 1,
            instance: name,
            host: address.host,
            port: address.port,
            user,
            password,
            url,
            tls: address.tls,
        })?;
        return Ok(Code::Done);
    }
    let mut exports = vec![("REDIS_HOST", address.host), ("REDIS_PORT", address.port.to_string())];
    exports.extend(user.map(|user| ("REDIS_USER", user.to_owned())));
    if let Some(password) = password {
        exports.push(("REDIS_PASSWORD", password.clone()));
        exports.push(("REDISCLI_AUTH", password));
    }
    exports.push(("REDIS_URL", url));
    if let Some(Tls { ca, cert, key }) = address.tls {
        let files = [("REDIS_TLS_CA", ca), ("REDIS_TLS_CERT", cert), ("REDIS_TLS_KEY", key)];
        exports.extend(files.map(|(name, path)| (name, path.display().to_string())));
    }
    for (name, value) in exports {
        console::out(format_args!("export {name}={}", shell_word(&value)));
    }
    programs(host, instance.engine).into_iter().for_each(console::out);
    Ok(Code::Done)
}

/// Exports that let a shell find the engine's programs where they were unpacked; nothing where the system
/// has them.
pub fn programs(host: &Host, engine: Engine) -> Vec<String> {
    let Some(Tool { path, libraries: Some(libraries) }) = software::find(host, engine, engine.cli()) else {
        return Vec::new();
    };
    let dir = path.parent().unwrap_or(&path).to_string_lossy().into_owned();
    vec![
        format!("export PATH={}:\"$PATH\"", shell_word(&dir)),
        format!("export {}={}", software::LIBRARIES, shell_word(&libraries.to_string_lossy())),
    ]
}

/// `redis://USER:PASSWORD@HOST:PORT`, or `rediss:` where TLS is spoken.
fn url(instance: &Instance, user: Option<&str>) -> String {
    let user = user.unwrap_or_default();
    let password =
        instance.requirepass.as_ref().map(|password| format!("{user}:{}@", percent(password.expose())));
    let scheme = if instance.tls.is_some() { "rediss" } else { "redis" };
    format!("{scheme}://{}{}", password.unwrap_or_default(), instance.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_any_byte_fits_into_a_url() {
        assert_eq!(percent("a@b/c:é"), "a%40b%2Fc%3A%C3%A9");
    }
}

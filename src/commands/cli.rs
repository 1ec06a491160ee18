//! `redis-tp cli`: redis-cli with the right port, and the password where only root can see it.

use anyhow::Result;

use super::scene::Scene;
use crate::cli::{self, User};
use crate::engine::Version;
use crate::exit::{Code, Fault};
use crate::facts::holder;
use crate::host::Host;
use crate::instance::Instance;
use crate::runtime::{Program, Runtime};
use crate::secret::Secret;
use crate::secrets;
use crate::software::{self, Tool};
use crate::tls::Tls;

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
    let login = login(&scene, instance, args.user)?;
    let program = instance.engine.cli();
    let found = software::find(host, instance.engine, program);
    if let (None, Runtime::Container(engine)) = (&found, instance.runtime) {
        return inside(host, engine, instance, &login, strict(&scene, args));
    }
    let tool = found.ok_or_else(|| {
        Fault::refused(format!("{program} is not on this machine"))
            .hint(format!("install it:\napt-get install {}", instance.engine.tools_package()))
    })?;
    let address = instance.address();
    if let Some(uid) = login.password.and_then(|_| holder::stranger(host, &address)) {
        return Err(Fault::refused(format!("{address} is held by user {uid}, who is not told the password"))
            .hint(format!("see who that is, and end it:\nss -ltnp 'sport = :{}'", address.port))
            .into());
    }
    let mut words = vec!["-h".into(), address.host, "-p".into(), address.port.to_string()];
    words.extend(address.tls.iter().flat_map(Tls::cli_words));
    words.extend(login.words());
    words.extend(strict(&scene, args));
    Err(host.exec(&tool, &words, login.password.map(|password| ("REDISCLI_AUTH", password))))
}

/// As whom redis-cli logs in.
struct As<'a> {
    user: Option<&'static str>,
    password: Option<&'a Secret>,
}

impl As<'_> {
    /// The flag for the user, where one is named.
    fn words(&self) -> impl Iterator<Item = String> {
        self.user.map(|user| ["--user".to_owned(), user.to_owned()]).into_iter().flatten()
    }
}

/// The user that was asked for, with its password; the one that may do everything, where there is one.
fn login<'a>(scene: &'a Scene, instance: &'a Instance, user: Option<User>) -> Result<As<'a>, Fault> {
    let admin = scene.admin(instance);
    let password = instance.requirepass.as_ref();
    let name = match (user, admin) {
        (None, user) => return Ok(As { user, password }),
        (Some(user), None) => {
            let what = format!("{} has no users, and so no {}", instance.name, user.name());
            return Err(Fault::refused(what).hint("see who is let in:\nredis-tp cli -- ACL LIST"));
        }
        (Some(user), Some(_)) => user.name(),
    };
    let of_users = scene.secrets.users.as_ref();
    let password = match user {
        Some(User::Replica) => of_users.map(|of_users| &of_users.replica),
        Some(User::App) => of_users.and_then(|of_users| of_users.app.as_ref()),
        _ => password,
    };
    let fresh = scene.secrets.fresh.contains_key(&secrets::user_file(name));
    match password.filter(|_| !fresh) {
        Some(password) => Ok(As { user: Some(name), password: Some(password) }),
        None => {
            Err(Fault::refused(format!("no password of {name} is here")).hint("make it:\nredis-tp apply"))
        }
    }
}

/// The user's words behind `-e`: an error reply is an exit status other than 0, which redis-cli forgets by
/// itself, and before 7.0 in any case.
fn strict(scene: &Scene, args: &cli::RedisCli) -> Vec<String> {
    let knows = scene.facts.server.as_ref().is_none_or(|server| server.version >= Version::new(7, 0));
    let strict = (knows && !args.args.is_empty()).then(|| "-e".to_owned());
    strict.into_iter().chain(args.args.iter().cloned()).collect()
}

/// Becomes the image's own client, where this machine has none. The password goes through the environment
/// of the engine's program, by its name only.
fn inside(
    host: &Host,
    engine: Program,
    instance: &Instance,
    login: &As<'_>,
    said: Vec<String>,
) -> Result<Code> {
    let path = host
        .which(engine.name())
        .ok_or_else(|| Fault::refused(format!("{engine} is not on PATH")).hint("install it again"))?;
    let mut words: Vec<String> = ["exec", "--interactive"].map(str::to_owned).into();
    if host.is_terminal() {
        words.push("--tty".into());
    }
    if login.password.is_some() {
        words.extend(["--env".into(), "REDISCLI_AUTH".into()]);
    }
    words.extend([
        instance.container(),
        instance.engine.cli().into(),
        "-p".into(),
        instance.port.to_string(),
    ]);
    words.extend(instance.tls_inside().iter().flat_map(Tls::cli_words));
    words.extend(login.words());
    words.extend(said);
    let tool = Tool { path, libraries: None };
    Err(host.exec(&tool, &words, login.password.map(|password| ("REDISCLI_AUTH", password))))
}

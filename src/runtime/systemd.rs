//! The distribution's units, with drop-ins; without root, units of the user's own, kept by the systemd that
//! runs for each user who is logged in or lingers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bus;
use crate::engine::Engine;
use crate::facts::{Facts, Unit, parse};
use crate::host::{Child, Done, Host};
use crate::instance::{Instance, Target};
use crate::layout;
use crate::software;
use crate::templates::{self, Hardening, UnitContext, UserHardening};

/// Whether there is a systemd for us: as PID 1 (sd_booted(3)), or without root the user's own.
pub fn runs(host: &Host) -> Result<bool> {
    let here = layout::here();
    let sign = match (&here.login, &here.runtime) {
        (None, _) => PathBuf::from("/run/systemd/system"),
        (Some(_), Some(runtime)) => runtime.join("systemd/private"),
        (Some(_), None) => return Ok(false),
    };
    Ok(host.stat(&sign)?.is_some())
}

/// A program of systemd's that talks to ours.
pub fn child(program: impl Into<PathBuf>) -> Child {
    let child = Child::new(program);
    match &layout::here().runtime {
        Some(runtime) => child.arg("--user").env("XDG_RUNTIME_DIR", runtime),
        None => child,
    }
}

/// The same as it is typed.
pub fn typed(program: &str) -> String {
    match layout::here().login {
        Some(_) => format!("{program} --user"),
        None => program.to_owned(),
    }
}

/// The target that starts what is enabled.
fn target() -> &'static str {
    if layout::here().login.is_some() { "default.target" } else { "multi-user.target" }
}

/// The directory of links to what is enabled.
pub fn wants() -> PathBuf {
    layout::here().units.join(format!("{}.wants", target()))
}

/// Whether the user's systemd runs also while nobody is logged in; root's always does.
pub fn lasts(host: &Host) -> Result<bool> {
    match &layout::here().login {
        Some(login) => Ok(host.stat(&Path::new("/var/lib/systemd/linger").join(&login.name))?.is_some()),
        None => Ok(true),
    }
}

/// Our drop-in for a unit. systemd reads them by name: what `systemctl edit` writes (`override.conf`) comes
/// behind it, and counts more.
pub fn drop_in(unit: &str) -> PathBuf {
    layout::here().units.join(format!("{unit}.d")).join("10-redis-tp.conf")
}

/// A whole unit of ours, for a server that came without one.
pub fn own_unit(unit: &str) -> PathBuf {
    layout::here().units.join(unit)
}

/// Our drop-in as it was called when it opened directories and no more.
pub fn former_drop_in(unit: &str) -> PathBuf {
    drop_in(unit).with_file_name("redis-tp.conf")
}

/// Every file of ours that a unit may have.
pub fn files(unit: &str) -> [PathBuf; 3] {
    [drop_in(unit), former_drop_in(unit), own_unit(unit)]
}

/// The file that a unit needs from us, and its text: a drop-in that hardens the distribution's unit and
/// opens the instance's directories, a whole unit where the server came without one; none where it fits.
pub fn needed(instance: &Instance, facts: &Facts) -> Result<Option<(PathBuf, String)>> {
    let own = layout::here().login.is_some();
    let (server, unpacked) = match &facts.server {
        Some(server) => (Some(server.path.clone()), server.unpacked),
        None => (software::program(instance.engine, instance.engine.server()), true),
    };
    if let Some(server) = server.filter(|_| facts.package.is_none() || own) {
        let libraries = software::unpacked(instance.engine).filter(|_| unpacked);
        let context = unit_context(instance, &server, libraries.as_deref(), own.then_some(facts.namespaces))?;
        let text = templates::unit(&context, own)?;
        return Ok(Some((own_unit(&instance.unit), text)));
    }
    let (mut closed, mut hardening) = (closed_to(instance), hardening(instance));
    // Somebody's own drop-in does as well as ours.
    if !instance.harden
        && let Some(unit) = facts.unit(&instance.unit)
        && !facts.state.files.contains_key(&drop_in(&instance.unit))
    {
        closed.retain(|path| !unit.opens.iter().any(|open| Path::new(path).starts_with(open)));
        let works = match facts.state.instances.get(&instance.name) {
            Some(kept) => kept.active && kept.port == instance.port,
            None => facts.running.contains_key(&instance.name),
        };
        hardening.low_port &= !works;
    }
    if !instance.harden && closed.is_empty() && !hardening.low_port {
        return Ok(None);
    }
    let text = templates::drop_in(&instance.unit, &closed, &hardening, instance.harden)?;
    Ok(Some((drop_in(&instance.unit), text)))
}

/// How far the unit of an instance can be closed.
pub fn hardening(instance: &Instance) -> Hardening {
    Hardening { local: instance.is_local(), low_port: instance.port < 1024 }
}

/// How far a unit of a user's own can be closed, whose server writes to its pid file's directory, too.
fn user_hardening(instance: &Instance, mut paths: Vec<String>, namespaces: bool) -> UserHardening {
    paths.extend(instance.pidfile.parent().map(|run| run.display().to_string()));
    paths.dedup();
    // systemd.exec(5) has no way to write every path here, as a command line has.
    let namespaces = namespaces && instance.harden && paths.iter().all(|path| word(path) == *path);
    UserHardening { namespaces, paths }
}

/// Whether the user's systemd gives its units namespaces: one that runs has them; or the machine lets users
/// have them, and systemd makes the user's before the others (252 does, 247 does not).
pub fn has_namespaces(host: &Host, facts: &Facts) -> bool {
    let has =
        |name: &str| facts.text(&own_unit(name)).is_some_and(|text| text.contains("\nPrivateUsers=yes\n"));
    if facts.units.iter().any(|(name, unit)| unit.active == "active" && has(name)) {
        return true;
    }
    let done = |child: Child| host.run(child).ok().filter(Done::ok);
    let version = done(child("systemctl").arg("--version"));
    let version = version.and_then(|done| done.stdout.split_whitespace().nth(1)?.parse::<u32>().ok());
    let probe = Child::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]);
    version.is_some_and(|version| version >= 252) && done(probe).is_some()
}

/// What a whole unit names; a user's own by whether that user's systemd gives it namespaces.
fn unit_context(
    instance: &Instance,
    server: &Path,
    unpacked: Option<&Path>,
    own: Option<bool>,
) -> Result<UnitContext> {
    let run = instance.pidfile.parent().and_then(Path::file_name).unwrap_or_default();
    let etc = instance.engine.etc();
    let paths = [instance.dir.as_path()].into_iter().chain(instance.log_dir()).chain([etc.as_path()]);
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    let hardening = match own {
        Some(namespaces) => Some(user_hardening(instance, paths.clone(), namespaces).lines()?),
        None => instance.harden.then(|| hardening(instance).lines()).transpose()?,
    };
    Ok(UnitContext {
        unit: instance.unit.clone(),
        engine: instance.engine.to_string(),
        name: instance.name.to_string(),
        server: word(&server.to_string_lossy()),
        conf: word(&instance.conf.to_string_lossy()),
        libraries: unpacked.map(|root| word(&software::libraries(root).to_string_lossy())),
        user: instance.engine.user(),
        run: run.to_string_lossy().into_owned(),
        paths,
        hardening,
        low_port: instance.port < 1024,
    })
}

/// A word of a command line as a unit has it (systemd.syntax(7)): a home may have a blank in its path.
pub fn word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

/// Whether a unit starts at boot: the link that `systemctl enable` makes, without asking systemctl.
pub fn is_enabled(host: &Host, unit: &str) -> Result<bool> {
    Ok(host.stat(&wants().join(unit))?.is_some())
}

/// The state of units, as systemd has it.
///
/// # Errors
/// systemd does not answer, neither on the bus nor through systemctl.
pub fn show(host: &Host, names: &[String]) -> Result<BTreeMap<String, Unit>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let by_bus = host.system_bus().and_then(|mut bus| bus::units(&mut bus, names).ok());
    let mut units = match by_bus {
        Some(units) => units,
        None => {
            let show = [
                "show",
                "--property=Id,LoadState,ActiveState,MainPID,NeedDaemonReload,ProtectHome,ReadWritePaths",
            ];
            parse::units(&host.run(child("systemctl").args(show).args(names))?.stdout)
        }
    };
    for (name, unit) in &mut units {
        unit.enabled = is_enabled(host, name)?;
    }
    Ok(units)
}

/// The directories that the distribution's unit does not let an instance write to. Debian's units
/// have `ProtectSystem=strict` and open these with `ReadWritePaths=`.
pub fn closed_to(instance: &Instance) -> Vec<String> {
    let engine: Engine = instance.engine;
    let open =
        [engine.data(crate::engine::MASTER), engine.log(), engine.etc(), engine.run(instance.name.as_str())];
    let log = instance.log_dir().filter(|log| *log != instance.dir);
    [instance.dir.as_path()]
        .into_iter()
        .chain(log)
        .filter(|path| !open.iter().any(|open| path.starts_with(open)))
        .map(|path| path.display().to_string())
        .collect()
}

/// What a person would type.
pub fn command(verb: &str, targets: &[&Target]) -> String {
    let units: Vec<String> = targets.iter().map(|target| unit_word(&target.unit())).collect();
    format!("{} {verb} {}", typed("systemctl"), units.join(" "))
}

/// A unit as people write it: without `.service`.
pub fn unit_word(unit: &str) -> String {
    unit.trim_end_matches(".service").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Runtime;
    use crate::secrets::Secrets;
    use crate::topology::Topology;

    #[test]
    fn a_directory_of_data_and_log_is_opened_once() {
        for (section, closed) in [
            ("dir = /data/redis\nlogfile = /data/redis/redis.log", "/data/redis"),
            ("dir = /data/redis\nlogfile = /data/log/redis.log", "/data/redis /data/log"),
            ("dir = /data/redis", "/data/redis"),
            ("logfile = /data/redis/redis.log", "/data/redis"),
            ("", ""),
        ] {
            let text = format!("[master]\nport = 6379\n{section}\n");
            let topology = Topology::parse(&text, Path::new("t.ini")).unwrap();
            let instances = Instance::resolve(&topology, &Secrets::default(), Runtime::Systemd);
            assert_eq!(closed_to(&instances[0]).join(" "), closed, "{section}");
        }
    }
}

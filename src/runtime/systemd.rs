//! The distribution's units, with drop-ins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::bus;
use crate::engine::Engine;
use crate::facts::{Facts, Unit, parse};
use crate::host::{Child, Host};
use crate::instance::{Instance, Target};
use crate::layout;
use crate::templates::{self, UnitContext};

/// Whether systemd is PID 1 (sd_booted(3)), and we may give it units: it keeps only root's.
pub fn runs(host: &Host) -> Result<bool> {
    Ok(layout::here().login.is_none() && host.stat(Path::new("/run/systemd/system"))?.is_some())
}

/// Our drop-in for a unit.
pub fn drop_in(unit: &str) -> PathBuf {
    layout::here().units.join(format!("{unit}.d")).join("redis-tp.conf")
}

/// A whole unit of ours, for a server that came without one.
pub fn own_unit(unit: &str) -> PathBuf {
    layout::here().units.join(unit)
}

/// Every file of ours that a unit may have.
pub fn files(unit: &str) -> [PathBuf; 2] {
    [drop_in(unit), own_unit(unit)]
}

/// The file that a unit needs from us, and its text: a drop-in where the distribution's unit closes a
/// directory to the instance, a whole unit where the server came without one; none where it fits.
pub fn needed(instance: &Instance, facts: &Facts) -> Result<Option<(PathBuf, String)>> {
    if let Some(server) = facts.server.as_ref().filter(|_| facts.package.is_none()) {
        let text = templates::unit(&unit_context(instance, &server.path))?;
        return Ok(Some((own_unit(&instance.unit), text)));
    }
    let closed = closed_to(instance);
    if closed.is_empty() {
        return Ok(None);
    }
    Ok(Some((drop_in(&instance.unit), templates::drop_in(&instance.unit, &closed)?)))
}

fn unit_context(instance: &Instance, server: &Path) -> UnitContext {
    let run = instance.pidfile.parent().and_then(Path::file_name).unwrap_or_default();
    let log = instance.log_dir().unwrap_or(Path::new("/var/log"));
    let paths = [instance.dir.as_path(), log, &instance.engine.etc()].map(|path| path.display().to_string());
    UnitContext {
        unit: instance.unit.clone(),
        engine: instance.engine.to_string(),
        name: instance.name.to_string(),
        server: server.display().to_string(),
        conf: instance.conf.display().to_string(),
        user: instance.engine.user(),
        run: run.to_string_lossy().into_owned(),
        paths: paths.into(),
    }
}

/// Whether a unit starts at boot: the link that `systemctl enable` makes, without asking systemctl.
pub fn is_enabled(host: &Host, unit: &str) -> Result<bool> {
    Ok(host.stat(&layout::here().units.join("multi-user.target.wants").join(unit))?.is_some())
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
            let show = ["show", "--property=Id,LoadState,ActiveState,MainPID,NeedDaemonReload,ProtectHome"];
            parse::units(&host.run(Child::new("systemctl").args(show).args(names))?.stdout)
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
    let log = instance.log_dir().unwrap_or(Path::new("/"));
    [instance.dir.as_path(), log]
        .into_iter()
        .filter(|path| !open.iter().any(|open| path.starts_with(open)))
        .map(|path| path.display().to_string())
        .collect()
}

/// What a person would type.
pub fn command(verb: &str, targets: &[&Target]) -> String {
    let units: Vec<String> = targets.iter().map(|target| unit_word(&target.unit())).collect();
    format!("systemctl {verb} {}", units.join(" "))
}

/// A unit as people write it: without `.service`.
pub fn unit_word(unit: &str) -> String {
    unit.trim_end_matches(".service").to_owned()
}

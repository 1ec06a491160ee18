//! The distribution's units, with drop-ins.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::engine::Engine;
use crate::host::Host;
use crate::instance::{Instance, Target};

/// Where administrators' units and drop-ins are.
const ETC: &str = "/etc/systemd/system";

/// Whether systemd is PID 1 (sd_booted(3)).
pub fn runs(host: &Host) -> Result<bool> {
    Ok(host.stat(Path::new("/run/systemd/system"))?.is_some())
}

/// Our drop-in for a unit.
pub fn drop_in(unit: &str) -> PathBuf {
    Path::new(ETC).join(format!("{unit}.d")).join("redis-tp.conf")
}

/// Whether a unit starts at boot: the link that `systemctl enable` makes, without asking systemctl.
pub fn is_enabled(host: &Host, unit: &str) -> Result<bool> {
    Ok(host.stat(&Path::new(ETC).join("multi-user.target.wants").join(unit))?.is_some())
}

/// The directories that the distribution's unit does not let an instance write to. Debian's units
/// have `ProtectSystem=strict` and open these with `ReadWritePaths=`.
pub fn closed_to(instance: &Instance) -> Vec<String> {
    let engine: Engine = instance.engine;
    let open =
        [engine.data(crate::engine::MASTER), engine.log(), engine.etc(), engine.run(instance.name.as_str())];
    let log = instance.logfile.parent().unwrap_or(Path::new("/"));
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

//! systemd asked over D-Bus: all units in one round trip, in a twentieth of the time that a
//! `systemctl show` takes. Where there is no system bus, the caller asks systemctl.
//!
//! The interface is org.freedesktop.systemd1(5): a unit's object path is its escaped name, and looking
//! at it loads the unit.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustbus::connection::Timeout;
use rustbus::message_builder::{MarshalledMessage, MessageBuilder, MessageType};
use rustbus::wire::unmarshal::traits::Variant;
use rustbus::{RpcConn, Unmarshal};

use crate::facts::{Unit, parse};

/// How long systemd may take to answer.
const PATIENCE: Timeout = Timeout::Duration(Duration::from_secs(5));
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// Asks for the state of units.
///
/// # Errors
/// No answer, or one that cannot be read.
pub fn units(bus: &mut RpcConn, names: &[String]) -> Result<BTreeMap<String, Unit>> {
    let mut asked = Vec::new();
    for name in names {
        let path = object_path(name);
        let mut serials = Vec::new();
        for (interface, property) in [
            (UNIT, "LoadState"),
            (UNIT, "ActiveState"),
            (UNIT, "NeedDaemonReload"),
            (SERVICE, "MainPID"),
            (SERVICE, "ProtectHome"),
            (SERVICE, "ReadWritePaths"),
        ] {
            serials.push(send(bus, &path, interface, property)?);
        }
        asked.push((name, serials));
    }
    let mut units = BTreeMap::new();
    for (name, serials) in asked {
        let mut answers = Vec::new();
        for serial in serials {
            answers.push(bus.wait_response(serial, PATIENCE).map_err(|error| anyhow!("{error}"))?);
        }
        let [load, active, reload, pid, home, opens] = answers.as_slice() else { continue };
        let unit = Unit {
            load: value(load)?,
            active: value(active)?,
            needs_reload: value(reload)?,
            pid: value(pid)?,
            hides_home: parse::hides(&value::<String>(home)?),
            opens: value::<Vec<String>>(opens)?.iter().map(|word| parse::opened(word)).collect(),
            enabled: false,
        };
        units.insert(name.clone(), unit);
    }
    Ok(units)
}

fn send(bus: &mut RpcConn, path: &str, interface: &str, property: &str) -> Result<u32> {
    let mut call = MessageBuilder::new()
        .call("Get")
        .with_interface("org.freedesktop.DBus.Properties")
        .on(path)
        .at("org.freedesktop.systemd1")
        .build();
    call.body.push_param2(interface, property).map_err(|error| anyhow!("{error}"))?;
    let sent = bus.send_message(&mut call).map_err(|error| anyhow!("{error}"))?;
    sent.write_all().map_err(|(_, error)| anyhow!("{error}"))
}

fn value<'a, T: Unmarshal<'a, 'a>>(answer: &'a MarshalledMessage) -> Result<T> {
    if answer.typ != MessageType::Reply {
        return Err(anyhow!(
            "systemd would not tell: {}",
            answer.dynheader.error_name.as_deref().unwrap_or("no reason")
        ));
    }
    let variant: Variant<'_, '_> = answer.body.parser().get().map_err(|error| anyhow!("{error}"))?;
    variant.get().map_err(|error| anyhow!("{error}")).context("systemd's answer is of another type")
}

/// The object path of a unit: what is no letter or digit becomes `_` and two hexadecimal digits
/// (sd_bus_path_encode(3)).
fn object_path(unit: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        byte => format!("_{byte:02x}"),
    };
    format!("/org/freedesktop/systemd1/unit/{}", unit.bytes().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_units_name_is_escaped_as_systemd_does() {
        assert_eq!(
            object_path("redis-server@slave.service"),
            "/org/freedesktop/systemd1/unit/redis_2dserver_40slave_2eservice"
        );
    }
}

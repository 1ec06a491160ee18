//! `redis-tp users rotate`: other passwords for the users, while servers run.

use anyhow::Result;

use super::converge::{converge, whole};
use super::scene::Wish;
use super::status;
use crate::cli::{self, User};
use crate::exit::{Code, Fault};
use crate::host::Host;
use crate::topology::{self, Topology};

/// Makes new passwords, and brings every server, replica and the web app to them.
///
/// # Errors
/// There are no such users here; see [`converge`].
pub fn run(host: &Host, command: &cli::Users) -> Result<Code> {
    let cli::Users::Rotate(args) = command;
    let wish = |host: &Host| {
        let mut wish = Wish::standing(host)?;
        let topology = wish.parsed()?;
        let users = if args.users.is_empty() { all(&topology) } else { args.users.clone() };
        for user in users {
            refuse_absent(&topology, user)?;
            let password = host.generate_password()?;
            match user {
                User::Admin => {
                    wish.document.unset("redis-tp", "password");
                    wish.password = Some(password);
                }
                User::Replica | User::App => wish.users.push((user.name(), password)),
            }
        }
        Ok(wish)
    };
    let outcome = converge(host, "users rotate", &args.change, wish, whole(args.change.consent()))?;
    let code = outcome.finish("users rotate", &args.change, None)?;
    if outcome.changed && !args.change.json {
        status::print_tree_after(host);
    }
    Ok(code)
}

/// The users that there are.
fn all(topology: &Topology) -> Vec<User> {
    let app = topology.app.is_some().then_some(User::App);
    [User::Admin, User::Replica].into_iter().chain(app).collect()
}

fn refuse_absent(topology: &Topology, user: User) -> Result<(), Fault> {
    let file = topology::file().display();
    if !topology.has_users() {
        return Err(Fault::refused(format!("{file} has users = plain: there is one password for everybody"))
            .hint(
                "give it another one:\nopenssl rand -hex 32 > FILE && redis-tp install --password-file FILE",
            ));
    }
    match user {
        User::App if topology.app.is_none() => Err(Fault::refused("there is no web app, and so no user app")
            .hint("install it:\nredis-tp app install")),
        _ => Ok(()),
    }
}

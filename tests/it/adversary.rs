//! An adversary who has a little: the password of the web app, that of a replica, the one that was right before, or
//! a server of his own that wants to be a replica. Each attempt is a line in tests/cases/adversary.

use std::collections::BTreeSet;
use std::path::Path;

use crate::machine::{Init, Machine, Release};
use crate::readme::says;
use crate::story::bare;
use crate::strangers::FAR;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases/adversary");

/// A key of the web app's.
const OWN: &str = "cache:bonjour";

/// Types each line of a file as a user, and says what came back.
const TRY: &str = r#"cd /var/empty 2>/dev/null || cd /; set -f
export REDISCLI_AUTH="$(cat /etc/redis-tp/$1.password)"
while IFS= read -r line; do
    answer=$(eval "timeout 30 redis-cli --no-auth-warning --user $1 -h $2 -p 6379 $line" 2>&1 | head -c 200 | tr '\n' ' ')
    printf '%s => %s\n' "$line" "$answer"
done < /root/attempts
"#;

/// A server of the adversary's that follows the master with what he has.
const ROGUE: &str = r#"rm -rf /tmp/rogue; mkdir /tmp/rogue
redis-server --port 7777 --dir /tmp/rogue --save '' --logfile /tmp/rogue/log --daemonize yes --pidfile /tmp/rogue/pid \
    --repl-diskless-sync-delay 0 --replicaof "$1" 6379 $2 >/dev/null
for i in $(seq 100); do
    redis-cli -p 7777 INFO replication | grep -q master_link_status:up && break
    grep -oE 'NOAUTH|WRONGPASS|NOPERM' /tmp/rogue/log && break
    sleep 0.1
done
redis-cli -p 7777 INFO replication | grep master_link_status
redis-cli -p 7777 GET secret
redis-cli -p 7777 SHUTDOWN NOSAVE
"#;

/// Where somebody is, and the address that the master has from there: on the machine, and on another one.
const FROM: [(&str, &str); 2] = [("", "127.0.0.1"), ("ip netns exec far", "10.9.1.1")];

/// What Redis lets everybody call who has not logged in, so that no user can be refused it.
const BEFORE_LOGIN: [&str; 4] = ["auth", "hello", "quit", "reset"];

/// The lines of some files, without comments, and with the app's key in its place.
fn attempts(files: &[&str]) -> Vec<String> {
    let read = |file: &&str| std::fs::read_to_string(Path::new(CASES).join(file)).unwrap();
    let text: String = files.iter().map(read).collect();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.replace("{own}", OWN)).collect()
}

/// Beyond loopback, with a key that is nobody's to see, and with nothing switched off that users are kept from.
fn exposed(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("redis-tp up").ok();
    machine.run("redis-tp app install --prefix cache: && redis-tp install --bind 0.0.0.0").ok();
    let switched_on = "--set enable-debug-command=yes --set enable-module-command=yes";
    machine.run(&format!("redis-tp install {switched_on}")).ok();
    machine.run("redis-tp cli -- SET secret precious").ok();
    machine.run(FAR).ok();
    machine.write("/root/try", TRY);
    machine.write("/root/rogue", ROGUE);
    Some(machine)
}

/// What must be as before, whatever was tried.
fn whole(machine: &Machine) -> String {
    let command = "redis-tp cli -- GET secret; redis-tp cli -- DBSIZE; redis-tp cli -- ACL LIST; \
        redis-tp cli -- CONFIG GET dir; redis-tp cli -- CONFIG GET requirepass; redis-tp cli -- ROLE | head -1; \
        redis-tp cli -- INFO server | grep process_id; cat /etc/redis/redis.conf";
    machine.run(command).ok().stdout
}

/// The commands and subcommands that this server knows, by its own list.
fn known(machine: &Machine) -> BTreeSet<String> {
    let list = "COMMAND LIST; redis-tp cli -- ACL CAT dangerous; redis-tp cli -- ACL CAT admin";
    let out = machine.run(&format!("redis-tp cli -- {list}")).ok().stdout;
    let known: BTreeSet<String> = out.lines().map(str::to_lowercase).collect();
    assert!(known.len() > 300 && known.contains("acl|setuser"), "{out}");
    known
}

/// What an attempt calls: the command, and the subcommand that it would be.
fn called(attempt: &str) -> [String; 2] {
    let mut words = attempt.split(' ').map(str::to_lowercase);
    let command = words.next().expect("a command");
    let sub = format!("{command}|{}", words.next().unwrap_or_default());
    [command, sub]
}

/// Makes each attempt as a user, each of which has to be refused for what the user may not, and nothing that the
/// server knows may be left untried; says how many there were.
fn held(machine: &Machine, user: &str, attempts: &[String], may: &[&str]) -> usize {
    machine.write("/root/attempts", attempts.join("\n") + "\n");
    let out = machine.run(&format!("sh /root/try {user} 127.0.0.1")).ok().stdout;
    let answers: Vec<&str> = out.lines().collect();
    assert_eq!(answers.len(), attempts.len(), "{out}");
    let (refused, rest): (Vec<&str>, Vec<&str>) =
        answers.iter().partition(|answer| answer.contains("NOPERM"));
    // What another version has.
    let unknown = ["=> ERR unknown command", "=> ERR unknown subcommand"];
    let through = rest.iter().filter(|answer| !unknown.iter().any(|word| answer.contains(word)));
    assert_eq!(through.collect::<Vec<_>>(), [&""; 0], "{user} was not refused");

    let tried: BTreeSet<String> = refused.iter().flat_map(|answer| called(answer)).collect();
    let untried: Vec<String> = known(machine)
        .into_iter()
        .filter(|name| !tried.contains(name))
        .filter(|name| !may.iter().chain(&BEFORE_LOGIN).any(|may| may == name))
        .collect();
    assert_eq!(untried, [""; 0], "no line of tests/cases/adversary tries these as {user}");
    refused.len()
}

#[test]
fn whoever_has_the_apps_or_a_replicas_password_gets_nothing_else_on_redis_7() {
    let Some(machine) = exposed(Release::Bookworm, Init::Systemd) else { return };
    let tried = passwords_open_no_more(&machine);
    let told = format!(
        "{} commands with the app's password and {} with a replica's on Redis 7.0",
        tried[0], tried[1]
    );
    assert!(says(&told), "not in the README: {told}");
}

#[test]
fn whoever_has_the_apps_or_a_replicas_password_gets_nothing_else_on_redis_8() {
    let Some(machine) = exposed(Release::Trixie, Init::None) else { return };
    let tried = passwords_open_no_more(&machine);
    let told = format!("{} and {} on Redis 8.0", tried[0], tried[1]);
    assert!(says(&told), "not in the README: {told}");
}

/// How often the app and a replica were refused.
fn passwords_open_no_more(machine: &Machine) -> [usize; 2] {
    let before = whole(machine);
    let tried = [
        held(machine, "app", &attempts(&["commands.txt", "app.txt"]), &["get", "set", "pttl", "info"]),
        held(machine, "replica", &attempts(&["commands.txt", "replica.txt"]), &["psync", "replconf", "ping"]),
    ];
    assert_eq!(whole(machine), before);

    // What they are for, they may.
    machine.write("/root/attempts", format!("SET {OWN} x\nGET {OWN}\nPTTL {OWN}\nINFO replication\n"));
    let out = machine.run("sh /root/try app 127.0.0.1").ok().stdout;
    assert!(
        out.contains("=> OK") && out.contains("=> x") && out.contains("=> -1") && !out.contains("NOPERM"),
        "{out}"
    );
    machine.run(&format!("redis-tp cli -- DEL {OWN}")).ok();
    machine.run("redis-tp verify").ok();
    tried
}

#[test]
fn whoever_names_no_user_is_nobody_on_this_machine_and_on_another() {
    let logins = [
        "-a \"$(cat /etc/redis-tp/password)\"",
        "-a wrong",
        "--user admin -a wrong",
        "",
        "--user default -a ''",
    ];
    let commands = ["PING", "GET secret", "CONFIG GET dir", "ACL LIST", "DBSIZE"];
    let told =
        format!("{} attempts without a user, half of them", FROM.len() * logins.len() * commands.len());
    assert!(says(&told), "not in the README: {told}");
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = exposed(release, init) else { return };
        let before = whole(&machine);
        for (from, address) in FROM {
            for (login, command) in logins.iter().flat_map(|login| commands.map(|command| (login, command))) {
                // With the right password, too.
                let cli =
                    format!("{from} timeout 30 redis-cli --no-auth-warning -h {address} {login} {command}");
                let out = machine.run(&cli);
                assert!(out.stdout.contains("NOAUTH"), "{out}");
            }
            let right = format!(
                "{from} redis-cli --user admin -a \"$(cat /etc/redis-tp/password)\" -h {address} GET secret"
            );
            assert_eq!(machine.run(&right).ok().stdout, "precious\n", "nobody is let in from there");
        }
        assert_eq!(whole(&machine), before);
    }
}

#[test]
fn a_rogue_replica_gets_nothing_on_this_machine_and_on_another() {
    let auth =
        |user: &str, file: &str| format!("--masteruser {user} --masterauth $(cat /etc/redis-tp/{file})");
    let rogues = [
        String::new(),
        "--masterauth wrong".to_owned(),
        "--masterauth $(cat /etc/redis-tp/password)".to_owned(),
        auth("replica", "password"),
        auth("app", "app.password"),
        auth("admin", "replica.password"),
    ];
    let told = format!("{} rogue replicas, half of them", FROM.len() * rogues.len());
    assert!(says(&told), "not in the README: {told}");
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = exposed(release, init) else { return };
        machine.run("ip -n far link set lo up").ok();
        // With the right one it is no rogue: that this can be told is what makes the others count.
        let right = auth("replica", "replica.password");
        let logins = rogues.iter().map(|rogue| (rogue, "down")).chain([(&right, "up")]);
        for ((from, address), (login, status)) in
            FROM.into_iter().flat_map(|from| logins.clone().map(move |login| (from, login)))
        {
            let out = machine.run(&format!("{from} sh /root/rogue {address} \"{login}\"")).ok().stdout;
            let refused = ["NOAUTH", "WRONGPASS", "NOPERM"].iter().any(|no| out.contains(no));
            assert!(out.contains(&format!("master_link_status:{status}")), "{from} {login}: {out}");
            assert_eq!(refused, status == "down", "{from} {login}: {out}");
            assert_eq!(out.contains("precious"), status == "up", "{from} {login}: {out}");
        }
        machine.run("redis-tp verify").ok();
    }
}

#[test]
fn servers_with_users_are_promoted_and_follow_each_other() {
    for (release, init, engine) in
        [(Release::Bookworm, Init::Systemd, "redis"), (Release::Trixie, Init::None, "valkey")]
    {
        let Some(machine) = bare(release, init) else { return };
        machine.run(&format!("redis-tp up --engine {engine}")).ok();
        machine.run("redis-tp install --bind 0.0.0.0").ok();
        // As Sentinel does it.
        machine
            .run(
                "redis-tp cli slave -- REPLICAOF NO ONE && redis-tp cli slave -- CONFIG REWRITE
                redis-tp cli -- REPLICAOF 127.0.0.1 6380 && redis-tp cli -- CONFIG REWRITE
                until redis-tp cli -- INFO replication | grep -q master_link_status:up; do sleep 0.1; done
                redis-tp cli slave -- SET after promotion && redis-tp cli slave -- WAIT 1 2000",
            )
            .ok();
        assert_eq!(machine.run("redis-tp cli -- GET after").ok().stdout.trim(), "promotion");
        machine.run("redis-tp apply --adopt").ok();
        let plan = machine.run("redis-tp plan --detailed-exitcode").ok();
        assert!(plan.stdout.starts_with("No changes."), "{plan}");
        machine.run("redis-tp verify --restart").ok();
    }
}

#[test]
fn users_come_and_go_on_servers_that_run_and_the_way_back_is_whole() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp up --plain && redis-tp install --bind 0.0.0.0").ok();
    let pids = "systemctl show -P MainPID redis-server redis-server@slave";
    let before = machine.run(pids).ok().stdout;
    let link = "redis-tp cli slave -- INFO replication | grep master_link_status";
    for (wish, users) in [("acl", true), ("plain", false), ("acl", true)] {
        machine.run(&format!("sed -i 's/^users = .*/users = {wish}/' /etc/redis-tp/topology.ini")).ok();
        machine.run("redis-tp apply").ok();
        machine.run("redis-tp verify").ok();
        let plan = machine.run("redis-tp plan --detailed-exitcode").ok();
        assert!(plan.stdout.starts_with("No changes.") && plan.stderr.is_empty(), "{plan}");
        let list = machine.run("redis-tp cli -- ACL LIST").ok().stdout;
        assert_eq!(list.contains("user replica on"), users, "{list}");
        assert_eq!(list.contains("user default off"), users, "{list}");
        assert!(machine.run(link).ok().stdout.contains(":up"));
    }
    machine.run("redis-tp rollback --overwrite").ok();
    let list = machine.run("redis-cli -a \"$(cat /etc/redis-tp/password)\" ACL LIST").ok().stdout;
    assert!(list.starts_with("user default on") && list.lines().count() == 1, "{list}");
    machine.run("redis-tp install --plain && redis-tp verify").ok();
    assert_eq!(machine.run(pids).ok().stdout, before, "a server was restarted");
    machine.run("redis-tp uninstall --purge --no-backup").ok();
    assert!(!machine.exists("/etc/redis-tp"));
}

/// Logs in over and over as a user, and keeps what was refused.
const LOGINS: &str = r#"case $1 in admin) file=password ;; *) file=$1.password ;; esac
while [ ! -e /tmp/enough ]; do
    former=$(cat /etc/redis-tp/$file)
    # Who read the former one and comes when it is withdrawn has taken too long on the way.
    redis-tp cli --as "$1" -- PING >/dev/null 2>/tmp/said.$1 ||
        { [ "$(cat /etc/redis-tp/$file)" != "$former" ] || { echo "$1:"; cat /tmp/said.$1; } >>/tmp/refused; }
    echo >>/tmp/tried
done"#;

#[test]
fn users_get_other_passwords_and_no_login_is_refused_and_no_link_breaks() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = bare(release, init) else { return };
        machine.run("redis-tp up && redis-tp app install --prefix cache:").ok();
        machine.write("/root/logins", LOGINS);
        let files = "cat /etc/redis-tp/password /etc/redis-tp/replica.password /etc/redis-tp/app.password";
        let links = "redis-tp cli -- INFO stats | grep ^sync_; redis-tp cli slave -- INFO replication | grep link_status; redis-tp cli -- INFO server | grep run_id";
        let (former, before) = (machine.run(files).ok().stdout, machine.run(links).ok().stdout);
        let logins = machine.spawn("sh /root/logins replica & sh /root/logins admin; wait");
        for users in ["replica", "app", "admin", ""] {
            machine.run(&format!("redis-tp users rotate {users}")).ok();
            let plan = machine.run("redis-tp plan --detailed-exitcode").ok();
            assert!(plan.stdout.starts_with("No changes.") && plan.stderr.is_empty(), "{plan}");
        }
        machine.run("until [ $(wc -l </tmp/tried) -gt 20 ]; do sleep 0.1; done; touch /tmp/enough").ok();
        logins.wait();
        assert_eq!(machine.run("cat /tmp/refused 2>/dev/null").stdout, "");
        assert_eq!(machine.run(links).ok().stdout, before);
        for (user, password) in ["admin", "replica", "app"].into_iter().zip(former.lines()) {
            let out = machine.run(&format!("redis-cli --no-auth-warning --user {user} -a {password} PING"));
            assert!(out.to_string().contains("WRONGPASS"), "{user} still has the former password: {out}");
        }
        // A link that breaks comes up again with what it has now.
        machine.run("redis-tp cli -- CLIENT KILL TYPE replica").ok();
        machine
            .run("until redis-tp cli slave -- INFO replication | grep -q link_status:up; do sleep 0.1; done")
            .ok();
        machine.run("redis-tp verify").ok();
        machine.run("redis-tp rollback").ok();
        machine.run("redis-tp verify").ok();
    }
}

#[test]
fn as_whom_cli_speaks_is_said_by_its_flag() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install").ok();
    assert_eq!(machine.run("redis-tp cli --as admin -- ACL WHOAMI").ok().stdout, "admin\n");
    assert_eq!(machine.run("redis-tp cli --as replica -- PING").ok().stdout, "PONG\n");
    assert!(machine.run("redis-tp cli --as replica -- GET x").exits(1).to_string().contains("NOPERM"));
    machine.run("redis-tp cli --as app -- PING").exits(5);
    machine.run("redis-tp users rotate app").exits(5);
    machine.run("redis-tp cli --as nobody -- PING").exits(2);
    machine.run("redis-tp install --plain").ok();
    machine.run("redis-tp cli --as admin -- PING").exits(5);
    machine.run("redis-tp users rotate").exits(5);
}

#[test]
fn whoever_came_as_default_is_out_when_it_is_switched_off() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = bare(release, init) else { return };
        machine.run("redis-tp up --no-app --plain").ok();
        machine.run("redis-tp install --bind 0.0.0.0 && redis-tp cli -- SET secret precious").ok();
        let client =
            machine.spawn("env REDISCLI_AUTH=$(cat /etc/redis-tp/password) redis-cli BLPOP nothing 0");
        machine.run("until redis-tp cli -- CLIENT LIST | grep -q cmd=blpop; do sleep 0.05; done").ok();
        machine.run("sed -i '/^users/d' /etc/redis-tp/topology.ini && redis-tp apply").ok();
        let out = client.wait();
        assert!(out.to_string().contains("closed"), "{out}");
        let clients = machine.run("redis-tp cli -- CLIENT LIST").ok().stdout;
        assert!(!clients.contains("user=default") && clients.contains("user=replica"), "{clients}");
        let link =
            "redis-tp cli slave -- INFO replication | grep link_status; redis-tp cli slave -- GET secret";
        assert_eq!(machine.run(link).ok().stdout, "master_link_status:up\r\nprecious\n");
        machine.run("redis-tp verify").ok();
    }
}

/// Waits at an address for what comes, and says OK to all of it.
const LISTENER: &str = r#"use IO::Socket::IP;
my ($at, $port) = @ARGV;
my $server = IO::Socket::IP->new(LocalHost => $at, LocalPort => $port, Listen => 5, ReuseAddr => 1) or die;
open(my $heard, ">", "/tmp/heard.$at.$port") or die;
$heard->autoflush(1);
while (my $client = $server->accept) {
    while (sysread($client, my $said, 4096)) { print $heard $said; print $client "+OK\r\n"; }
}"#;

/// Says that it is a replica, and where it is met.
const CLAIM: &str = r#"exec 3<>/dev/tcp/127.0.0.1/6379
for line in "AUTH replica $(cat /etc/redis-tp/replica.password)" "REPLCONF ip-address $1" \
    "REPLCONF listening-port $2" "PSYNC ? -1"; do
    # An answer that is under way forbids PSYNC.
    printf '%s\r\n' "$line" >&3; read -r <&3
done
exec cat <&3 >/dev/null"#;

#[test]
fn whoever_says_he_is_a_replica_does_not_hear_the_apps_password() {
    for (release, init) in [(Release::Bookworm, Init::Systemd), (Release::Trixie, Init::None)] {
        let Some(machine) = exposed(release, init) else { return };
        machine.run("useradd eve").ok();
        machine.write("/opt/listener", LISTENER);
        machine.write("/root/claim", CLAIM);
        let listen = |at: &str| {
            let as_eve = "setpriv --reuid eve --regid eve --clear-groups";
            machine.spawn(&format!("{as_eve} perl /opt/listener {at}"))
        };
        let claim = |at: &str| machine.spawn(&format!("bash /root/claim {at}"));
        let listener = listen("127.0.0.1 7777");
        let claims = ["127.0.0.1 7777", "127.0.0.1 7779"].map(claim);
        // One that comes into the topology is heard, and the app goes on.
        machine
            .run("redis-tp replica add --port 6381 && redis-tp replica add --port 6382 --bind 127.0.0.1")
            .ok();
        // A port of the topology's is not any address's.
        let beside = ["127.0.0.2 6380", "::1 6382"].map(|at| (listen(at), claim(at)));
        let claimed = ["127.0.0.1:7777", "127.0.0.2:6380", "::1"];
        let app = machine.spawn("bash -c 'exec 3<>/dev/tcp/127.0.0.1/5000 && printf \"GET /events HTTP/1.0\\r\\n\\r\\n\" >&3 && exec cat <&3 >/tmp/events'");
        let told = |at| {
            format!("grep -F '{at}' /tmp/events | tail -n1 | grep -q 'without TLS it hears no password'")
        };
        machine.run(&format!("until {}; do sleep 0.1; done", claimed.map(told).join(" && "))).ok();
        // And some looks more, at which it could be heard.
        machine.run("sleep 3; ls /tmp/heard.::1.6382").ok();
        drop(app);
        let seen = machine.read("/tmp/events");
        for at in claimed {
            let last = seen.lines().rfind(|line| line.contains(at)).unwrap_or_else(|| panic!("{at}: {seen}"));
            assert!(last.contains("without TLS it hears no password"), "{last}");
        }
        assert!(seen.contains("\"name\":\"127.0.0.1:6381\",\"reason\":null"), "{seen}");
        let heard = machine.run("cd /tmp && ls heard.* && cat heard.*").ok().stdout;
        assert_eq!(heard, "heard.127.0.0.1.7777\nheard.127.0.0.2.6380\nheard.::1.6382\n", "{release:?}");
        drop((listener, claims, beside));
    }
}

/// Known to remain: no rule forbids an argument of PSYNC without forbidding that a link goes on where it was.
#[test]
fn a_promotion_with_a_replicas_password_is_told() {
    let Some(machine) = exposed(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp verify").ok();
    let promote = "id=$(redis-tp cli slave -- INFO replication | sed -n 's/^master_replid:\\([0-9a-f]*\\).*/\\1/p')
        REDISCLI_AUTH=$(cat /etc/redis-tp/replica.password) timeout 60 redis-cli --user replica -p 6380 PSYNC $id -1 FAILOVER >/dev/null 2>&1 & asker=$!
        for try in $(seq 100); do redis-tp cli slave -- ROLE | grep -q master && break; sleep 0.1; done; kill $asker";
    machine.run(promote);
    let role = "redis-tp cli slave -- ROLE | head -1";
    assert_eq!(machine.run(role).ok().stdout.trim(), "master", "it is refused: the README says otherwise");
    let told = machine.run("redis-tp verify --json").exits(4);
    assert!(
        told.stdout.contains("\"result\":\"fail\"") || told.stdout.contains("\"result\": \"fail\""),
        "{told}"
    );
    let told = machine.run("redis-tp plan --detailed-exitcode").exits(3);
    assert!(told.to_string().contains("slave: was promoted and is a master now"), "{told}");
    machine.run("redis-tp apply --overwrite && redis-tp verify").ok();
    assert_eq!(machine.run(role).ok().stdout.trim(), "slave");
}

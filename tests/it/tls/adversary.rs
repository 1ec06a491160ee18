//! An adversary who has every right password, and no certificate of the servers' authority: only TLS keeps him out.
//! From another network he asks, follows, is followed, and stands where the master was.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use redis_tp::tls::issue::{Authority, Holder};

use super::{DAY, authority, key, now};
use crate::machine::{Init, Machine, Release};
use crate::story::bare;
use crate::strangers::FAR;

/// Both instances are reached by other machines, so that no unit's filter is what refuses.
const EXPOSED: &str = "\
[redis-tp]
tls = yes

[master]
port = 6379
bind = 0.0.0.0

[slave]
port = 6380
bind = 0.0.0.0
replicaof = master
";

/// What redis-cli is told to show of itself; a word is the name of a certificate, made below.
const SHOWN: &[(&str, &str)] = &[
    ("no TLS at all", ""),
    ("TLS, and no certificate", "--tls --cacert ours-ca.crt"),
    ("TLS, and trust in everybody", "--tls --insecure"),
    ("a certificate of another authority", "foreign"),
    ("one of another authority of our authority's name", "forged"),
    ("the same with that authority behind it", "forged-chain"),
    ("one that is its own authority, with the servers' names", "self-signed"),
    ("one of our authority that has expired", "expired"),
    ("one of our authority that does not hold yet", "not-yet"),
    ("one signed by a client's certificate of our authority", "by-client"),
    ("our authority's certificate in front of a foreign one", "ours-ahead"),
];

/// As whom, with the right password of each.
const LOGINS: [&str; 2] = ["admin", "replica"];

/// What is asked then.
const ASKED: &[&str] = &["PING", "GET precious", "INCR intruder", "ACL LIST", "PSYNC ? -1"];

/// Openings of a conversation that redis-cli would not begin: what is piped into what.
const RAW: &[(&str, &str)] = &[
    ("PSYNC ? -1", PLAIN),
    ("AUTH replica $replica\\r\\nPSYNC ? -1", PLAIN),
    ("AUTH admin $admin\\r\\nINCR intruder\\r\\nGET precious", PLAIN),
    ("PSYNC ? -1", "openssl s_client -quiet -connect $at"),
    ("AUTH replica $replica\\r\\nPSYNC ? -1", "openssl s_client -quiet -connect $at"),
    ("AUTH admin $admin\\r\\nINCR intruder", "openssl s_client -quiet -tls1_2 -connect $at"),
    ("AUTH admin $admin\\r\\nINCR intruder", "openssl s_client -quiet -tls1_1 $ours -connect $at"),
    ("AUTH admin $admin\\r\\nINCR intruder", "openssl s_client -quiet -tls1 $ours -connect $at"),
    (
        "AUTH admin $admin\\r\\nINCR intruder",
        "openssl s_client -quiet -tls1_2 -cipher aNULL:@SECLEVEL=0 -connect $at",
    ),
];
const PLAIN: &str = r#"perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(PeerAddr => "10.9.1.1:6379") or die;
    print $s <STDIN>; $s->flush; print while <$s>'"#;

/// A client of ours that speaks like this, which makes these count.
const HEARD: (&str, &str) =
    ("AUTH admin $admin\\r\\nEXISTS intruder", "openssl s_client -quiet -tls1_2 $ours -connect $at");

/// How many of them there are: the README names it.
const ATTEMPTS: usize =
    SHOWN.len() * LOGINS.len() * ASKED.len() + RAW.len() + 2 * ROGUES.len() + 1 + BETWEEN.len();

/// What a rogue server shows: to the master that it wants to follow, and to a replica that is to follow it.
const ROGUES: &[&str] = &["foreign", "forged-chain", "self-signed", "expired", "not-yet", "by-client"];

/// A server of the adversary's in the far network: `$1` its certificate, `$2` more of its configuration.
const ROGUE: &str = r#"cd /root/far; rm -rf /tmp/rogue; mkdir /tmp/rogue
ip netns exec far redis-server --port 0 --tls-port 6390 --bind 10.9.1.2 --protected-mode no --dir /tmp/rogue --save '' \
    --unixsocket /tmp/rogue/socket --logfile /tmp/rogue/log --daemonize yes --pidfile /tmp/rogue/pid \
    --repl-diskless-sync-delay 0 --tls-replication yes --tls-auth-clients optional \
    --tls-ca-cert-file /root/far/ours-ca.crt --tls-cert-file /root/far/$1.crt --tls-key-file /root/far/$1.key $2 >/dev/null
until redis-cli -s /tmp/rogue/socket PING | grep -q PONG; do sleep 0.05; done
"#;
const ROGUE_SAYS: &str = "redis-cli -s /tmp/rogue/socket";

/// Puts a certificate where the adversary has it.
fn lay(machine: &Machine, name: &str, cert: &str, key: &redis_tp::secret::Secret) {
    machine.write(format!("/root/far/{name}.crt"), cert);
    machine.write(format!("/root/far/{name}.key"), key.expose());
}

fn reached() -> [String; 4] {
    ["127.0.0.1", "10.9.1.1", "10.9.1.2", "localhost"].map(str::to_owned)
}

/// One of an authority for servers and clients alike, of that time.
fn signed(machine: &Machine, name: &str, by: &Authority, from: u64) -> Authority {
    let key = key();
    let cert = by.sign(&Holder { name: "redis-tp server", reached: &reached() }, &key, from).unwrap();
    lay(machine, name, &cert, &key);
    Authority { cert, key }
}

/// A certificate that says of itself what another says, by a key of the adversary's.
fn self_made(common_name: &str, authority: bool) -> Authority {
    let key = key();
    let mut params = CertificateParams::new(reached()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    if authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let cert = params.self_signed(&KeyPair::from_pem(key.expose()).unwrap()).unwrap().pem();
    Authority { cert, key }
}

/// All that he can make, or could have got.
fn certificates(machine: &Machine) {
    machine.run("mkdir -m 700 /root/far && cp /etc/redis-tp/tls/ca.crt /root/far/ours-ca.crt").ok();
    let ours = authority(machine);
    let (foreign, at) = (Authority::new(key(), "elsewhere", now()).unwrap(), now());
    signed(machine, "foreign", &foreign, at);
    signed(machine, "expired", &ours, at - 900 * DAY);
    signed(machine, "not-yet", &ours, at + 9 * DAY);
    signed(machine, "ours", &ours, at);
    let subject = machine.run("openssl x509 -in /root/far/ours-ca.crt -noout -subject -nameopt multiline");
    let subject = subject.ok().stdout.lines().find_map(|line| line.split_once("= ")).unwrap().1.to_owned();
    assert!(subject.starts_with("redis-tp CA of "), "{subject}");
    let forged = self_made(&subject, true);
    let leaf = signed(machine, "forged", &forged, at);
    lay(machine, "forged-chain", &format!("{}{}", leaf.cert, forged.cert), &leaf.key);
    let alone = self_made("redis-tp server", false);
    lay(machine, "self-signed", &alone.cert, &alone.key);
    let client_key = key();
    let client = ours.sign(&Holder { name: "laptop", reached: &[] }, &client_key, at).unwrap();
    lay(machine, "client", &client, &client_key);
    let client = Authority { cert: client, key: client_key };
    let below = signed(machine, "by-client", &client, at);
    lay(machine, "by-client", &format!("{}{}", below.cert, client.cert), &below.key);
    let ahead = signed(machine, "ours-ahead", &foreign, at);
    lay(machine, "ours-ahead", &format!("{}{}", ahead.cert, ours.cert), &ahead.key);
}

fn exposed(release: Release) -> Option<Machine> {
    let machine = bare(release, Init::Systemd)?;
    machine.run(FAR).ok();
    machine.write("/root/t.ini", EXPOSED);
    machine.run("redis-tp apply -f /root/t.ini && redis-tp cli -- SET precious data").ok();
    certificates(&machine);
    machine.write("/root/rogue", ROGUE);
    Some(machine)
}

/// A command in the far network, where both passwords are known.
fn far(command: &str) -> String {
    format!(
        "cd /root/far; export admin=$(cat /etc/redis-tp/password) replica=$(cat /etc/redis-tp/replica.password)
        export ask='timeout 3 redis-cli --no-auth-warning -h 10.9.1.1'
        ip netns exec far sh -c '{}' 2>&1",
        command.replace('\'', "'\\''")
    )
}

fn asks(shown: &str, login: &str, asked: &str) -> String {
    let flags = match shown.is_empty() || shown.starts_with("--") {
        true => shown.to_owned(),
        false => format!("--tls --cacert ours-ca.crt --cert {shown}.crt --key {shown}.key"),
    };
    far(&format!("REDISCLI_AUTH=${login} $ask {flags} --user {login} {asked}"))
}

fn speaks((said, program): &(&str, &str)) -> String {
    let ours = "-cipher DEFAULT:@SECLEVEL=0 -cert ours.crt -key ours.key";
    far(&format!(
        "at=10.9.1.1:6379; ours=\"{ours}\"; {{ printf \"{said}\\r\\n\"; sleep 1; }} | timeout 3 {program}"
    ))
}

/// Nothing of an answer: neither of a server's words nor of its data.
fn is_nothing(said: &str) -> bool {
    ![
        "PONG",
        "data",
        "NOPERM",
        "NOAUTH",
        "WRONGPASS",
        "FULLRESYNC",
        "REDIS0",
        "user ",
        "(integer)",
        "+OK",
        "\n:1",
    ]
    .iter()
    .any(|word| said.contains(word))
}

#[test]
fn the_right_passwords_open_nothing_without_a_certificate_on_redis_7() {
    only_tls_keeps_them_out(Release::Bookworm);
}

#[test]
fn the_right_passwords_open_nothing_without_a_certificate_on_redis_8() {
    only_tls_keeps_them_out(Release::Trixie);
}

fn only_tls_keeps_them_out(release: Release) {
    let Some(machine) = exposed(release) else { return };
    let mut tried = 0;
    let mut refused = |what: &str, command: &str| {
        let out = machine.run(command);
        let said = format!("{}{}", out.stdout, out.stderr);
        assert!(is_nothing(&said), "{what}: {out}");
        assert!(!said.contains("not found") && !said.contains("No such file"), "{what}: {out}");
        tried += 1;
    };
    for (what, shown) in SHOWN {
        for login in LOGINS {
            ASKED.iter().for_each(|asked| refused(what, &asks(shown, login, asked)));
        }
    }
    RAW.iter().for_each(|raw| refused(raw.1, &speaks(raw)));
    let out = machine.run(&speaks(&HEARD));
    assert!(out.stdout.contains("+OK\r\n:0"), "{out}");
    // What a client of ours gets, which makes the others count.
    for shown in ["client", "ours"] {
        let said = |login, asked| machine.run(&asks(shown, login, asked)).stdout;
        assert_eq!(said("admin", "PING"), "PONG\n");
        assert_eq!(said("admin", "GET precious"), "data\n");
        assert_eq!(said("admin", "EXISTS intruder"), "0\n");
        assert!(said("replica", "GET precious").contains("NOPERM"));
    }
    tried += follows(&machine) + is_followed(&machine) + stands_in_the_middle(&machine);
    machine.run("redis-tp verify").ok();
    assert_eq!(tried, ATTEMPTS);
    let readme = include_str!("../../../README.md");
    assert!(
        readme.contains(&format!("{ATTEMPTS} attempts")),
        "the README does not count {ATTEMPTS} attempts"
    );
}

/// A rogue replica with the right password gets no key.
fn follows(machine: &Machine) -> usize {
    let replica = |shown: &str| {
        let more = "--masteruser replica --masterauth $(cat /etc/redis-tp/replica.password) --replicaof 10.9.1.1 6379";
        machine.run(&format!("sh /root/rogue {shown} \"{more}\"")).ok();
        // Whose link does not come up has had its time.
        let tries = if shown == "ours" { 300 } else { 25 };
        let wait = format!(
            "for n in $(seq {tries}); do {ROGUE_SAYS} INFO replication | grep -q link_status:up && break; sleep 0.1; done"
        );
        machine.run(&wait).ok();
        let out = machine.run(&format!("{ROGUE_SAYS} INFO replication | grep link_status; {ROGUE_SAYS} GET precious; {ROGUE_SAYS} DBSIZE; cat /tmp/rogue/log; {ROGUE_SAYS} SHUTDOWN NOSAVE"));
        out.ok()
    };
    for shown in ROGUES {
        let out = replica(shown);
        assert!(out.stdout.starts_with("master_link_status:down\r\n\n0\n"), "{shown}: {out}");
        assert!(
            out.stdout.contains("MASTER <-> REPLICA sync started"),
            "{shown}: it did not even try: {out}"
        );
    }
    let out = replica("ours");
    assert!(out.stdout.starts_with("master_link_status:up\r\ndata\n"), "{out}");
    ROGUES.len()
}

/// A replica of ours that is told to follow a rogue master says no password to it, and keeps its keys.
fn is_followed(machine: &Machine) -> usize {
    let follow = |shown: &str| {
        machine.run(&format!("sh /root/rogue {shown}")).ok();
        machine.run("redis-tp cli slave -- REPLICAOF 10.9.1.2 6390").ok();
        let tries = if shown == "ours" { 300 } else { 25 };
        machine.run(&format!("for n in $(seq {tries}); do {ROGUE_SAYS} INFO commandstats | grep -q cmdstat_auth && break; redis-tp cli slave -- INFO replication | grep -q link_status:up && break; sleep 0.1; done")).ok();
        let out = machine.run(&format!("redis-tp cli slave -- INFO replication | grep link_status; redis-tp cli slave -- GET precious; {ROGUE_SAYS} INFO commandstats | grep -Ev 'cmdstat_(ping|info)'; {ROGUE_SAYS} SHUTDOWN NOSAVE"));
        machine.run("redis-tp cli slave -- REPLICAOF 127.0.0.1 6379").ok();
        machine
            .run("until redis-tp cli slave -- INFO replication | grep -q link_status:up; do sleep 0.1; done")
            .ok();
        out.ok()
    };
    // A client's certificate of our authority makes no master.
    for shown in ROGUES.iter().chain(&["client"]) {
        let out = follow(shown);
        assert_eq!(out.stdout, "master_link_status:down\r\ndata\n# Commandstats\r\n", "{shown}: {out}");
    }
    let out = follow("ours");
    // It knows no user of ours, but it heard the password, which makes the others count.
    assert!(out.stdout.contains("cmdstat_auth"), "{out}");
    ROGUES.len() + 1
}

/// What stands on the master's port, where redis-tp looks for it.
const BETWEEN: &[&str] = &[
    "--port 6379",
    "--port 0 --tls-port 6379 --tls-cert-file /root/far/foreign.crt --tls-key-file /root/far/foreign.key",
    "--port 0 --tls-port 6379 --tls-cert-file /root/far/forged-chain.crt --tls-key-file /root/far/forged-chain.key",
    "--port 0 --tls-port 6379 --tls-cert-file /root/far/client.crt --tls-key-file /root/far/client.key",
];
const STANDS: &str = "--bind 127.0.0.1 --dir /tmp --save '' --unixsocket /tmp/between --daemonize yes --pidfile /tmp/between.pid \
    --tls-ca-cert-file /root/far/ours-ca.crt --tls-auth-clients no --logfile /tmp/between.log";

/// Whatever of ours calls a server.
const CALLS: &[&str] = &[
    "verify",
    "status",
    "plan",
    "apply",
    "check",
    "replica list",
    "backup master --to /root/none.rdb",
    "tls rotate",
    "install --set maxmemory=64mb",
    "cli -- GET precious",
    "verify --shell | sh",
];

/// A server on the master's port hears no password of redis-tp, nor of the replica.
fn stands_in_the_middle(machine: &Machine) -> usize {
    machine.run("redis-tp service stop master").ok();
    for between in BETWEEN {
        machine.run(&format!("redis-server {between} {STANDS}")).ok();
        machine.run("until redis-cli -s /tmp/between PING | grep -q PONG; do sleep 0.05; done").ok();
        for call in CALLS {
            machine.run(&format!("timeout 10 redis-tp {call}"));
        }
        let heard =
            machine.run("redis-cli -s /tmp/between INFO commandstats; redis-cli -s /tmp/between ACL LOG");
        let heard = heard.ok().stdout;
        for word in ["auth", "hello", "replconf", "psync", "|get", "cmdstat_get:"] {
            assert!(!heard.contains(word), "{between} heard {word}: {heard}");
        }
        machine.run("redis-cli -s /tmp/between SHUTDOWN NOSAVE; while [ -e /tmp/between.pid ]; do sleep 0.05; done").ok();
    }
    machine.run("redis-tp service start master").ok();
    machine
        .run("until redis-tp cli slave -- INFO replication | grep -q link_status:up; do sleep 0.1; done")
        .ok();
    BETWEEN.len()
}

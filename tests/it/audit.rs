//! Each check of the audit on a machine that is bad in just that way, where it fires, and put right, where it
//! does not.

mod cases;
mod locked_out;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::machine::{Init, Machine, Release};
use crate::story::bare;
use crate::strangers::FAR;
use cases::{CASES, Case, Right};

/// A machine as redis-tp makes it, with an address that is not loopback.
fn good(release: Release, init: Init) -> Option<Machine> {
    let machine = bare(release, init)?;
    machine.run("ip addr add 10.9.0.1/32 dev lo && apt-get install -y nftables redis-server").ok();
    kernel_is(&machine, ["1", "4096", "always [madvise] never"]);
    own_kernel(&machine);
    machine.run("touch /var/lib/apt/lists/partial && redis-tp up").ok();
    machine.run("redis-tp app install --prefix cache: && redis-tp check --fix").ok();
    install_module(&machine);
    Some(machine)
}

/// Sets overcommit, somaxconn and huge pages. The kernel is the host's, and not changed for a test: other files stand
/// in the place of its own.
fn kernel_is(machine: &Machine, values: [&str; 3]) {
    let paths = [
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/net/core/somaxconn",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    for (path, value) in paths.into_iter().zip(values) {
        let name = path.rsplit('/').next().expect("a name");
        machine.run(&format!("echo '{value}' > /root/{name} && mount --bind /root/{name} {path}")).ok();
    }
}

/// Lets a machine pass for one that has the kernel to itself.
fn own_kernel(machine: &Machine) {
    machine.run("rm -f /run/systemd/container; echo HOME=/ > /root/environ; mount --bind /root/environ /proc/1/environ").ok();
}

/// A module as an attacker drops it beside the data: it does nothing, and is there.
const MODULE: &str = r#"
    int RedisModule_OnLoad(void **ctx, void **argv, int argc) {
        void (*attributes)(void *, const char *, int, int);
        int (*get)(const char *, void *) = (int (*)(const char *, void *)) ctx[0];
        get("RedisModule_SetModuleAttribs", &attributes);
        attributes(ctx, "evil", 1, 1);
        return 0;
    }"#;

fn install_module(machine: &Machine) {
    let at = |name: &str| machine.root().join("root").join(name);
    std::fs::write(at("evil.c"), MODULE).expect("the source");
    let built = std::process::Command::new("cc")
        .args(["-w", "-shared", "-fPIC", "-o"])
        .args([at("evil.so"), at("evil.c")])
        .status()
        .expect("cc, which links this test, too");
    assert!(built.success());
    machine.run("install -o redis -g redis -m 755 /root/evil.so /var/lib/redis/evil.so").ok();
}

/// The checks with this id, and their results with severities.
fn results(machine: &Machine, id: &str) -> Vec<(String, String)> {
    let out = machine.run("redis-tp check --json --fail-on critical");
    let json: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out}"));
    let word = |check: &Value, name: &str| check[name].as_str().unwrap_or_default().to_owned();
    let checks = json["checks"].as_array().expect("checks").iter();
    checks
        .filter(|check| check["id"] == id)
        .map(|check| (word(check, "result"), word(check, "severity")))
        .collect()
}

/// The severity of the worst that fired.
fn fired(machine: &Machine, id: &str) -> Option<String> {
    let order = ["low", "medium", "high", "critical"];
    let bad = |(result, _): &(String, String)| result == "fail" || result == "unknown";
    let failed = results(machine, id).into_iter().filter(bad);
    failed.map(|(_, severity)| severity).max_by_key(|word| order.iter().position(|known| known == word))
}

fn fires_and_is_put_right(machine: &Machine, case: &Case) {
    let Case { id, bad, severity, right } = case;
    assert_eq!(fired(machine, id), None, "{id} fires on a good machine");
    machine.run(bad).ok();
    assert_eq!(fired(machine, id).as_deref(), Some(*severity), "{id} on a machine with: {bad}");
    match right {
        Right::Fix => drop(machine.run("redis-tp check --fix --fail-on critical").ok()),
        Right::Typed(command) | Right::TypedThen(command, _) => drop(machine.run(command).ok()),
    }
    let after = results(machine, id);
    assert!(
        after.iter().all(|(result, _)| result == "pass" || result == "skip"),
        "{id} after {right:?}: {after:?}"
    );
    if let Right::TypedThen(_, back) = right {
        machine.run(back).ok();
    }
}

#[test]
fn every_check_fires_on_a_machine_that_is_bad_in_its_way_and_not_when_that_is_put_right() {
    let Some(machine) = good(Release::Bookworm, Init::Systemd) else { return };
    for case in CASES {
        fires_and_is_put_right(&machine, case);
    }
    machine.run("redis-tp verify").ok();
}

/// One of each kind, tried on every release and with every init.
const EVERYWHERE: [&str; 11] = [
    "wide-bind",
    "password",
    "users",
    "config-mode",
    "secrets-files",
    "replaced-binary",
    "security-origin",
    "enable-debug",
    "master-host",
    "overcommit",
    "check-system",
];

#[test]
fn a_check_of_each_kind_fires_on_debian_13() {
    some_fire(Release::Trixie, Init::Systemd);
}

#[test]
fn a_check_of_each_kind_fires_on_debian_13_without_systemd() {
    some_fire(Release::Trixie, Init::None);
}

#[test]
fn a_check_of_each_kind_fires_without_systemd() {
    some_fire(Release::Bookworm, Init::None);
}

fn some_fire(release: Release, init: Init) {
    let Some(machine) = good(release, init) else { return };
    for id in EVERYWHERE {
        let case = CASES.iter().find(|case| case.id == id).expect("a case");
        fires_and_is_put_right(&machine, case);
    }
    machine.run("redis-tp verify").ok();
}

#[test]
fn no_check_of_the_audit_is_without_a_case() {
    let Some(machine) = good(Release::Bookworm, Init::Systemd) else { return };
    let out = machine.run("redis-tp check --json --fail-on critical").ok();
    let json: Value = serde_json::from_str(&out.stdout).expect("JSON");
    let ids: BTreeSet<&str> = json["checks"]
        .as_array()
        .expect("checks")
        .iter()
        .filter(|check| check["severity"].is_string())
        .filter_map(|check| check["id"].as_str())
        .collect();
    let tried: BTreeSet<&str> = CASES.iter().map(|case| case.id).collect();
    assert_eq!(ids.difference(&tried).collect::<Vec<_>>(), [&""; 0]);
    assert!(ids.len() >= 30, "only {} checks", ids.len());
    assert!(
        include_str!("../../README.md").contains(&format!(" {} checks", ids.len())),
        "the README has another number"
    );
}

#[test]
fn a_fix_that_would_lock_somebody_out_is_refused_before_anything_changes() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --bind 0.0.0.0").ok();
    machine.run(FAR).ok();
    machine
        .run(
            "export REDISCLI_AUTH=$(cat /etc/redis-tp/password)
            nohup ip netns exec far redis-cli --user admin -h 10.9.1.1 BLPOP nothing 0 >/dev/null 2>&1 </dev/null &
            echo $! > /root/pid
            for i in $(seq 100); do redis-tp cli -- CLIENT LIST | grep -q 10.9.1.2 && exit; sleep 0.05; done; exit 1",
        )
        .ok();
    let before = machine.read("/etc/redis-tp/topology.ini");
    let refused = machine.run("redis-tp check --fix").exits(5);
    assert!(refused.stderr.contains("10.9.1.2 is connected to master"), "{refused}");
    assert!(refused.stderr.contains("redis-tp check --fix --except wide-bind"), "{refused}");
    assert_eq!(machine.read("/etc/redis-tp/topology.ini"), before);
    machine.run("redis-tp check --fix --except wide-bind --fail-on critical").ok();
    machine.run("kill $(cat /root/pid)    # the client is still there").ok();
}

#[test]
fn a_fix_tells_what_it_did_and_what_is_left_for_a_person() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("echo motdepasse | redis-tp install --password-file -").ok();
    machine.run("redis-tp cli -- ACL SETUSER guest on nopass '~*' +get").ok();
    let read =
        |out: &str| -> Value { serde_json::from_str(out).unwrap_or_else(|error| panic!("{error}: {out}")) };
    let results = |json: &Value, id: &str| -> Vec<String> {
        let checks = json["checks"].as_array().expect("checks").iter().filter(|check| check["id"] == id);
        checks.map(|check| check["result"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let dry = read(&machine.run("redis-tp check --fix --dry-run --json").ok().stdout);
    assert_eq!((&dry["outcome"], &dry["fail_on"]), (&"planned".into(), &"high".into()));
    assert_eq!(
        (results(&dry, "password"), results(&dry, "users")),
        (vec!["fail".into()], vec!["fail".into()])
    );
    assert_eq!((&dry["fixes"][0]["id"], &dry["fixes"][0]["subject"]), (&"password".into(), &"master".into()));

    let shown = machine.run("redis-tp check --fix --dry-run").ok().stdout;
    assert!(shown.contains("cure:  redis-tp cli master -- ACL SETUSER guest off"), "{shown}");
    assert!(!shown.contains("\u{2717} password"), "{shown}");

    let done = read(&machine.run("redis-tp check --fix --json").exits(4).stdout);
    assert_eq!(done["outcome"], "changed");
    assert_eq!(
        (results(&done, "password"), results(&done, "users")),
        (vec!["pass".into()], vec!["fail".into()])
    );
    assert!(done["fixes"].as_array().expect("fixes").iter().any(|fix| fix["id"] == "password"), "{done}");
    machine.run("redis-tp check --fix --json --fail-on critical").ok();

    let all = machine.run("redis-tp check --fix --all").exits(4).stdout;
    assert!(all.contains("\u{2713} let-in"), "{all}");
    machine.run("redis-tp cli master -- ACL SETUSER guest off && redis-tp check --fix --json").ok();
}

#[test]
fn a_cure_of_what_was_taken_over_names_what_its_section_can_say() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run(cases::LAB).ok();
    let by_hand = machine.run("redis-tp check").exits(4).stdout;
    for cure in [
        "cure:  redis-tp adopt && redis-tp check --fix    # binds it to this machine alone",
        "cure:  redis-cli -p 6379 CONFIG SET maxmemory-policy volatile-lru    # if it is a cache",
        "cure:  redis-tp adopt\n",
        "cure:  chmod o-rwx /var/lib/redis-slave\n",
    ] {
        assert!(by_hand.contains(cure), "{cure}: {by_hand}");
    }
    for refused in ["cure:  redis-tp up", "cure:  redis-tp apply", "redis-tp replica add"] {
        assert!(!by_hand.contains(refused), "{refused}: {by_hand}");
    }
    let fix = machine.run("redis-tp check --fix").exits(5);
    assert!(fix.stderr.contains("redis-tp adopt"), "{fix}");
    machine.run("redis-tp adopt").ok();
    let taken_over = machine.run("redis-tp check").stdout;
    assert!(taken_over.contains("[master]: bind = 127.0.0.1, or TLS"), "{taken_over}");
    assert!(!taken_over.contains("redis-tp install --tls"), "{taken_over}");
    machine.run("sed -i 's/^bind = .*/bind = 127.0.0.1/' /etc/redis-tp/topology.ini && redis-tp apply").ok();
    for id in ["cleartext", "default-user", "wide-bind"] {
        assert_eq!(fired(&machine, id), None, "{id}");
    }
}

#[test]
fn protected_mode_is_not_switched_on_where_it_would_lock_somebody_out() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --bind 0.0.0.0").ok();
    machine.run(FAR).ok();
    machine.run("for set in 'protected-mode no' 'requirepass \"\"'; do eval redis-tp cli -- CONFIG SET $set; done").ok();
    machine.run("redis-tp cli -- ACL SETUSER default on nopass '~*' '&*' +@all").ok();
    let mut client = machine.spawn("ip netns exec far redis-cli -h 10.9.1.1 BLPOP nothing 0");
    machine.run("until redis-cli CLIENT LIST | grep -q 10.9.1.2; do sleep 0.05; done").ok();
    let refused =
        machine.run("redis-tp check --fix --except wide-bind --except password --except open-door").exits(5);
    assert!(refused.stderr.contains("`protected-mode = yes` would lock it out"), "{refused}");
    assert!(client.is_running());
}

#[test]
fn what_could_not_be_looked_at_is_no_pass() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("redis-tp install --plain --bind 0.0.0.0 && redis-tp check --fail-on high").ok();
    // No nft and no iptables to ask.
    assert_eq!(results(&machine, "firewall"), [("unknown".to_owned(), "medium".to_owned())]);
    machine.run("redis-tp check --fail-on medium").exits(4);
    machine.run("redis-tp cli -- CONFIG SET requirepass somebodys-own").ok();
    assert_eq!(results(&machine, "let-in"), [("unknown".to_owned(), "high".to_owned())]);
}

/// A check of the audit, and how severe its worst finding is.
type Findings = BTreeSet<(String, String)>;

/// All that fires.
fn findings(machine: &Machine) -> Findings {
    let out = machine.run("redis-tp check --json --fail-on critical");
    let json: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out}"));
    let checks = json["checks"].as_array().expect("checks").iter();
    let ids: BTreeSet<&str> = checks
        .filter(|check| check["severity"].is_string())
        .filter_map(|check| check["id"].as_str())
        .collect();
    ids.into_iter().filter_map(|id| Some((id.to_owned(), fired(machine, id)?))).collect()
}

/// The README's table of the lab's machine.
fn rows_of_the_readme() -> Findings {
    let table = include_str!("../../README.md").lines().skip_while(|line| !line.starts_with("| severity |"));
    let rows = table.skip(2).take_while(|line| line.starts_with('|')).flat_map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let ids = cells[2].split(", ").map(|id| id.trim_matches('`').to_owned());
        ids.map(|id| (id, cells[1].to_owned())).collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn the_labs_own_machine_is_found_as_the_readme_says_taken_over_and_put_right() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    machine.run("apt-get install -y nftables >/dev/null").ok();
    // As Debian's kernel comes.
    kernel_is(&machine, ["0", "4096", "[always] madvise never"]);
    own_kernel(&machine);
    machine.run(cases::LAB).ok();
    let seen = machine.run("redis-tp check").exits(4);
    assert!(seen.stdout.contains("next: redis-tp adopt --dry-run"), "{seen}");
    assert!(!seen.to_string().contains("motdepasse"), "{seen}");
    assert_eq!(findings(&machine), rows_of_the_readme(), "on the left the machine, on the right the README");

    machine.run("redis-tp adopt").ok();
    machine.run("redis-tp check --fix").ok();
    assert_eq!(findings(&machine), BTreeSet::new(), "after the fixes");
    machine.run("redis-tp app install --prefix cache:").ok();
    let cache = [("eviction", "low"), ("maxmemory", "low")].map(|(id, how)| (id.to_owned(), how.to_owned()));
    assert_eq!(findings(&machine), cache.into(), "with an app");
    machine.run("redis-tp check --fix").ok();
    assert_eq!(findings(&machine), BTreeSet::new(), "with an app, after the fixes");
    machine.run("redis-tp verify").ok();
    assert_eq!(machine.run("redis-tp cli slave -- GET precious").ok().stdout, "data\n");
}

#[test]
fn the_kernel_is_set_where_it_is_the_machines_own_and_given_back() {
    let Some(machine) = bare(Release::Bookworm, Init::Systemd) else { return };
    for (path, value) in [
        ("/proc/sys/vm/overcommit_memory", "0"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
    ] {
        let name = path.rsplit('/').next().expect("a name");
        machine.run(&format!("echo '{value}' > /root/{name} && mount --bind /root/{name} {path}")).ok();
    }
    machine.run("redis-tp install").ok();
    let files = ["/etc/sysctl.d/60-redis-tp-overcommit.conf", "/etc/tmpfiles.d/redis-tp-huge-pages.conf"];
    let kernel = |values: [&str; 2]| {
        assert_eq!(machine.run("cat /proc/sys/vm/overcommit_memory").stdout.trim(), values[0]);
        let pages = machine.run("cat /sys/kernel/mm/transparent_hugepage/enabled").stdout;
        assert_eq!(redis_tp::kernel::value(&pages), values[1]);
        files.map(|file| machine.exists(file))
    };
    // In a container it is somebody else's.
    let plan = machine.run("redis-tp check --fix --dry-run").ok();
    assert!(!plan.stdout.contains("in the kernel"), "{plan}");
    let told = machine.run("redis-tp check").stdout;
    assert!(told.contains("> /etc/sysctl.d/60-redis-tp-overcommit.conf && sysctl -p"), "{told}");

    own_kernel(&machine);
    let plan = machine.run("redis-tp check --fix --dry-run").ok();
    assert!(plan.stdout.contains("set vm.overcommit_memory to 1 in the kernel"), "{plan}");
    assert_eq!(kernel(["0", "always"]), [false; 2]);
    machine.run("redis-tp check --fix").ok();
    assert_eq!(kernel(["1", "madvise"]), [true; 2]);
    for (file, reader) in files.into_iter().zip(["sysctl -p", "systemd-tmpfiles --create"]) {
        machine.run(&format!("{reader} {file}")).ok();
    }
    machine.run("redis-tp rollback").ok();
    assert_eq!(kernel(["0", "always"]), [false; 2]);
    machine.run("redis-tp check --fix && redis-tp uninstall").ok();
    assert_eq!(kernel(["0", "always"]), [false; 2]);
}

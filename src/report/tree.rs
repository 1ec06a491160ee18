//! The tree of instances: masters, their replicas below them, and what is not well beneath.

use std::fmt::Write as _;

use super::console::{BAD, FAINT, GOOD, NOTE, TYPE, styled};
use super::text::{WIDTH, bytes, columns, span, wrap};
use crate::status::{Link, Log, Node, Role, State, Status, WebApp};

/// A line of the tree.
struct Row<'a> {
    /// The branches before the mark.
    branch: String,
    what: What<'a>,
}

enum What<'a> {
    Node(&'a Node),
    /// A master on another machine.
    Elsewhere(&'a str),
}

/// One column: its heading, its cells, and whether they are numbers.
struct Column {
    cells: Vec<String>,
    right: bool,
    /// What goes first when the lines are too long; 0 never goes.
    spare: u8,
}

/// The tree as text with styles, 80 columns wide where names and addresses allow.
pub fn tree(status: &Status) -> String {
    let mut text = heading(status);
    if status.nodes.is_empty() {
        let _ = writeln!(text, "No instances.\n\nnext: {}", styled(TYPE, "redis-tp up"));
        return text;
    }
    let rows = rows(&status.nodes);
    let columns = fitting(columns_of(&rows));
    let widths: Vec<usize> = columns.iter().map(Column::width).collect();
    for line in 0..=rows.len() {
        let cells: Vec<String> = columns
            .iter()
            .zip(&widths)
            .filter_map(|(column, width)| Some(pad(column.cells.get(line)?, *width, column.right)))
            .collect();
        let cells = cells.join("  ");
        let cells = cells.trim_end();
        let _ = match line.checked_sub(1).and_then(|at| rows.get(at)) {
            None => writeln!(text, "{}", styled(FAINT, cells)),
            Some(row) => writeln!(text, "{}", with_mark(row, cells)),
        };
    }
    if let Some(app) = &status.app {
        let _ = writeln!(text, "{}", app_line(app, widths.first().copied().unwrap_or_default()));
    }
    status.nodes.iter().for_each(|node| remarks(node, &mut text));
    if let Some(app) = &status.app {
        app_remarks(app, &mut text);
    }
    text
}

/// The web app's line, below the tree; its address stands where theirs do, `width` is that before it. What
/// there is no room for is left out, the last first.
fn app_line(app: &WebApp, width: usize) -> String {
    let mark = if app.problem.is_some() { styled(BAD, "✗") } else { styled(GOOD, "●") };
    let mut facts = Vec::new();
    if let Some(master) = &app.master {
        facts.push(format!("→ {master}"));
    }
    facts.push(format!("TTL {} s", app.ttl_seconds));
    if let (Some(hits), Some(misses)) = (app.hits, app.misses)
        && hits + misses > 0
    {
        facts.push(format!("{} % hits", 100 * hits / (hits + misses)));
    }
    facts.extend(app.pid.map(|pid| format!("pid {pid}")));
    let name = pad("app", width.saturating_sub(2), false);
    let head = format!("{name}  {}", app.url);
    while facts.len() > 1 && 2 + columns(&head) + 2 + columns(&facts.join(" · ")) > WIDTH {
        facts.pop();
    }
    format!("{mark} {head}  {}", styled(FAINT, facts.join(" · ")))
}

fn app_remarks(app: &WebApp, text: &mut String) {
    let Some(problem) = &app.problem else { return };
    let _ = writeln!(text, "\n{} {}", styled(BAD, "✗"), hanging(&format!("app: {problem}")));
    beneath(app.log.as_ref(), app.cure.as_deref(), text);
}

fn heading(status: &Status) -> String {
    let version = status.version.map_or_else(String::new, |version| format!(" {version}"));
    format!("{}\n", styled(TYPE, format_args!("{}{version} · {}", status.engine, status.runtime)))
}

/// The rows in the order of the tree.
fn rows(nodes: &[Node]) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut left: Vec<&Node> = nodes.iter().collect();
    let known = |name: &str| nodes.iter().any(|node| node.name.as_str() == name);
    let roots = nodes.iter().filter(|node| node.follows().is_none());
    let elsewhere = nodes.iter().filter_map(Node::follows).filter(|master| !known(master));
    let mut masters: Vec<&str> = elsewhere.collect();
    masters.dedup();
    masters.sort_unstable();
    masters.dedup();
    for root in roots {
        grow(What::Node(root), "", "", &mut left, &mut rows);
    }
    for master in masters {
        grow(What::Elsewhere(master), "", "", &mut left, &mut rows);
    }
    // Replicas that follow one another in a circle have no root.
    while let Some(node) = left.first().copied() {
        grow(What::Node(node), "", "", &mut left, &mut rows);
    }
    rows
}

/// Puts a row and the rows below it; `left` are those that have no place yet.
fn grow<'a>(what: What<'a>, branch: &str, below: &str, left: &mut Vec<&'a Node>, rows: &mut Vec<Row<'a>>) {
    let name = match &what {
        What::Node(node) => {
            left.retain(|other| other.name != node.name);
            node.name.as_str()
        }
        What::Elsewhere(master) => master,
    };
    rows.push(Row { branch: branch.to_owned(), what });
    loop {
        let mut followers = left.iter().filter(|node| node.follows() == Some(name));
        let (Some(next), more) = (followers.next().copied(), followers.next().is_some()) else { return };
        let (branch, beside) = if more { ("├─", "│ ") } else { ("└─", "  ") };
        grow(What::Node(next), &format!("{below}{branch}"), &format!("{below}{beside}"), left, rows);
    }
}

fn columns_of(rows: &[Row<'_>]) -> Vec<Column> {
    let column = |heading: &str, right: bool, spare: u8, cell: &dyn Fn(&Node) -> Option<String>| {
        let cells = rows.iter().map(|row| match row.what {
            What::Node(node) => cell(node).unwrap_or_default(),
            What::Elsewhere(_) => String::new(),
        });
        Column { cells: std::iter::once(heading.to_owned()).chain(cells).collect(), right, spare }
    };
    let first = rows.iter().map(|row| match row.what {
        What::Node(node) => format!("{}● {}", row.branch, node.name),
        What::Elsewhere(master) => format!("{}○ {master}", row.branch),
    });
    let first = std::iter::once(String::new()).chain(first).collect();
    let mut columns = vec![
        Column { cells: first, right: false, spare: 0 },
        column("address", false, 0, &|node| Some(node.address.clone())),
        column("role", false, 0, &|node| Some(role(node).to_owned())),
        column("link", false, 0, &|node| node.link.map(link).map(str::to_owned)),
        column("lag", true, 0, &lag),
        column("memory", true, 2, &|node| node.memory_bytes.map(bytes)),
        column("keys", true, 1, &|node| node.keys.map(|keys| keys.to_string())),
        column("up", true, 4, &|node| node.uptime_seconds.map(span)),
        column("pid", true, 3, &|node| node.pid.map(|pid| pid.to_string())),
    ];
    // A column without a cell says nothing; where there is no replica, link and lag go.
    columns.retain(|column| column.cells.iter().skip(1).any(|cell| !cell.is_empty()));
    columns
}

fn role(node: &Node) -> &'static str {
    match (node.state, node.role) {
        (State::Up, Role::Master) => "master",
        (State::Up, Role::Replica) => "replica",
        (State::Up, Role::Unknown) => "unknown",
        (State::Loading, _) => "loading",
        (State::LockedOut, _) => "locked out",
        (State::NoAnswer, _) => "no answer",
        (State::Foreign, _) => "not ours",
        (State::Down, _) => "down",
    }
}

fn link(link: Link) -> &'static str {
    match link {
        Link::Up => "up",
        Link::Syncing => "syncing",
        Link::Down => "down",
    }
}

/// Bytes are worth a mention only while there are some.
fn lag(node: &Node) -> Option<String> {
    let seconds = node.lag_seconds.map(span);
    match node.lag_bytes.filter(|behind| *behind > 0) {
        Some(behind) => Some(format!("{}/{}", seconds.unwrap_or_default(), bytes(behind))),
        None => seconds,
    }
}

/// Without the columns that are the easiest to spare, until the lines fit.
fn fitting(mut columns: Vec<Column>) -> Vec<Column> {
    let total = |columns: &[Column]| {
        columns.iter().map(Column::width).sum::<usize>() + 2 * columns.len().saturating_sub(1)
    };
    while total(&columns) > WIDTH {
        let Some(spare) = columns.iter().map(|column| column.spare).max().filter(|spare| *spare > 0) else {
            break;
        };
        columns.retain(|column| column.spare != spare);
    }
    columns
}

impl Column {
    fn width(&self) -> usize {
        self.cells.iter().map(|cell| columns(cell)).max().unwrap_or(0)
    }
}

fn pad(cell: &str, width: usize, right: bool) -> String {
    if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
}

/// Widths are counted before there are styles; only then the mark gets its colour.
fn with_mark(row: &Row<'_>, cells: &str) -> String {
    let (style, mark) = match row.what {
        What::Elsewhere(_) => return cells.to_owned(),
        What::Node(node) if node.problem.is_none() => (GOOD, "●"),
        What::Node(node) if matches!(node.state, State::Loading) || node.link == Some(Link::Syncing) => {
            (NOTE, "●")
        }
        What::Node(_) => (BAD, "✗"),
    };
    cells.replacen('●', &styled(style, mark), 1)
}

/// What there is to say of a node beneath the tree: most important line last.
fn remarks(node: &Node, text: &mut String) {
    let name = &node.name;
    if node.is_moved() {
        let remark = format!(
            "{name}: {} now, by somebody's hand; the topology says {}",
            place(node.role, node.master.as_deref()),
            place(node.wanted_role, node.wanted_master.as_deref())
        );
        let _ = writeln!(text, "\n{} {}", styled(NOTE, "!"), hanging(&remark));
    }
    let Some(problem) = &node.problem else { return };
    let passing = matches!(node.state, State::Loading) || node.link == Some(Link::Syncing);
    let mark = if passing { styled(NOTE, "!") } else { styled(BAD, "✗") };
    let _ = writeln!(text, "\n{mark} {}", hanging(&format!("{name}: {problem}")));
    beneath(node.log.as_ref(), node.cure.as_deref(), text);
}

/// What was last said, and the command to type.
fn beneath(log: Option<&Log>, cure: Option<&str>, text: &mut String) {
    if let Some(log) = log {
        let _ = writeln!(text, "  {}", styled(FAINT, format_args!("the last lines of {}:", log.source)));
        for line in &log.lines {
            let _ = writeln!(text, "    {}", styled(FAINT, wrap(line, WIDTH - 6).join("\n      ")));
        }
    }
    if let Some(cure) = cure {
        let _ = writeln!(text, "  next: {}", styled(TYPE, cure));
    }
}

fn hanging(remark: &str) -> String {
    wrap(remark, WIDTH - 2).join("\n  ")
}

fn place(role: Role, master: Option<&str>) -> String {
    match (role, master) {
        (Role::Replica, Some(master)) => format!("replica of {master}"),
        (Role::Replica, None) => "replica".into(),
        (Role::Master | Role::Unknown, _) => "master".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Engine, Version};
    use crate::runtime::Runtime;
    use crate::topology::Name;

    fn node(name: &str, port: u16, master: Option<&str>) -> Node {
        let role = if master.is_some() { Role::Replica } else { Role::Master };
        Node {
            runtime: Runtime::Systemd,
            name: Name::parse(name).unwrap(),
            address: format!("127.0.0.1:{port}"),
            state: State::Up,
            role,
            wanted_role: role,
            master: master.map(str::to_owned),
            wanted_master: master.map(str::to_owned),
            link: master.map(|_| Link::Up),
            lag_seconds: master.map(|_| 0),
            lag_bytes: master.map(|_| 0),
            memory_bytes: Some(1_258_291),
            keys: Some(42),
            clients: Some(0),
            uptime_seconds: Some(200),
            version: Some("7.0.15".into()),
            unit: None,
            unit_state: None,
            pid: Some(812),
            problem: None,
            cure: None,
            log: None,
        }
    }

    fn shown(nodes: Vec<Node>) -> String {
        shown_with(nodes, None)
    }

    fn shown_with(nodes: Vec<Node>, app: Option<WebApp>) -> String {
        let status = Status {
            schema: 1,
            command: "status",
            engine: Engine::Redis,
            version: Some(Version { major: 7, minor: 0, patch: 15 }),
            runtime: Runtime::Systemd,
            nodes,
            app,
        };
        let plain = anstream::adapter::strip_str(&tree(&status)).to_string();
        plain.lines().for_each(|line| assert!(columns(line) <= WIDTH, "{line}"));
        plain
    }

    #[test]
    fn a_chain_stands_below_its_master_in_columns() {
        let nodes = vec![
            node("master", 6379, None),
            node("slave", 6380, Some("master")),
            node("slave-6381", 6381, Some("slave")),
            node("last", 6382, Some("master")),
        ];
        let expected = "\
Redis 7.0.15 · systemd
                  address         role     link  lag   memory  keys     up  pid
● master          127.0.0.1:6379  master              1.2 MiB    42  3 min  812
├─● slave         127.0.0.1:6380  replica  up    0 s  1.2 MiB    42  3 min  812
│ └─● slave-6381  127.0.0.1:6381  replica  up    0 s  1.2 MiB    42  3 min  812
└─● last          127.0.0.1:6382  replica  up    0 s  1.2 MiB    42  3 min  812
";
        assert_eq!(shown(nodes), expected);
    }

    #[test]
    fn a_master_elsewhere_has_a_line_and_a_circle_is_not_lost() {
        let nodes = vec![
            node("a", 1, Some("10.0.0.5:6379")),
            node("b", 2, Some("c")),
            node("c", 3, Some("b")),
            node("d", 4, Some("10.0.0.5:6379")),
        ];
        let names: Vec<String> = shown(nodes)
            .lines()
            .skip(2)
            .map(|line| line.split("  127").next().unwrap().trim_end().to_owned())
            .collect();
        assert_eq!(names, ["○ 10.0.0.5:6379", "├─● a", "└─● d", "● b", "└─● c"]);
    }

    #[test]
    fn long_names_cost_columns_and_not_the_width() {
        let long = node("a-name-as-long-as-thirty-two-chr", 6380, Some("master"));
        let text = shown(vec![node("master", 6379, None), long]);
        assert!(text.contains("keys") && !text.contains("memory"), "{text}");
    }

    #[test]
    fn an_unhealthy_one_ends_with_what_to_type() {
        let mut slave = node("slave", 6380, Some("master"));
        slave.link = Some(Link::Down);
        slave.problem = Some("no link to master".into());
        slave.log = Some(Log { source: "/var/log/x".into(), lines: vec!["word ".repeat(30)] });
        slave.cure = Some("redis-tp check".into());
        let text = shown(vec![node("master", 6379, None), slave]);
        assert!(text.contains("└─✗ slave") && text.contains("✗ slave: no link to master\n"), "{text}");
        assert!(text.ends_with("\n  next: redis-tp check\n"), "{text}");
    }

    #[test]
    fn the_app_stands_below_the_tree_and_its_trouble_beneath() {
        let mut app = WebApp {
            url: "http://127.0.0.1:5000".into(),
            up: true,
            master: Some("master".into()),
            ttl_seconds: 60,
            read_from: "master".into(),
            source: "simulated".into(),
            hits: Some(9),
            misses: Some(3),
            unit: None,
            unit_state: None,
            pid: Some(812),
            problem: None,
            cure: None,
            log: None,
        };
        let nodes = || vec![node("master", 6379, None), node("slave", 6380, Some("master"))];
        let text = shown_with(nodes(), Some(app.clone()));
        let line = "\n● app      http://127.0.0.1:5000  → master · TTL 60 s · 75 % hits · pid 812\n";
        assert!(text.ends_with(line), "{text}");
        let mut long = nodes();
        long.push(node("a-replica-with-quite-a-long-name", 6381, Some("master")));
        let text = shown_with(long, Some(app.clone()));
        assert!(text.ends_with("http://127.0.0.1:5000  → master · TTL 60 s\n"), "{text}");
        app.problem = Some("it does not run".into());
        app.cure = Some("redis-tp service start app".into());
        let text = shown_with(nodes(), Some(app));
        assert!(text.ends_with("\n✗ app: it does not run\n  next: redis-tp service start app\n"), "{text}");
    }

    #[test]
    fn a_promoted_replica_is_told_and_is_no_failure() {
        let mut slave = node("slave", 6380, None);
        slave.wanted_role = Role::Replica;
        slave.wanted_master = Some("master".into());
        let text = shown(vec![node("master", 6379, None), slave]);
        let told = "! slave: master now, by somebody's hand; the topology says replica of master";
        assert!(text.contains(told), "{text}");
        assert!(!text.contains('✗'), "{text}");
    }
}

//! The page of the web app, in a real Chromium, before a real app and real servers. What it looks like
//! is written to target/page-shots, for people to look at.

use std::env;
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::app::lab::free_port;
use crate::browser::{Browser, ENTER, TAB};

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A master, a replica and the app in front of them.
struct Lab {
    server: PathBuf,
    dir: TempDir,
    ports: [u16; 3],
    master: Option<Running>,
    replica: Option<Running>,
    app: Option<Running>,
}

impl Lab {
    /// Starts all three, where there are a server and a browser; else says what is missing.
    fn start_or_skip() -> Option<Self> {
        let reason = match (server(), Browser::available()) {
            (Some(server), Ok(())) => return Some(Self::start(server)),
            (None, _) => "no redis-server on PATH; `tests/run` gets one".to_owned(),
            (_, Err(reason)) => reason,
        };
        assert!(env::var_os("REDIS_TP_TEST_FULL").is_none_or(|full| full != "1"), "{reason}");
        let thread = std::thread::current();
        // Not eprintln!: the test harness would swallow that, as the test passes.
        let _ = writeln!(io::stderr(), "skipped {}: {reason}", thread.name().unwrap_or("a test"));
        None
    }

    fn start(server: PathBuf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut lab = Self {
            server,
            dir,
            ports: [(); 3].map(|()| free_port()),
            master: None,
            replica: None,
            app: None,
        };
        lab.start_master();
        lab.start_replica();
        lab.start_app();
        lab
    }

    fn start_master(&mut self) {
        self.master = Some(self.redis(self.ports[0], &[]));
    }

    fn start_replica(&mut self) {
        let master = self.ports[0].to_string();
        self.replica = Some(self.redis(self.ports[1], &["--replicaof", "127.0.0.1", &master]));
    }

    fn redis(&self, port: u16, more: &[&str]) -> Running {
        let text = port.to_string();
        let mut command = Command::new(&self.server);
        command.args(["--port", &text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(["--repl-diskless-sync-delay", "0"]).args(more).current_dir(self.dir.path());
        answering(command, port)
    }

    fn start_app(&mut self) {
        let [master, replica, port] = self.ports;
        let mut command = Command::new(env!("CARGO_BIN_EXE_redis-tp"));
        command.args(["app", "serve", "--slow", "2", "--ttl", "8", "--port", &port.to_string()]);
        command.args(["--redis", &format!("127.0.0.1:{master}"), "--redis", &format!("127.0.0.1:{replica}")]);
        self.app = Some(answering(command, port));
    }

    /// Opens the page, and waits until it shows both servers.
    fn visit(&self, language: &str, query: &str) -> Browser {
        let browser = Browser::open(language);
        browser.width(1280);
        self.reload(&browser, query);
        browser
    }

    fn reload(&self, browser: &Browser, query: &str) {
        browser.go(&format!("http://127.0.0.1:{}/{query}", self.ports[2]));
        browser.wait("document.body.dataset.app === 'live'");
        browser.wait("document.querySelectorAll('#nodes tr[data-state=up]').length === 2");
        browser.wait("document.querySelector('#nodes tr[data-link=up]')");
    }

    fn node(&self, which: usize) -> String {
        format!("#nodes tr[data-node='127.0.0.1:{}']", self.ports[which])
    }
}

fn server() -> Option<PathBuf> {
    let named = env::var_os("REDIS_TP_TEST_SERVER").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    named.or_else(|| env::split_paths(&path).map(|dir| dir.join("redis-server")).find(|file| file.exists()))
}

/// Starts a child, and waits until it listens.
fn answering(mut command: Command, port: u16) -> Running {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Running(command.spawn().unwrap());
    let begun = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = child.0.try_wait().unwrap();
        assert!(ended.is_none() && begun.elapsed() < Duration::from_secs(20), "{command:?}: {ended:?}");
        sleep(Duration::from_millis(10));
    }
    child
}

/// Waits for the answer to the newest request.
fn answered(browser: &Browser, result: &str) {
    browser.wait(&format!("document.querySelector('#badge').dataset.result === '{result}'"));
}

/// Asks for a key in place of the one in the field.
fn ask(browser: &Browser, key: &str) {
    let key = serde_json::to_string(key).unwrap();
    browser
        .js(&format!("document.querySelector('#key').value = {key}; document.querySelector('#key').focus()"));
    browser.press(ENTER);
    browser.wait("!['none', 'busy'].includes(document.querySelector('#badge').dataset.result)");
}

fn number(browser: &Browser, selector: &str, name: &str) -> f64 {
    let text = browser.data(selector, name);
    text.parse().unwrap_or_else(|_| panic!("{selector} has no number: {text:?}"))
}

#[test]
fn a_request_is_seen_on_its_way_cold_then_warm_then_cold_again() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    assert!(browser.holds("!document.querySelector('#notices li')"), "{}", browser.text("#notices"));
    browser.picture("start");

    // The field has the focus: who comes needs one key.
    browser.press(ENTER);
    browser.wait("document.querySelector('#hop-database').dataset.state === 'running'");
    browser.wait("document.querySelector('#hop-cache').dataset.state === 'done'");
    browser.wait("parseInt(document.querySelector('#hop-database .ms').textContent.replace(',', '')) > 300");
    browser.wait("document.querySelector('#dot.cold:not([hidden])')");
    browser.picture("cold-at-work");
    answered(&browser, "MISS");
    let read = number(&browser, "#hop-database", "ms");
    assert!((2000.0..20_000.0).contains(&read), "{read} ms");
    assert_eq!(browser.data("#hop-cache", "outcome"), "miss");
    assert_eq!(browser.data("#hop-store", "outcome"), "stored");
    assert!(browser.text("#json").contains(r#""source":"database (slow)""#), "{}", browser.text("#json"));
    assert!(browser.text("#hop-database .ms").ends_with("ms"));

    browser.press(ENTER);
    answered(&browser, "HIT");
    let warm = number(&browser, "#total", "ms");
    assert!(warm < 500.0, "{warm} ms");
    assert_eq!(browser.data("#hop-cache", "outcome"), "hit");
    assert_eq!(browser.data("#hop-database", "state"), "skipped");
    assert_eq!(browser.data("#ring", "state"), "running");
    browser.wait("document.querySelector('#factor').dataset.factor > 3");
    browser.wait("document.querySelector('#ratio-all').dataset.ratio === '0.5'");
    assert_eq!(browser.data("#ratio-page", "ratio"), "0.5");
    assert!(number(&browser, "#cold", "ms") >= 2000.0 && number(&browser, "#warm", "ms") < 500.0);
    let wide = |bar: &str| browser.js(&format!("return document.querySelector('{bar} i').clientWidth"));
    browser.wait("document.querySelector('#cold i').clientWidth > 300");
    assert!(wide("#warm").as_u64() < Some(150), "{}", wide("#warm"));
    browser.picture("warm");

    browser.wait("document.querySelector('#ring').dataset.state === 'expired'");
    assert!(browser.text("#sentence").contains("miss"), "{}", browser.text("#sentence"));
    browser.picture("expired");
    browser.press(ENTER);
    answered(&browser, "MISS");
    let log =
        browser.js("return [...document.querySelectorAll('#log tbody tr')].map((row) => row.dataset.result)");
    assert_eq!(log, serde_json::json!(["MISS", "HIT", "MISS"]));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn who_waits_for_anothers_read_sees_that() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    browser.press(ENTER);
    browser.wait("document.querySelector('#hop-database').dataset.state === 'running'");
    browser.press(ENTER);
    browser.wait("document.querySelectorAll('#log tbody tr').length === 2");
    assert_eq!(browser.data("#hop-database", "outcome"), "shared");
    assert!(browser.text("#sentence").contains("one slow read for both"), "{}", browser.text("#sentence"));
    browser.wait("document.querySelector('#slow-reads').textContent === '1 read'");
}

#[test]
fn servers_that_stop_and_come_back_are_seen_and_answers_come() {
    let Some(mut lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    let state = |which| format!("document.querySelector(\"{}\").dataset.state", lab.node(which));
    let (master, replica) = (state(0), state(1));
    let depth = browser.data(&lab.node(1), "depth");
    assert_eq!(depth, "1", "a replica stands below its master");

    lab.replica = None;
    browser.wait(&format!("{replica} !== 'up'"));
    browser.wait("document.querySelector('#notices li[data-what=node-down]')");
    browser.picture("replica-away");
    lab.start_replica();
    browser.wait(&format!("{replica} === 'up'"));
    browser.wait("document.querySelector('#notices li[data-what=node-up]')");

    lab.master = None;
    browser.wait(&format!("{master} !== 'up'"));
    browser.wait("document.body.dataset.cache === 'away' && !document.querySelector('#cache-away').hidden");
    browser.wait("document.querySelector('#notices li[data-what=master-away]')");
    ask(&browser, "meanwhile");
    answered(&browser, "BYPASS");
    assert!(browser.text("#json").contains("MEANWHILE"), "{}", browser.text("#json"));
    browser.picture("master-away");

    lab.start_master();
    browser.wait("document.body.dataset.cache === 'up' && document.querySelector('#cache-away').hidden");
    browser.wait("document.querySelector('#notices li[data-what=master-back]')");
    ask(&browser, "afterwards");
    ask(&browser, "afterwards");
    answered(&browser, "HIT");
    browser.picture("master-back");
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn an_app_that_goes_away_is_said_and_comes_back_by_itself() {
    let Some(mut lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    lab.app = None;
    browser.wait("document.body.dataset.app === 'away' && !document.querySelector('#app-away').hidden");
    browser.press(ENTER);
    answered(&browser, "ERROR");
    assert_eq!(browser.text("#sentence"), "The app does not answer.");
    browser.picture("app-away");
    lab.start_app();
    browser.wait("document.body.dataset.app === 'live' && document.querySelector('#app-away').hidden");
    browser.press(ENTER);
    answered(&browser, "MISS");
    browser.wait("document.querySelector('#notices li[data-what=app-back]')");
}

#[test]
fn french_is_french_where_it_is_preferred_or_asked_for() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("fr-FR,fr,en", "");
    let language = || browser.js("return document.documentElement.lang");
    assert_eq!(language(), "fr");
    assert_eq!(browser.text("#send"), "Envoyer⏎");
    browser.press(ENTER);
    browser.wait("document.querySelector('#hop-database').dataset.state === 'running'");
    answered(&browser, "MISS");
    browser.press(ENTER);
    answered(&browser, "HIT");
    assert_eq!(
        browser.text("#sentence"),
        "«\u{a0}bonjour\u{a0}» était dans le cache. La base de données n’a pas été interrogée."
    );
    assert!(browser.text("#total").contains(','), "{}", browser.text("#total"));
    browser.wait("document.querySelector('#ratio-page b').textContent === '50\\u202f%' || document.querySelector('#ratio-page b').textContent === '50\\u00a0%'");
    browser.picture("french");
    lab.reload(&browser, "?lang=en");
    assert_eq!(language(), "en");
    // By the keyboard alone, and back.
    browser.js("document.querySelector('nav a[lang=fr]').focus()");
    browser.press(ENTER);
    browser.wait("document.documentElement.lang === 'fr'");
}

#[test]
fn a_long_table_of_instances_stays_in_its_box() {
    let Some(lab) = Lab::start_or_skip() else { return };
    // What three more replicas would be, one below the other, and how far the table then stands out.
    let over = "const body = document.querySelector('#nodes tbody'); \
        const names = ['192.168.100.101:16380', 'a-replica-with-quite-a-long-name', 'slave']; \
        names.forEach((name, at) => { \
            const row = body.lastElementChild.cloneNode(true); \
            row.dataset.depth = Math.min(at + 1, 2); \
            row.querySelector('.name').textContent = name; \
            ['', 'en synchro', '99\u{202f}999\u{a0}o', '123\u{202f}456', '512,0\u{a0}Mio'].forEach((text, cell) => { \
                if (text) row.cells[cell + 1].textContent = text; }); \
            body.append(row); }); \
        return document.querySelector('#nodes').getBoundingClientRect().right \
            - document.querySelector('#nodes').parentElement.getBoundingClientRect().right";
    let browser = Browser::open("fr");
    for width in [1280, 1180, 1000, 390] {
        browser.width(width);
        lab.reload(&browser, "");
        let over = browser.js(over).as_f64().unwrap();
        browser.picture(&format!("long-table-{width}"));
        assert!(over <= 0.5, "{over} px too wide at {width}");
    }
}

#[test]
fn everything_is_done_by_the_keyboard_and_the_focus_is_seen() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    let focus = || browser.js("return document.activeElement.id");
    let ringed = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    assert_eq!(focus(), "key");
    browser.press(TAB);
    assert_eq!(focus(), "send");
    assert!(browser.holds(ringed), "the focus is not seen");
    browser.press(TAB);
    assert_eq!(focus(), "fresh");
    browser.press(" ");
    assert_eq!(focus(), "key");
    let key = browser.js("return document.querySelector('#key').value");
    assert_ne!(key, "bonjour");
    browser.press(TAB);
    browser.press(ENTER);
    answered(&browser, "MISS");
    assert!(browser.text("#sentence").contains(key.as_str().unwrap()));
    // What a screen reader needs: names for all there is to use, and news that are told.
    let nameless = "return [...document.querySelectorAll('a, button, input')].filter((one) => \
        !(one.textContent.trim() || one.labels?.length)).length";
    assert_eq!(browser.js(nameless), 0);
    assert!(browser.holds("document.querySelector('#sentence').role === 'status'"));
}

#[test]
fn it_can_be_read_in_light_and_dark_and_at_any_width() {
    let Some(mut lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("fr", "");
    browser.press(ENTER);
    answered(&browser, "MISS");
    browser.press(ENTER);
    answered(&browser, "HIT");
    ask(&browser, &"a-long-key/".repeat(40));
    lab.master = None;
    browser.wait("document.body.dataset.cache === 'away'");
    ask(&browser, "bypassed");
    ask(&browser, "");
    for scheme in ["light", "dark"] {
        browser.prefers(&[("prefers-color-scheme", scheme)]);
        for width in [320, 360, 700, 1000, 1280, 1800] {
            browser.width(width);
            assert_eq!(browser.js(WIDE), serde_json::json!([]), "{width} px");
            assert_eq!(browser.js(CLIPPED), serde_json::json!([]), "{width} px");
            if let 360 | 1280 = width {
                browser.picture(&format!("{scheme}-{width}"));
            }
        }
        assert_eq!(browser.js(PALE), serde_json::json!([]), "{scheme}");
    }
}

#[test]
fn who_wants_no_motion_gets_none() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    browser.prefers(&[("prefers-reduced-motion", "reduce")]);
    browser.press(ENTER);
    browser.wait("document.querySelector('#hop-database').dataset.state === 'running'");
    assert!(browser.holds("document.querySelector('#dot').hidden && document.getAnimations().length === 0"));
    answered(&browser, "MISS");
}

#[test]
fn a_key_is_text_and_nothing_else() {
    let Some(lab) = Lab::start_or_skip() else { return };
    let browser = lab.visit("en", "");
    for key in ["<img src=x onerror=alert(1)>", "'\"&</script>`$(id)", "é/ ?#%41\\ 鍵", "a\u{202e}b", "{key}"]
    {
        ask(&browser, key);
        answered(&browser, "MISS");
        assert!(browser.text("#sentence").contains(key), "{}", browser.text("#sentence"));
        assert_eq!(browser.text("#log tbody td:nth-child(2)"), key);
        assert_eq!(browser.text("#ring .of"), key);
        let shown: serde_json::Value = serde_json::from_str(&browser.text("#json")).unwrap();
        assert_eq!(shown["key"], key);
        assert!(browser.holds("!document.querySelector('img, main script, a[href^=javascript]')"));
    }
    browser.picture("odd-key");
    assert_eq!(browser.console(), Vec::<String>::new());
    for (key, said) in [("", "type one"), ("..", "directory"), (&*"k".repeat(513), "512 bytes")] {
        ask(&browser, key);
        answered(&browser, "ERROR");
        assert!(browser.text("#sentence").contains(said), "{}", browser.text("#sentence"));
    }
    ask(&browser, &"k".repeat(512));
    answered(&browser, "MISS");
}

/// What makes the page wider than its window.
const WIDE: &str = r#"
    const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= wide) return [];
    return [...document.querySelectorAll("body *")]
      .filter((box) => box.getBoundingClientRect().right > wide)
      .map((box) => `${box.id || box.className || box.tagName}: ${box.textContent}`);
"#;

/// Texts that stand out of the box that they are in.
const CLIPPED: &str = r#"
    return [...document.querySelectorAll(".station, .way, button, .badge, td, .pair > section, header, .figure")]
      .filter((box) => box.getClientRects().length && getComputedStyle(box).overflow === "visible" && box.scrollWidth > box.clientWidth + 11)
      .map((box) => `${box.id || box.className || box.tagName} (${box.textContent.slice(0, 40)}): ${box.scrollWidth} in ${box.clientWidth}`);
"#;

/// Texts with less contrast than WCAG AA asks of small ones.
const PALE: &str = r#"
    const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const colour = (text) => text.match(/[\d.]+/g).map(Number);
    const behind = (element) => {
      for (; element; element = element.parentElement) {
        const found = colour(getComputedStyle(element).backgroundColor);
        if (found.length === 3 || found[3] === 1) return found;
      }
      return [255, 255, 255];
    };
    const pale = [];
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
      if (!own || !element.getClientRects().length || element.closest("noscript, script")) continue;
      const [a, b] = [light(colour(getComputedStyle(element).color)), light(behind(element))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4.5) pale.push(`${element.textContent}: ${contrast}`);
    }
    return pale;
"#;

//! A real Chromium without a window, driven by WebDriver: chromedriver's plain HTTP, a connection a
//! command. Both end when the [`Browser`] is dropped.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Keys as WebDriver names them.
pub const ENTER: &str = "\u{e007}";
/// The next element.
pub const TAB: &str = "\u{e004}";
/// How long a page may take to become what a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// One browser with one page.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    chromium: Option<Pid>,
    _profile: TempDir,
}

impl Browser {
    /// Why there can be no browser here, if so.
    pub fn available() -> Result<(), String> {
        let path = env::var_os("PATH").unwrap_or_default();
        for tool in ["chromium", "chromedriver"] {
            if !env::split_paths(&path).any(|dir| dir.join(tool).exists()) {
                return Err(format!("no {tool} here; `tests/run` installs it"));
            }
        }
        Ok(())
    }

    /// Starts a browser whose user reads this language.
    pub fn open(language: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            // What the two leave behind goes with the profile.
            .env("TMPDIR", profile.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let port = port_of(&mut driver);
        let mut browser = Self { driver, port, session: String::new(), chromium: None, _profile: profile };
        let mut arguments: Vec<String> = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(format!("--accept-lang={language}"));
        arguments.push(format!("--user-data-dir={}", browser._profile.path().display()));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let made = browser.send("POST", "/session", &wanted);
        browser.session = format!("/session/{}", made["sessionId"].as_str().expect("a session"));
        let pid = made["capabilities"]["goog:processID"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        browser.chromium = pid.map(Pid::from_raw);
        browser
    }

    /// Loads a page.
    pub fn go(&self, url: &str) {
        self.command("/url", &json!({ "url": url }));
    }

    /// What a script returns.
    pub fn js(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Waits until an expression holds.
    pub fn wait(&self, expression: &str) {
        let begun = Instant::now();
        while !self.holds(expression) {
            if begun.elapsed() > PATIENCE {
                self.picture("failed");
                let page = self.js("return document.body.innerText");
                panic!("never came: {expression}\n{}", page.as_str().unwrap_or_default());
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Whether an expression holds now.
    pub fn holds(&self, expression: &str) -> bool {
        self.js(&format!("return Boolean({expression})")) == json!(true)
    }

    /// The text of an element.
    pub fn text(&self, selector: &str) -> String {
        let text = self.js(&format!("return document.querySelector({selector:?}).textContent"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// What an element's `data-` attribute says.
    pub fn data(&self, selector: &str, name: &str) -> String {
        let value = self.js(&format!("return document.querySelector({selector:?})?.dataset.{name}"));
        value.as_str().unwrap_or_default().to_owned()
    }

    /// Types on the keyboard, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
            })
            .collect();
        self.command(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }),
        );
    }

    /// A command of Chromium's own protocol.
    pub fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// The window's width, in CSS pixels.
    pub fn width(&self, width: u32) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the user prefers, as media features.
    pub fn prefers(&self, features: &[(&str, &str)]) {
        let features: Vec<Value> =
            features.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        self.devtools("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// What the console said since the last call: errors, and what the page's policy refused.
    pub fn console(&self) -> Vec<String> {
        let said = self.command("/se/log", &json!({ "type": "browser" }));
        said.as_array().expect("a log").iter().map(|line| line["message"].to_string()).collect()
    }

    /// Writes the whole page, as it looks, to target/page-shots.
    pub fn picture(&self, name: &str) {
        let shot = self.devtools("Page.captureScreenshot", &json!({ "captureBeyondViewport": true }));
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("page-shots");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name).with_extension("png"), decoded(shot["data"].as_str().unwrap())).unwrap();
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.send("POST", &format!("{}{path}", self.session), body)
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.try_send(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    fn try_send(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let ended = self.try_send("DELETE", &self.session, &json!({})).is_ok();
        if let (false, Some(chromium)) = (ended, self.chromium) {
            let _ = kill(chromium, Signal::SIGKILL);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Chromedriver chooses a free port and says which.
fn port_of(driver: &mut Child) -> u16 {
    let said = BufReader::new(driver.stdout.take().expect("it is piped"));
    for line in said.lines().map_while(Result::ok) {
        let port = line.strip_suffix('.').and_then(|line| line.rsplit(' ').next()?.parse().ok());
        if let (true, Some(port)) = (line.contains("started successfully"), port) {
            return port;
        }
    }
    panic!("chromedriver names no port");
}

fn decoded(base64: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in base64.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, c| bits << 6 | u32::from(value(*c)));
        let bits = bits << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}

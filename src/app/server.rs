//! The app as a server: it listens, takes connections, and stops without leaving a request unanswered.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::answer::{PATH, data};
use super::cache::Cache;
use super::events::Hub;
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::page::Page;
use super::routes;
use super::settings::Settings;
use super::shared::Shared;
use super::source::Database;
use crate::exit::Fault;
use crate::facts;
use crate::host::Host;
use crate::report::console;

/// How many connections there are at once, each of which may take 30 KiB; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// How long a client may take to say what it wants, or nothing.
const HEADERS: Duration = Duration::from_secs(10);
/// How much of a request is read before it is too large (431, with no body).
const BUFFER: usize = 16 * 1024;
/// How long requests under way may take when the app stops, beside the simulated database.
const FAREWELL: Duration = Duration::from_secs(5);
/// How many threads serve at most: one answers tens of thousands of requests a second.
const THREADS: usize = 4;

/// An app in this process; it stops when the value is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Until when an app runs.
enum Until {
    /// It is told to stop by its owner.
    Dropped(oneshot::Receiver<()>),
    /// The process is told to end.
    Signal,
}

/// Runs the app until SIGINT, SIGTERM or SIGHUP, and says where it listens.
///
/// # Errors
/// The address cannot be listened on, or the database cannot be read.
pub fn serve(host: &Host, settings: Settings) -> Result<()> {
    host.many_files();
    let listener = listen(host, &settings)?;
    let address = listener.local_addr().context("cannot see where we listen")?;
    let (runtime, app) = prepare(host, settings, true)?;
    console::err(format_args!("listening on http://{address}/"));
    runtime.block_on(run(app, listener, Until::Signal));
    runtime.shutdown_background();
    console::err("stopped");
    Ok(())
}

impl Running {
    /// Starts an app; port 0 stands for any free one.
    ///
    /// # Errors
    /// The address cannot be listened on, or the database cannot be read.
    pub fn start(host: &Host, settings: Settings) -> Result<Self> {
        let listener = listen(host, &settings)?;
        let address = listener.local_addr().context("cannot see where we listen")?;
        let (runtime, app) = prepare(host, settings, false)?;
        let (stop, stopped) = oneshot::channel();
        let (begun, ready) = std::sync::mpsc::channel();
        // A thread of its own: whoever drops the value may be in a runtime, where none can be ended.
        let work = move || {
            runtime.block_on(app.nodes.start());
            let _ = begun.send(());
            runtime.block_on(run(app, listener, Until::Dropped(stopped)));
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("app".into()).spawn(work).context("cannot start a thread")?;
        ready.recv().context("the app did not start")?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there was told by itself.
            let _ = thread.join();
        }
    }
}

/// Opens what the app works with.
fn prepare(host: &Host, settings: Settings, logs: bool) -> Result<(tokio::runtime::Runtime, Arc<Shared>)> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("app")
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let database = Database::open(host, &settings.section)?;
    let (hub, metrics) = (Arc::new(Hub::new(host, logs)), Arc::<Metrics>::default());
    let nodes = Arc::new(Nodes::new(host, &settings, &hub, &metrics));
    let cache = Arc::new(Cache::new(host, &settings.section, &nodes, database, &metrics));
    let page = Page::new(&settings)?;
    Ok((runtime, Arc::new(Shared { host: host.clone(), settings, nodes, cache, metrics, hub, page })))
}

fn listen(host: &Host, settings: &Settings) -> Result<TcpListener> {
    let at = SocketAddr::new(settings.section.bind, settings.section.port);
    let error = match host.listen(at) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let fault = match error.kind() {
        ErrorKind::AddrInUse => {
            Fault::refused(format!("port {} is taken by {}", at.port(), holder(host, at))).hint(format!(
                "choose another port, or stop that one first:\nredis-tp app serve --port {}",
                other(host, at)
            ))
        }
        ErrorKind::AddrNotAvailable => Fault::refused(format!("{} is no address of this machine", at.ip()))
            .hint("give another with --bind"),
        ErrorKind::PermissionDenied => {
            Fault::refused(format!("port {} is not this user's to listen on", at.port())).hint(format!(
                "choose a port from 1024 on:\nredis-tp app serve --port {}",
                other(host, SocketAddr::new(at.ip(), 5000))
            ))
        }
        _ => return Err(error).with_context(|| format!("cannot listen on {at}")),
    };
    Err(fault.into())
}

/// Who listens where we want to.
fn holder(host: &Host, at: SocketAddr) -> String {
    let listeners = facts::listening(host, &[], |port| port == at.port()).unwrap_or_default();
    let overlaps = |ip: IpAddr| ip == at.ip() || ip.is_unspecified() || at.ip().is_unspecified();
    let listener = listeners.iter().find(|listener| overlaps(listener.address));
    listener.map_or_else(|| "another process".into(), facts::Listener::holder)
}

/// A port that is free.
fn other(host: &Host, at: SocketAddr) -> u16 {
    let free = |port: &u16| host.listen(SocketAddr::new(at.ip(), *port)).is_ok();
    (at.port()..=u16::MAX).skip(1).take(100).find(free).unwrap_or(0)
}

/// Serves until it is time to stop, and then what is under way.
async fn run(app: Arc<Shared>, listener: TcpListener, until: Until) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return console::err(format_args!("cannot listen: {error}")),
    };
    let connections = GracefulShutdown::new();
    if let Until::Signal = until {
        app.nodes.start().await;
        if let Some(cure) = app.nodes.view().cure() {
            console::hint(cure);
        }
    }
    let status = tokio::spawn(routes::tell_status(Arc::clone(&app)));
    tokio::select! {
        () = accept(&app, &listener, &connections) => {}
        () = ended(&app.host, until) => {}
    }
    drop(listener);
    status.abort();
    app.hub.end();
    // What is not done by then is not going to be.
    let _ = timeout(FAREWELL + app.settings.section.slow, connections.shutdown()).await;
}

async fn ended(host: &Host, until: Until) {
    match until {
        // Also an error means that the owner is gone.
        Until::Dropped(stopped) => drop(stopped.await),
        Until::Signal => {
            if let Err(error) = host.told_to_end().await {
                console::err(format_args!("cannot catch signals: {error}"));
            }
        }
    }
}

/// Takes connections for ever.
async fn accept(app: &Arc<Shared>, listener: &tokio::net::TcpListener, connections: &GracefulShutdown) {
    let router = TowerToHyperService::new(routes::router(Arc::clone(app)));
    let site = Arc::new(Site { app: Arc::clone(app), router });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(BUFFER).writev(false);
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // A client that has gone away already, or no file left for a moment.
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        // Only a delay would come of a failure.
        let _ = stream.set_nodelay(true);
        let site = Arc::clone(&site);
        let service = service_fn(move |request| answer(Arc::clone(&site), request));
        let connection = connections.watch(server.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = connection.await;
            drop(place);
        });
    }
}

/// The app and its paths.
struct Site {
    app: Arc<Shared>,
    router: TowerToHyperService<Router>,
}

/// A value is asked for most of all, and found without a detour by the router.
async fn answer(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.method() == Method::GET && request.uri().path().starts_with(PATH) {
        return Ok(data(&site.app, &request.into_parts().0).await);
    }
    site.router.call(request).await
}

//! What the app is compared with: axum and redis, GET and reply, and nothing else.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

#[derive(serde::Serialize)]
struct Reply {
    key: String,
    value: String,
    source: &'static str,
}

pub fn serve(port: u16, redis: u16) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let client = redis::Client::open(("127.0.0.1", redis)).expect("an address");
        let redis = client.get_multiplexed_async_connection().await.expect("a server");
        let router = Router::new().route("/data/{key}", get(data)).with_state(redis);
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = tokio::net::TcpListener::bind(at).await.expect("a free port");
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

async fn data(State(mut redis): State<MultiplexedConnection>, Path(key): Path<String>) -> impl IntoResponse {
    let value = redis.get(&key).await.unwrap_or_default();
    let reply = serde_json::to_string(&Reply { key, value, source: "cache" }).unwrap_or_default();
    ([(CONTENT_TYPE, "application/json")], reply)
}

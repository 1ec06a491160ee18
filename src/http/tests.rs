//! The client against servers that speak raw HTTP, well and badly.

#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Barrier};
use std::thread;

use super::*;

/// A server that gives each connection, after its request, these bytes, and hangs up.
fn server(says: Vec<u8>) -> Url {
    serve(move |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(&says);
    })
}

fn serve(talk: impl Fn(std::net::TcpStream) + Clone + Send + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let talk = talk.clone();
            thread::spawn(move || talk(stream.unwrap()));
        }
    });
    Url::parse(&format!("http://127.0.0.1:{port}/app")).unwrap()
}

fn ask(url: &Url) -> Result<Answer, Trouble> {
    get(&Host::real(), url, "/data/a", Duration::from_secs(2))
}

fn said(url: &Url) -> String {
    ask(url).unwrap_err().to_string()
}

#[test]
fn an_answer_is_read_however_its_length_is_told() {
    for (head, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nConnection: close", "hello"),
        ("HTTP/1.0 200 OK", "hello"),
    ] {
        let answer = ask(&server(format!("{head}\r\nX-Cache: HIT\r\n\r\n{body}").into_bytes())).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{head}");
        assert_eq!(answer.header("x-cache"), Some("HIT"), "{head}");
    }
}

#[test]
fn the_request_names_its_host_and_the_whole_path() {
    let url = serve(|mut stream| {
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        let _ = stream.write_all(&request[..length]);
    });
    let text = ask(&url).unwrap().text();
    assert!(text.starts_with("GET /app/data/a HTTP/1.1\r\n"), "{text}");
    assert!(text.contains(&format!("host: {}\r\n", url.authority())), "{text}");
}

#[test]
fn each_kind_of_trouble_is_said_in_plain_words() {
    assert_eq!(said(&server(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())), "what it answers is not HTTP/1.1");
    let cut = "it hung up before its answer was whole";
    assert_eq!(said(&server(Vec::new())), cut);
    assert_eq!(said(&server(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".to_vec())), cut);
    let mut long = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    long.resize(LIMIT + 100, b'x');
    assert_eq!(said(&server(long)), "its answer is longer than 1 MiB");
    let closed = Url::local([127, 0, 0, 1].into(), 1);
    assert_eq!(ask(&closed), Err(Trouble::Refused));
}

#[test]
fn a_server_that_hangs_is_given_up_in_time() {
    let url = serve(|_stream| thread::sleep(Duration::from_secs(10)));
    let began = std::time::Instant::now();
    let answer = get(&Host::real(), &url, "/", Duration::from_millis(100));
    assert_eq!(answer, Err(Trouble::TimedOut));
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn together_is_at_once() {
    // Nobody is answered before all have asked.
    let barrier = Arc::new(Barrier::new(20));
    let url = serve(move |mut stream| {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        barrier.wait();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let answers = together(&Host::real(), &url, "/", 20, Duration::from_secs(5));
    assert_eq!(answers.len(), 20);
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.text() == "ok")));
}

#[test]
fn many_questions_get_their_answers_in_order() {
    let url = serve(|mut stream| {
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        let text = String::from_utf8_lossy(&request[..length]);
        let number: u64 = text.split(['/', ' ']).nth(3).unwrap().parse().unwrap();
        thread::sleep(Duration::from_millis(30 - 10 * number));
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
    });
    let paths = (0..3).map(|number| format!("/{number}")).collect();
    let answers = each(&Host::real(), &url, paths, Duration::from_secs(5));
    let texts: Vec<String> = answers.into_iter().map(|answer| answer.unwrap().text()).collect();
    assert_eq!(texts, ["0", "1", "2"]);
}

#[test]
fn a_connection_is_used_again_until_the_server_closes_it() {
    let url = serve(|mut stream| {
        for last in ["", "", "Connection: close\r\n"] {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{last}\r\n");
        }
    });
    let host = Host::real();
    let open = wait(&host, async {
        let mut connection = Connection::open(&host, &url).await.unwrap();
        let mut open = Vec::new();
        for _ in 0..3 {
            connection.get("/").await.unwrap();
            open.push(connection.is_open().await);
        }
        open
    });
    assert_eq!(open, Ok(vec![true, true, false]));
}

//! Reads of many requests from one server travel together: while a batch is under way, the next one
//! gathers. Under load that saves most of the system calls; alone, a read is a batch by itself.

use std::io;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};

/// How many reads travel together at most.
const BATCH: usize = 128;
/// How many may wait for the next batch without being held up.
const WAITING: usize = 1024;

/// A value, and how long it stays in the cache (for ever, if that is none); none where there is no such
/// key.
pub type Read = RedisResult<Option<(Vec<u8>, Option<Duration>)>>;

/// A server's reads.
#[derive(Debug)]
pub struct Reads(mpsc::Sender<Ask>);

#[derive(Debug)]
struct Ask {
    name: String,
    answer: oneshot::Sender<Read>,
}

impl Reads {
    /// The reads that go over a connection.
    pub fn over(connection: MultiplexedConnection) -> Self {
        let (sender, asks) = mpsc::channel(WAITING);
        tokio::spawn(carry(connection, asks));
        Self(sender)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// The server refuses, is away, or does not answer in time.
    pub async fn get(&self, name: String) -> Read {
        let (answer, read) = oneshot::channel();
        let gone = || RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe));
        self.0.send(Ask { name, answer }).await.map_err(|_| gone())?;
        read.await.map_err(|_| gone())?
    }
}

/// Carries batches until nobody can ask any more.
async fn carry(mut connection: MultiplexedConnection, mut asks: mpsc::Receiver<Ask>) {
    let mut batch = Vec::with_capacity(BATCH);
    while asks.recv_many(&mut batch, BATCH).await > 0 {
        let count = batch.len() * 2;
        let mut commands = Pipeline::with_capacity(count);
        for Ask { name, .. } in &batch {
            commands.cmd("GET").arg(name).cmd("PTTL").arg(name);
        }
        match connection.send_packed_commands(&commands, 0, count).await {
            Ok(values) => {
                let mut values = values.into_iter();
                for ask in batch.drain(..) {
                    // Whoever has gone away does not want it any more.
                    let _ = ask.answer.send(read(values.next(), values.next()));
                }
            }
            Err(error) => {
                // Who has come meanwhile need not wait in vain, too.
                while let Ok(ask) = asks.try_recv() {
                    batch.push(ask);
                }
                for ask in batch.drain(..) {
                    let _ = ask.answer.send(Err(error.clone()));
                }
            }
        }
    }
}

fn read(value: Option<Value>, left: Option<Value>) -> Read {
    let value = match value {
        Some(Value::BulkString(value)) => value,
        Some(Value::Nil) => return Ok(None),
        Some(Value::ServerError(error)) => return Err(error.into()),
        other => return Err(odd(&other)),
    };
    match left {
        // No lifetime: whoever has put it there means it to stay.
        Some(Value::Int(-1)) => Ok(Some((value, None))),
        Some(Value::Int(left)) => {
            Ok(Some((value, Some(Duration::from_millis(u64::try_from(left).unwrap_or(0))))))
        }
        Some(Value::ServerError(error)) => Err(error.into()),
        other => Err(odd(&other)),
    }
}

fn odd(value: &Option<Value>) -> RedisError {
    let kind = match value {
        None => "nothing",
        Some(_) => "something else than was asked for",
    };
    RedisError::from(io::Error::new(io::ErrorKind::InvalidData, format!("it answered {kind}")))
}

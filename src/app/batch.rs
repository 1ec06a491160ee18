//! Reads of many requests from one server travel together: while a batch is under way, the next one
//! gathers, and who asks for the same key in it is answered by one read. Under load that saves most of
//! the system calls; alone, a read is a batch by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{mpsc, oneshot};

/// How many reads travel together at most.
const BATCH: usize = 128;
/// How many may wait for the next batch without being held up.
const WAITING: usize = 1024;

/// A value in the cache.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The value; none if it is not UTF-8.
    pub text: Option<Arc<str>>,
    /// How long it stays; for ever, if that is none.
    pub left: Option<Duration>,
}

/// What comes of a read; none where there is no such key.
pub type Read = RedisResult<Option<Cached>>;

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
        let (commands, places) = pack(&batch);
        match connection.send_packed_commands(&commands, 0, commands.len()).await {
            Ok(values) => {
                let mut values = values.into_iter();
                let mut reads = Vec::with_capacity(commands.len() / 2);
                while let Some(value) = values.next() {
                    reads.push(read(value, values.next()));
                }
                for (ask, place) in batch.drain(..).zip(places) {
                    let read = reads.get(place).cloned().unwrap_or_else(|| Err(odd()));
                    // Whoever has gone away does not want it any more.
                    let _ = ask.answer.send(read);
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

/// The commands for a batch, and for each who asks, which of their answers is theirs.
fn pack(batch: &[Ask]) -> (Pipeline, Vec<usize>) {
    let mut commands = Pipeline::with_capacity(batch.len() * 2);
    let mut distinct: Vec<&str> = Vec::with_capacity(batch.len());
    let mut places = Vec::with_capacity(batch.len());
    for Ask { name, .. } in batch {
        let known = distinct.iter().position(|at| *at == name);
        places.push(known.unwrap_or(distinct.len()));
        if known.is_none() {
            distinct.push(name);
            commands.cmd("GET").arg(name).cmd("PTTL").arg(name);
        }
    }
    (commands, places)
}

fn read(value: Value, left: Option<Value>) -> Read {
    let value = match value {
        Value::BulkString(value) => value,
        Value::Nil => return Ok(None),
        Value::ServerError(error) => return Err(error.into()),
        _ => return Err(odd()),
    };
    let left = match left {
        // No lifetime: whoever has put it there means it to stay.
        Some(Value::Int(-1)) => None,
        Some(Value::Int(left)) => Some(Duration::from_millis(u64::try_from(left).unwrap_or(0))),
        Some(Value::ServerError(error)) => return Err(error.into()),
        _ => return Err(odd()),
    };
    Ok(Some(Cached { text: std::str::from_utf8(&value).ok().map(Arc::from), left }))
}

fn odd() -> RedisError {
    io::Error::new(io::ErrorKind::InvalidData, "it answered something else than was asked for").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_the_same_gets_the_same_and_nobody_anothers() {
        let ask = |name: &str| Ask { name: name.into(), answer: oneshot::channel().0 };
        let (commands, places) = pack(&["a", "b", "a", "c", "b"].map(ask));
        assert_eq!((commands.len(), places), (6, vec![0, 1, 0, 2, 1]));
    }
}

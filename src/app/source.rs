//! Where a value comes from that is not in the cache: the lab's simulated database, or a table of SQLite.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::{Connection, ErrorCode, OptionalExtension, types::ValueRef};
use tokio::sync::Semaphore;

use crate::exit::Fault;
use crate::host::Host;
use crate::topology::{AppSection, Source, Table};

/// How many reads of a SQLite database are under way at once; each has a connection of its own.
const READERS: usize = 4;
/// How long a read waits for another's lock on the database.
const LOCKED: Duration = Duration::from_secs(1);

/// A database.
#[derive(Debug)]
pub enum Database {
    /// It takes its time, and answers with the key in capitals.
    Simulated(Duration),
    /// A table.
    Sqlite(Sqlite),
}

/// A table of a SQLite database, and the connections that nobody uses just now, each with the inode of the
/// file that it was opened for.
#[derive(Debug)]
pub struct Sqlite {
    host: Host,
    file: PathBuf,
    query: String,
    idle: Mutex<Vec<(Option<u64>, Connection)>>,
    places: Semaphore,
}

/// Why a database gave no answer.
#[derive(Debug)]
pub enum Broken {
    /// What SQLite says.
    Sqlite(rusqlite::Error),
    /// The value is no text.
    NoText,
    /// The read was ended with the app.
    Ended,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(error) => write!(f, "{}", plain(error)),
            Self::NoText => f.write_str("the value is not UTF-8 text"),
            Self::Ended => f.write_str("the app was stopped meanwhile"),
        }
    }
}

impl Database {
    /// Opens the database that the settings name.
    ///
    /// # Errors
    /// No such file, no database, not the table or the columns that are asked for.
    pub fn open(host: &Host, section: &AppSection) -> Result<Self> {
        match &section.source {
            Source::Simulated => Ok(Self::Simulated(section.slow)),
            Source::Sqlite(file) => Sqlite::open(host, file, &section.table).map(Self::Sqlite),
        }
    }

    /// Reads a value; none where there is no such row, or nothing in it.
    ///
    /// # Errors
    /// The database broke meanwhile, is locked for too long, or the value is no text.
    pub async fn read(this: &std::sync::Arc<Self>, key: &str) -> Result<Option<String>, Broken> {
        if let Self::Simulated(slow) = this.as_ref() {
            tokio::time::sleep(*slow).await;
            return Ok(Some(key.to_uppercase()));
        }
        let Self::Sqlite(sqlite) = this.as_ref() else { return Ok(None) };
        let _place = sqlite.places.acquire().await.map_err(|_| Broken::Ended)?;
        let (own, key) = (std::sync::Arc::clone(this), key.to_owned());
        let read = tokio::task::spawn_blocking(move || match own.as_ref() {
            Self::Sqlite(sqlite) => sqlite.read(&key),
            Self::Simulated(_) => Ok(None),
        });
        read.await.map_err(|_| Broken::Ended)?
    }
}

impl Sqlite {
    fn open(host: &Host, file: &Path, table: &Table) -> Result<Self> {
        if host.stat(file)?.is_none() {
            return Err(Fault::refused(format!("{} is not there", file.display()))
                .hint(format!("make the database first, for example:\n{}", make(file, table)))
                .into());
        }
        // As text, as SQLite itself would have it: the rest of its types are not JSON's.
        let query = format!("SELECT CAST(value AS TEXT) FROM \"{}\" WHERE key = ?1", table.as_str());
        let sqlite = Self {
            host: host.clone(),
            file: file.to_path_buf(),
            query,
            idle: Mutex::default(),
            places: Semaphore::new(READERS),
        };
        match sqlite.read("") {
            Ok(_) | Err(Broken::NoText) => Ok(sqlite),
            Err(Broken::Sqlite(error)) => Err(refusal(file, table, &error)),
            Err(Broken::Ended) => Err(Broken::Ended).context("cannot read the database"),
        }
    }

    fn read(&self, key: &str) -> Result<Option<String>, Broken> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Another file may stand there by now: a database is often put in place as a whole.
        let inode = self.host.stat(&self.file).ok().flatten().map(|stat| stat.inode);
        let kept = idle().pop().filter(|(of, _)| *of == inode);
        let connection = match kept {
            Some((_, connection)) => connection,
            None => self.connect().map_err(Broken::Sqlite)?,
        };
        // One that failed is not kept: the next read opens the file anew, whatever it is by then.
        let value = self.ask(&connection, key).map_err(Broken::Sqlite)?;
        idle().push((inode, connection));
        value.map(String::from_utf8).transpose().map_err(|_| Broken::NoText)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = self.host.sqlite(&self.file)?;
        connection.busy_timeout(LOCKED)?;
        Ok(connection)
    }

    fn ask(&self, connection: &Connection, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let mut query = connection.prepare(&self.query)?;
        let text = |row: &rusqlite::Row<'_>| match row.get_ref(0)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Some(bytes.to_vec())),
            _ => Ok(None),
        };
        query.query_row([key], text).optional().map(Option::flatten)
    }
}

impl std::error::Error for Broken {}

/// What SQLite says, without the query.
fn plain(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

fn make(file: &Path, table: &Table) -> String {
    let (file, table) = (crate::commands::shell_word(&file.display().to_string()), table.as_str());
    format!("sqlite3 {file} 'CREATE TABLE {table} (key TEXT PRIMARY KEY, value TEXT)'")
}

fn refusal(file: &Path, table: &Table, error: &rusqlite::Error) -> anyhow::Error {
    let name = file.display();
    let said = plain(error);
    let fault = match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            Fault::refused(format!("{name} is no SQLite database")).hint("give another file with --source")
        }
        Some(ErrorCode::CannotOpen) => Fault::refused(format!("cannot open {name}: {said}"))
            .hint(format!("see that this user may read it:\nls -l {name}")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Fault::refused(format!("{name} is locked by another program")).hint("wait until that has ended")
        }
        _ => Fault::refused(format!("{name} cannot be read by key: {said}")).hint(format!(
            "the columns key and value are needed; give another --table, or make it:\n{}",
            make(file, table)
        )),
    };
    fault.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(sql: &str) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path());
        #[allow(clippy::disallowed_methods, reason = "somebody else's database, to be written")]
        Connection::open(dir.path().join("lab.db")).unwrap().execute_batch(sql).unwrap();
        (dir, host)
    }

    fn open(host: &Host) -> Result<Sqlite> {
        Sqlite::open(host, Path::new("/lab.db"), &Table::default())
    }

    #[test]
    fn every_type_of_a_value_becomes_its_text_or_none() {
        let (_dir, host) = database(
            "CREATE TABLE data (key, value); INSERT INTO data VALUES ('t', 'é'), ('i', 7), ('r', 1.5),
             ('n', NULL), ('b', x'ff'), ('u', x'c3a9')",
        );
        let sqlite = open(&host).unwrap();
        for (key, value) in [("t", "é"), ("i", "7"), ("r", "1.5"), ("u", "é")] {
            assert_eq!(sqlite.read(key).unwrap().as_deref(), Some(value), "{key}");
        }
        assert_eq!(sqlite.read("n").unwrap(), None);
        assert_eq!(sqlite.read("' OR 1=1 --").unwrap(), None);
        assert!(matches!(sqlite.read("b"), Err(Broken::NoText)));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "somebody else's hand")]
    fn a_file_that_was_put_in_place_of_another_is_the_one_that_is_read() {
        let sql = |value| format!("CREATE TABLE data (key, value); INSERT INTO data VALUES ('k', '{value}')");
        let ((dir, host), (next, _)) = (database(&sql("old")), database(&sql("new")));
        let sqlite = open(&host).unwrap();
        assert_eq!(sqlite.read("k").unwrap().as_deref(), Some("old"));
        std::fs::rename(next.path().join("lab.db"), dir.path().join("lab.db")).unwrap();
        assert_eq!(sqlite.read("k").unwrap().as_deref(), Some("new"));
        std::fs::remove_file(dir.path().join("lab.db")).unwrap();
        assert!(matches!(sqlite.read("k"), Err(Broken::Sqlite(_))));
    }

    #[test]
    fn what_cannot_be_read_by_key_is_refused_with_the_cure() {
        for sql in ["CREATE TABLE other (key, value)", "CREATE TABLE data (key, val)", ""] {
            let (_dir, host) = database(sql);
            let error = open(&host).unwrap_err();
            let fault = error.downcast_ref::<Fault>().unwrap();
            assert!(fault.cure().is_some_and(|cure| cure.contains("CREATE TABLE data")), "{fault}");
        }
        let host = Host::at(tempfile::tempdir().unwrap().path());
        assert!(open(&host).unwrap_err().to_string().contains("is not there"));
    }
}

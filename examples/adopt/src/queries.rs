//! The queries of the bot. They are the same before and after.

use rig::message::Message;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Result};
use tracing::instrument;

/// A database in memory, with the customers and orders of the demo.
#[instrument]
pub(crate) fn open() -> Result<Connection> {
    let db = Connection::open_in_memory()?;
    db.execute_batch(
        "CREATE TABLE users (token TEXT, id TEXT);
         CREATE TABLE orders (number INTEGER, place TEXT);
         CREATE TABLE messages (conversation TEXT, message TEXT);
         CREATE TABLE audit (user TEXT);
         INSERT INTO users VALUES ('Bearer ada', 'u-7'), ('Bearer ben', 'u-8');
         INSERT INTO orders VALUES (4711, 'in a van');",
    )?;
    Ok(db)
}

#[instrument(skip_all)]
pub(crate) fn select_user(db: &Connection, token: &str) -> Result<Option<String>> {
    let select = "SELECT id FROM users WHERE token = ?";
    db.query_row(select, [token], |row| row.get(0)).optional()
}

#[instrument(skip_all)]
pub(crate) fn select_order(db: &Connection, number: i64) -> Result<Option<String>> {
    let select = "SELECT place FROM orders WHERE number = ?";
    db.query_row(select, [number], |row| row.get(0)).optional()
}

#[instrument(skip_all)]
pub(crate) fn select_messages(db: &Connection, conversation: &str) -> Result<Vec<Message>> {
    let select = "SELECT message FROM messages WHERE conversation = ? ORDER BY rowid";
    let mut select = db.prepare(select)?;
    let messages = select.query_map([conversation], |row| {
        let json: String = row.get(0)?;
        serde_json::from_str(&json)
            .map_err(|error| Error::FromSqlConversionFailure(0, Type::Text, error.into()))
    })?;
    messages.collect()
}

#[instrument(skip_all)]
pub(crate) fn insert_message(db: &Connection, conversation: &str, message: &Message) -> Result<()> {
    let json = serde_json::to_string(message)
        .map_err(|error| Error::ToSqlConversionFailure(error.into()))?;
    let insert = "INSERT INTO messages VALUES (?, ?)";
    db.execute(insert, [conversation, &json]).map(drop)
}

#[instrument(skip_all)]
pub(crate) fn insert_audit(db: &Connection, user: &str) -> Result<()> {
    db.execute("INSERT INTO audit VALUES (?)", [user]).map(drop)
}

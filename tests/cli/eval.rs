//! `expo eval`.

#[path = "eval/alpaca.rs"]
mod alpaca;
#[path = "eval/hostile.rs"]
mod hostile;
#[path = "eval/judge.rs"]
mod judge;
#[path = "eval/offline.rs"]
mod offline;
#[path = "eval/server.rs"]
mod server;

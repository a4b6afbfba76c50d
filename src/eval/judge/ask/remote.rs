//! An endpoint is asked by several threads at once; one thread takes what it replies.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use super::super::endpoint::Endpoint;
use super::super::items::Answer;
use super::super::reply::Miss;
use super::super::template::Template;
use super::Replies;
use crate::error::Error;

/// Asks the calls `todo`, until `stop` says so or the judge is given up.
pub fn ask(
    endpoint: &Endpoint,
    template: &Template,
    todo: &[usize],
    concurrency: usize,
    stop: &(dyn Fn() -> bool + Sync),
    replies: &mut Replies,
) {
    let (items, calls) = (replies.questions.items, replies.questions.calls);
    let (next, ended, null) = (AtomicUsize::new(0), AtomicBool::new(false), Answer::null());
    let stopped = || ended.load(Relaxed) || stop();
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for started in 0..concurrency.min(todo.len()) {
            let send = send.clone();
            let (next, null, stopped, ended) = (&next, &null, &stopped, &ended);
            let work = move || {
                while let Some(&call) = todo.get(next.fetch_add(1, Relaxed)) {
                    let (prompt, [a, b]) = calls[call].texts(items, null);
                    let question = template.render(prompt, &a.text, &b.text);
                    let reply = endpoint.ask(&endpoint.body(&question), stopped);
                    if matches!(reply, Err(Miss::Fatal(_))) {
                        ended.store(true, Relaxed);
                    }
                    if send.send((call, reply)).is_err() || stopped() {
                        break;
                    }
                }
            };
            // With fewer threads than that it takes longer.
            if let Err(error) = std::thread::Builder::new().spawn_scoped(scope, work) {
                if started == 0 {
                    let error = Error::failed(format!("no thread can be started: {error}"));
                    replies.fatal = Some(error);
                }
                break;
            }
        }
        drop(send);
        for (call, reply) in receive {
            replies.take(call, reply);
            if replies.given_up {
                ended.store(true, Relaxed);
            }
        }
    });
}
